r"""Step sizes from error estimates: norms, the first step, and the PI controller.

Everything here is a vector with one entry for each clock: one for every sample, or a single one for the whole batch, whose
error is then that of its worst sample. An average over the batch would let easy samples hide a hard one.

References:
    Solving Ordinary Differential Equations I, II.4 (Hairer, Nørsett & Wanner, 1993),
    https://doi.org/10.1007/978-3-540-78862-1; Solving Ordinary Differential Equations II, IV.2 (Hairer & Wanner, 1996),
    https://doi.org/10.1007/978-3-642-05221-7
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Tolerance", "first_step", "next_factor"]

SAFETY, SMALLEST, LARGEST = 0.9, 0.2, 10.0
PROPORTIONAL, INTEGRAL = 0.4, 0.7  # exponents over the order of the error, as Hairer & Wanner recommend


@dataclass(frozen=True)
class Tolerance:
    """What is small: |error| ≤ atol + rtol |x|, in the root-mean-square over the coordinates of a sample.

    Attributes:
        rtol: The relative tolerance.
        atol: The absolute one.
        mask: Which coordinates count, broadcasting against one row; None for all.
        shared: Whether the batch has one clock.
    """

    rtol: float
    atol: float
    mask: Tensor | None
    shared: bool

    def scale(self, *states: Tensor) -> Tensor:
        """atol + rtol max |x|."""
        largest = states[0].abs()
        for state in states[1:]:
            largest = torch.maximum(largest, state.abs())
        # With atol = 0 a coordinate that rests at 0 has no scale, and no error either.
        return largest.mul(self.rtol).add_(self.atol).clamp_min_(torch.finfo(largest.dtype).tiny)

    def norm(self, v: Tensor) -> Tensor:
        """The size of v, already divided by the scale, on each clock: ``(B,)`` or ``(1,)``, float64."""
        squares = v.flatten(1).square()
        if self.mask is None:
            size = squares.mean(1)
        else:
            weights = self.mask.to(v).expand(v.shape[1:]).flatten()
            size = (squares * weights).sum(1) / weights.sum()
        size = size.double().sqrt()
        return size.amax(0, keepdim=True) if self.shared else size

    def error(self, estimates: Sequence[Tensor], *states: Tensor) -> Tensor:
        """The error in units of the tolerance, from one estimate or a pair of them."""
        scale = self.scale(*states)
        first = self.norm(estimates[0] / scale)
        if len(estimates) == 1:
            return first
        second = self.norm(estimates[1] / scale)
        both = (first.square() + 0.01 * second.square()).sqrt()
        return torch.where(both > 0, first.square() / both, both)


def first_step(
    evaluate: Callable[[Tensor, Tensor], Tensor],
    tolerance: Tolerance,
    t: Tensor,
    x: Tensor,
    velocity: Tensor,
    order: int,
    longest: float,
    wide: Callable[[Tensor], Tensor],
) -> Tensor:
    """A first step on each clock, from the size of x, of its velocity, and of the velocity's change; one evaluation."""
    scale = tolerance.scale(x)
    d0, d1 = tolerance.norm(x / scale), tolerance.norm(velocity / scale)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).clamp_max(longest)
    ahead = evaluate(t + h0, x + wide(h0) * velocity)
    d2 = tolerance.norm((ahead - velocity) / scale) / h0
    steepest = torch.maximum(d1, d2)
    h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp_min(1e-6), (0.01 / steepest) ** (1 / order))
    h = torch.minimum(100 * h0, h1)
    h = torch.where(h.isfinite() & (h > 0), h, h0)
    return torch.where(h.isfinite() & (h > 0), _steady(h), 1e-6 * longest).clamp_max(longest)


def next_factor(error: Tensor, previous: Tensor, accepted: Tensor, order: int) -> Tensor:
    """By how much to change the step: the PI controller after an accepted step, the plain one after a rejected one."""
    error = error.clamp_min(1e-10)
    smooth = SAFETY * error ** (-INTEGRAL / order) * previous ** (PROPORTIONAL / order)
    plain = SAFETY * error ** (-1 / order)
    factor = torch.where(accepted, smooth.clamp(SMALLEST, LARGEST), plain.clamp(SMALLEST, 1.0))
    return _steady(torch.where(error.isfinite(), factor, SMALLEST))


def _steady(v: Tensor) -> Tensor:
    """v to seven digits.

    Powers come out different in their last digit for the vectorised part of a tensor and its remainder, so by the size
    of the batch; a step size must not, or a sample's trajectory would depend on its batch-mates.
    """
    return v.float().double()
