"""One stepper for every tableau on (W, H); :mod:`~sdeflow.solvers.stochastic_tableaus` has its form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdeflow.solvers.stochastic_tableaus import FIRST, Row, StochasticTableau, Weights
from sdeflow.solvers.terms import Advance, Terms, along

__all__ = ["RungeKutta"]

Sum = tuple[tuple[int, float], ...]

CANCELLED = 1e-14  # a sum of weights that differs from 0 by their rounding


class Found:
    """What the stages of a step have come to, by their number.

    Attributes:
        f: The drift of each.
        g: The diffusion.
        one: The diffusion of all stages so far, if it is one tensor, as that of a constant is; else None.
        products: g W and g H where they are used more than once, by (stage, kind), kind 0 being W.
        in_place: Whether sums are made in place: where nothing is differentiated, and h is one number.
    """

    __slots__ = ("f", "g", "in_place", "one", "products")

    def __init__(self, in_place: bool) -> None:
        self.f: dict[int, Tensor] = {}
        self.g: dict[int, Tensor] = {}
        self.one: Tensor | None = None
        self.products: dict[tuple[int, int], Tensor] = {}
        self.in_place = in_place


class Recipe(NamedTuple):
    """Weights without their zeros: (stage, weight) for f h, g W and g H; and their sums for W and H, where all g are one."""

    f: Sum
    W: Sum
    H: Sum
    all_W: float
    all_H: float

    @classmethod
    def of(cls, weights: Weights) -> Recipe:
        f, W, H = (tuple((j, w) for j, w in enumerate(row) if w) for row in (weights.f, weights.W, weights.H))
        all_W, all_H = (total if abs(total) > CANCELLED else 0.0 for total in map(math.fsum, (weights.W, weights.H)))
        return cls(f, W, H, all_W, all_H)


class Stage(NamedTuple):
    """What is done in a stage.

    Attributes:
        place: Which of the stepper's places it is at.
        state: How its state is made; None where it is that at the beginning.
        f: Whether f is evaluated.
        g: Whether g is.
        W: Whether g W is used more than once, and so worth a product of its own.
        H: The same of g H.
        at_start: Whether its g may come from the step before.
        at_end: Whether its g serves the step that follows.
    """

    place: int
    state: Recipe | None
    f: bool
    g: bool
    W: bool
    H: bool
    at_start: bool
    at_end: bool


class RungeKutta:
    """A stochastic Runge–Kutta method, or a plain one where the process has no noise.

    Arguments:
        tableau: Its coefficients. What none of them uses is not evaluated.
    """

    def __init__(self, tableau: StochasticTableau) -> None:
        sums = (*tableau.stages, tableau.b)
        f, W, H = (
            [sum(_entry(getattr(weights, kind), j) != 0 for weights in sums) for j in range(len(tableau.c))]
            for kind in ("f", "W", "H")
        )
        self.places = tuple(sorted(set(tableau.c)))
        carries = tableau.additive
        self.stages = tuple(
            Stage(
                self.places.index(c),
                None if weights == FIRST else Recipe.of(weights),
                f[j] > 0,
                W[j] > 0 or H[j] > 0,
                W[j] > 1,
                H[j] > 1,
                carries and c == 0,
                carries and c == 1,
            )
            for j, (c, weights) in enumerate(zip(tableau.c, tableau.stages, strict=True))
        )
        self.b = Recipe.of(tableau.b)
        self.error_order = None if tableau.error is None else tableau.error_order
        self.error = None if tableau.error is None else Recipe.of(tableau.error)

    def step(
        self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Tensor | None = None, error: bool = False
    ) -> Advance:
        found, last = Found(isinstance(terms.h, float) and not torch.is_grad_enabled()), None
        for j, (place, state, has_f, has_g, many_W, many_H, at_start, at_end) in enumerate(self.stages):
            t = times[place]
            z = x if state is None else _plus(x, state, terms, found)
            if has_f:
                found.f[j] = terms.drift(t, z)
            if has_g and terms.W is not None:
                g = first if at_start and first is not None else terms.diffusion(t, z)
                if at_end:
                    last = g
                if g is not found.one:
                    found.one = None if found.g else g
                found.g[j] = g
                if found.one is None:
                    if many_W:
                        found.products[j, 0] = terms.apply(g, terms.W)
                    if many_H:
                        found.products[j, 1] = terms.apply(g, terms.H)
        y = _plus(x, self.b, terms, found)
        if not error or self.error is None:
            return Advance(y, None, last)
        return Advance(y, _plus(torch.zeros_like(x), self.error, terms, found), last)


def _plus(x: Tensor, recipe: Recipe, terms: Terms, found: Found) -> Tensor:
    """x and a sum over the stages: the first makes a new tensor, and the others are added to it, in place where they may be."""
    of_f, of_W, of_H, all_W, all_H = recipe
    h, in_place, own = terms.h, found.in_place, False
    for j, weight in of_f:
        x = x.add_(found.f[j], alpha=weight * h) if own and isinstance(h, float) else along(x, found.f[j], weight, h)
        own = in_place
    W = terms.W
    if W is None:
        return x
    g = found.one
    if g is not None:
        if all_W:
            x, own = terms.plus(x, g, W, all_W, own), in_place
        return terms.plus(x, g, terms.H, all_H, own) if all_H else x
    for kind, weights, v in ((0, of_W, W), (1, of_H, terms.H)):
        for j, weight in weights:
            product = found.products.get((j, kind))
            if product is None:
                x = terms.plus(x, found.g[j], v, weight, own)
            else:
                x = x.add_(product, alpha=weight) if own else torch.add(x, product, alpha=weight)
            own = in_place
    return x


def _entry(row: Row, j: int) -> float:
    return row[j] if j < len(row) else 0.0
