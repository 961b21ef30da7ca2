"""One stepper for every tableau on (W, H); :mod:`~sdeflow.solvers.stochastic_tableaus` has its form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdeflow.solvers.stochastic_tableaus import FIRST, Row, StochasticTableau, Weights
from sdeflow.solvers.terms import Advance, Terms

__all__ = ["RungeKutta"]

Sum = tuple[tuple[int, float], ...]

CANCELLED = 1e-14  # a sum of weights that differs from 0 by their rounding


class Found:
    """What the stages of a step have come to, by their number.

    Attributes:
        f: The drift of each.
        g: The diffusion.
        gW: Its product with W, where that is used more than once.
        gH: The same of H.
        one: The diffusion of all stages so far, if it is one tensor, as that of a constant is.
    """

    __slots__ = ("f", "g", "gH", "gW", "one")

    def __init__(self) -> None:
        self.f: dict[int, Tensor] = {}
        self.g: dict[int, Tensor] = {}
        self.gW: dict[int, Tensor] = {}
        self.gH: dict[int, Tensor] = {}
        self.one: Tensor | None = None


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
        return cls(f, W, H, math.fsum(weights.W), math.fsum(weights.H))


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
        noisy = terms.W is not None
        found, last = Found(), None
        for j, stage in enumerate(self.stages):
            t = times[stage.place]
            z = x if stage.state is None else _plus(x, stage.state, terms, found)
            if stage.f:
                found.f[j] = terms.drift(t, z)
            if noisy and stage.g:
                g = first if stage.at_start else None
                if g is None:
                    g = terms.diffusion(t, z)
                if stage.at_end:
                    last = g
                if found.one is not g:
                    found.one = None if found.g else g
                found.g[j] = g
                if stage.W and found.one is None:
                    found.gW[j] = terms.apply(g, terms.W)
                if stage.H and found.one is None:
                    found.gH[j] = terms.apply(g, terms.H)
        y = _plus(x, self.b, terms, found)
        if not error or self.error is None:
            return Advance(y, None, last)
        return Advance(y, _plus(torch.zeros_like(x), self.error, terms, found), last)


def _plus(x: Tensor, recipe: Recipe, terms: Terms, found: Found) -> Tensor:
    """x and a sum over the stages; without gradients the first sum is a new tensor, and the others are added to it in place."""
    h, own = terms.h, False
    in_place = isinstance(h, float) and not torch.is_grad_enabled()
    for j, weight in recipe.f:  # `along`, without a call in the innermost loop
        k = found.f[j]
        if not isinstance(h, float):
            x = torch.addcmul(x, k, h, value=weight)
        elif own and in_place:
            x.add_(k, alpha=weight * h)
        else:
            x = torch.add(x, k, alpha=weight * h)
        own = True
    if terms.W is None:
        return x
    if found.one is not None:
        for weight, v in ((recipe.all_W, terms.W), (recipe.all_H, terms.H)):
            if abs(weight) > CANCELLED:
                x, own = terms.plus(x, found.one, v, weight, own and in_place), True
        return x
    for weights, products, v in ((recipe.W, found.gW, terms.W), (recipe.H, found.gH, terms.H)):
        for j, weight in weights:
            product = products.get(j)
            if product is None:
                x = terms.plus(x, found.g[j], v, weight, own and in_place)
            else:
                x = x.add_(product, alpha=weight) if own and in_place else torch.add(x, product, alpha=weight)
            own = True
    return x


def _entry(row: Row, j: int) -> float:
    return row[j] if j < len(row) else 0.0
