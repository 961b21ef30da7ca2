"""One stepper for every tableau on (W, H); :mod:`~sdeflow.solvers.stochastic_tableaus` has its form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdeflow.solvers.stochastic_tableaus import FIRST, Row, StochasticTableau, Weights
from sdeflow.solvers.terms import Advance, Step, Terms

__all__ = ["RungeKutta"]

Sum = tuple[tuple[int, float], ...]
Found = dict[int, Tensor]


class Recipe(NamedTuple):
    """Weights without their zeros: (stage, weight) for f h, g W and g H."""

    f: Sum
    W: Sum
    H: Sum

    @classmethod
    def of(cls, weights: Weights) -> Recipe:
        return cls(*(tuple((j, w) for j, w in enumerate(row) if w) for row in (weights.f, weights.W, weights.H)))


class Stage(NamedTuple):
    """What is done in a stage.

    Attributes:
        place: Which of the stepper's places it is at.
        state: How its state is made; None where it is that at the beginning.
        f: Whether f is evaluated.
        g: Whether g is.
        W: Whether g W is used.
        H: Whether g H is used.
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
            [any(_entry(getattr(weights, kind), j) for weights in sums) for j in range(len(tableau.c))]
            for kind in ("f", "W", "H")
        )
        self.places = tuple(sorted(set(tableau.c)))
        carries = tableau.additive
        self.stages = tuple(
            Stage(
                self.places.index(c),
                None if weights == FIRST else Recipe.of(weights),
                f[j],
                W[j] or H[j],
                W[j],
                H[j],
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
        W, H = terms.W, terms.H
        noisy = W is not None
        f: Found = {}
        gW: Found = {}
        gH: Found = {}
        last = None
        for j, stage in enumerate(self.stages):
            t = times[stage.place]
            z = x if stage.state is None else _plus(x, stage.state, terms.h, noisy, f, gW, gH)
            if stage.f:
                f[j] = terms.drift(t, z)
            if noisy and stage.g:
                g = first if stage.at_start else None
                if g is None:
                    g = terms.diffusion(t, z)
                if stage.at_end:
                    last = g
                if stage.W:
                    gW[j] = terms.apply(g, W)
                if stage.H:
                    gH[j] = terms.apply(g, H)
        y = _plus(x, self.b, terms.h, noisy, f, gW, gH)
        if not error or self.error is None:
            return Advance(y, None, last)
        return Advance(y, _plus(torch.zeros_like(x), self.error, terms.h, noisy, f, gW, gH), last)


def _plus(x: Tensor, recipe: Recipe, h: Step, noisy: bool, f: Found, gW: Found, gH: Found) -> Tensor:
    """x and a sum over the stages."""
    for j, weight in recipe.f:  # `along`, without a call in the innermost loop
        x = torch.add(x, f[j], alpha=weight * h) if isinstance(h, float) else torch.addcmul(x, f[j], h, value=weight)
    if noisy:
        for j, weight in recipe.W:
            x = torch.add(x, gW[j], alpha=weight)
        for j, weight in recipe.H:
            x = torch.add(x, gH[j], alpha=weight)
    return x


def _entry(row: Row, j: int) -> float:
    return row[j] if j < len(row) else 0.0
