r"""How pieces of a Brownian path split, join and wind: formulas on (W, H), without randomness or state.

Over an interval of length h that begins at s, with W the increment, the *space-time Lévy area*

.. math:: H = \frac{1}{h} \int_s^{s+h} \Big(W_{s,r} - \frac{r-s}{h} W\Big) dr
            = \frac{1}{h} \int_s^{s+h} W_{s,r} \, dr - \frac{W}{2} \sim N\Big(0, \frac{h}{12}\Big)

is how far the path lies above its chord, on average; it is independent of W.

References:
    Numerical approximations for stochastic differential equations (Foster, 2020, thesis, Oxford):
    theorem 6.1.6 (halves), definition 7.3.5 (Lévy area)

    Single-seed generation of Brownian paths and integrals for adaptive and high order SDE solvers (Jelinčič,
    Foster and Kidger, 2024), https://arxiv.org/abs/2405.06464

    An optimal polynomial approximation of Brownian motion (Foster, Lyons and Oberhauser, 2020),
    https://arxiv.org/abs/1904.06998
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sdeflow.brownian.gaussian import FloatArray

__all__ = ["Piece", "combine", "foster_area", "split"]


class Piece(NamedTuple):
    """A path over one interval, or over one interval for each row: its length, increment and space-time Lévy area."""

    length: float | FloatArray
    W: FloatArray
    H: FloatArray


def split(whole: Piece, z: FloatArray, n: FloatArray) -> tuple[Piece, Piece]:
    r"""The two halves of a piece, given two independent standard normals.

    With :math:`\bar z = \sqrt{h/16}\, z` and :math:`\bar n = \sqrt{h/12}\, n`,

    .. math:: d = \tfrac{3}{2} H + \bar z, \qquad W_\pm = \tfrac{1}{2} W \pm d, \qquad
              H_\pm = \tfrac{1}{4} H - \tfrac{1}{2} \bar z \pm \tfrac{1}{2} \bar n,

    the first half with the upper sign. This is the exact conditional law, and :func:`combine` undoes it.
    """
    h = whole.length
    z = (h / 16) ** 0.5 * z
    n = (h / 48) ** 0.5 * n
    half, d = 0.5 * whole.W, 1.5 * whole.H
    d += z
    z *= -0.5
    z += 0.25 * whole.H  # now the mean of the two areas
    return Piece(h / 2, half + d, z + n), Piece(h / 2, half - d, z - n)


def combine(left: Piece, right: Piece) -> Piece:
    r"""The piece over two adjacent intervals (Chen's relation).

    .. math:: h = h_1 + h_2, \qquad W = W_1 + W_2, \qquad
              H = \frac{h_1 H_1 + h_2 H_2}{h} + \frac{h_2 W_1 - h_1 W_2}{2h}.
    """
    h = left.length + right.length
    a, b = left.length / h, right.length / h
    return Piece(h, left.W + right.W, a * (left.H - 0.5 * right.W) + b * (right.H + 0.5 * left.W))


def foster_area(W: Tensor, H: Tensor, h: float, noise: Tensor) -> Tensor:
    r"""Foster's approximation of the Lévy area :math:`A_{ij} = \frac12 \int (W_i \, dW_j - W_j \, dW_i)`.

    .. math:: A_{ij} \approx H_i W_j - W_i H_j
              + \sqrt{\tfrac{1}{20} h^2 + \tfrac{1}{5} h (H_i^2 + H_j^2)} \; \xi_{ij}

    has the mean and the variance of A given (W, H), hence :math:`E A_{ij}^2 = h^2/4` exactly. It is
    antisymmetric.

    Arguments:
        W: The increment, with shape ``(B, *, M)``.
        H: The space-time Lévy area, with shape ``(B, *, M)``.
        h: The length of the interval.
        noise: Standard normals, with shape ``(B, *, M, M)``; those above the diagonal are used.

    Returns:
        A, with shape ``(B, *, M, M)``.

    Example:
        >>> A = foster_area(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.5]]), 1.0, torch.zeros(1, 2, 2))
        >>> A[0, 0, 1].item(), A[0, 1, 0].item()
        (-0.5, 0.5)
    """
    upper = noise.triu(1)
    xi = upper - upper.mT
    mean = H.unsqueeze(-1) * W.unsqueeze(-2)
    squares = H.square()
    variance = h * (h / 20 + (squares.unsqueeze(-1) + squares.unsqueeze(-2)) / 5)
    return torch.addcmul(mean - mean.mT, variance.sqrt(), xi)
