"""One stepper for every tableau of Rößler's form; :mod:`~sdeflow.solvers.stochastic_tableaus` has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sdeflow.solvers.stochastic_tableaus import RosslerTableau, Row
from sdeflow.solvers.terms import Advance, Step, Terms, along, root

__all__ = ["Rossler"]


class Rossler:
    """A method of strong order 1.5 for Itô SDEs with diagonal or scalar noise.

    Arguments:
        tableau: Its coefficients.
    """

    error_order: float | None = 1.5

    def __init__(self, tableau: RosslerTableau) -> None:
        self.tableau = tableau
        self.places = tuple(sorted({*tableau.c0, *tableau.c1}))
        self.at0, self.at1 = ([self.places.index(c) for c in row] for row in (tableau.c0, tableau.c1))
        self.columns = tuple(zip(*tableau.b, strict=True))

    def step(
        self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Tensor | None = None, error: bool = False
    ) -> Advance:
        tableau, h, W, H = self.tableau, terms.h, terms.W, terms.H
        assert W is not None and H is not None
        square_root = root(h)
        I10 = torch.add(H, W, alpha=0.5)  # over h
        squared = W * W
        integrals = (W, squared - h, I10, (squared - 3 * h).mul_(W))  # I₁₁ and I₁₁₁ without their 2 and 6
        scales = (1.0, 0.5 / square_root, 1.0, (1 / 6) / h)
        f: list[Tensor] = []
        g: list[Tensor] = []
        for i, time in enumerate(self.at1):
            if i < len(self.at0):
                z = _plus(_drift(x, tableau.A0[i], f, h), tableau.B0[i], g, I10)
                f.append(terms.drift(times[self.at0[i]], z))
            z = _plus(_drift(x, tableau.A1[i], f, h), tableau.B1[i], g, square_root)
            g.append(terms.diffusion(times[time], z))
        y = _drift(x, tableau.a, f, h)
        for weights, value in zip(self.columns, g, strict=True):
            y = torch.addcmul(y, value, _sum(weights, integrals, scales))
        if not error:
            return Advance(y)
        noise = torch.zeros_like(x)
        for weights, value in zip(self.columns, g, strict=True):
            noise = torch.addcmul(noise, value, _sum(weights[2:], integrals[2:], scales[2:]))
        drift = _drift(torch.zeros_like(x), tableau.error_drift, f, h)
        return Advance(y, drift.abs() + noise.abs())


def _drift(x: Tensor, weights: Row, f: list[Tensor], h: Step) -> Tensor:
    """x + h Σ w f."""
    for weight, value in zip(weights, f, strict=False):
        if weight:
            x = along(x, value, weight, h)
    return x


def _plus(x: Tensor, weights: Row, g: list[Tensor], factor: Step) -> Tensor:
    """x + (Σ w g) times a number or a tensor."""
    for weight, value in zip(weights, g, strict=False):
        if weight:
            x = along(x, value, weight, factor)
    return x


def _sum(weights: Iterable[float], values: Iterable[Tensor], scales: Iterable[Step]) -> Tensor:
    """Σ w s v over the weights that are not zero, of which there is one at least; noise has no gradient, so in place."""
    total: Tensor | None = None
    for weight, value, scale in zip(weights, values, scales, strict=True):
        if not weight:
            continue
        factor = weight * scale
        if total is None:
            total = value * factor
        elif isinstance(factor, float):
            total.add_(value, alpha=factor)
        else:
            total.addcmul_(value, factor)
    assert total is not None
    return total
