r"""Milstein's method, and its form without derivatives.

To Euler's step it adds the iterated integrals of the noise,

.. math:: \tfrac12 \sum_{k,l} (\partial\sigma_k)\sigma_l\,(W_k W_l - \delta_{kl} h),

without the :math:`\delta_{kl} h` in Stratonovich form. This is all of them where the columns commute,
:math:`(\partial\sigma_k)\sigma_l = (\partial\sigma_l)\sigma_k`: otherwise Lévy areas are missing, and the order is 1/2 as
without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdeflow.calculus import along_itself, elementwise, jacobian
from sdeflow.solvers.terms import Advance, Step, Terms, along, root

__all__ = ["DerivativeFreeMilstein", "Milstein"]


class Milstein:
    """Milstein's method, with the derivative of the diffusion by automatic differentiation."""

    places = (0.0,)
    error_order = None

    def step(
        self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Tensor | None = None, error: bool = False
    ) -> Advance:
        (t,), process, W = times, terms.process, terms.W
        assert W is not None
        drift = terms.drift(t, x)
        mean = terms.h if process.calculus == "ito" else 0.0  # of W²
        if process.additive:
            noise = terms.apply(terms.diffusion(t, x), W)
        elif process.noise == "general":
            noise = _columns(terms, t, x, W, mean)
        else:
            derivative = elementwise if process.noise == "diagonal" else along_itself
            g, slope = derivative(lambda y: terms.diffusion(t, y).expand_as(y), x)
            slope = g * slope if process.noise == "diagonal" else slope
            noise = torch.add(g * W, slope * (W * W - mean), alpha=0.5)
        return Advance(along(x, drift, 1.0, terms.h) + noise)


def _columns(terms: Terms, t: Tensor, x: Tensor, W: Tensor, mean: Step) -> Tensor:
    g, J = jacobian(lambda y: terms.diffusion(t, y), x)
    J = J.reshape(*g.shape, x.shape[1])  # ∂_j σ_ik at [b, i, k, j]
    increment = terms.apply(g, W)
    second = torch.einsum("bikj,bk,bj->bi", J, W, increment) - mean * torch.einsum("bikj,bjk->bi", J, g)
    return torch.add(increment, second, alpha=0.5)


class DerivativeFreeMilstein:
    """Platen's form for Itô SDEs: (g(t, x + f h + g√h) − g)/√h stands for g ∂g.

    It is one-sided, which W² − h, with mean 0, forgives. In Stratonovich form it would leave a mean error in every step; there
    the Euler–Heun method is the one without derivatives.
    """

    places = (0.0,)
    error_order = None

    def step(
        self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Tensor | None = None, error: bool = False
    ) -> Advance:
        (t,), h, W = times, terms.h, terms.W
        assert W is not None
        square_root = root(h)
        g = terms.diffusion(t, x)
        y = along(x, terms.drift(t, x), 1.0, h)
        change = terms.diffusion(t, along(y, g, 1.0, square_root)) - g
        return Advance(torch.addcmul(torch.addcmul(y, g, W), change, (W * W - h) / (2 * square_root)))
