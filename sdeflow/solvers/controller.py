r"""Step sizes from error estimates: norms, the first step, and the controller.

Every sample has a clock of its own, or the whole batch has one. The error of a batch is the root-mean-square over its samples,
but no less than a part of that of its worst sample: an average alone would let easy samples hide a hard one, and the worst
sample alone makes all of them more accurate than each would be by itself, since it is seldom the same one.

References:
    Solving Ordinary Differential Equations I, II.4 (Hairer, Nørsett & Wanner, 1993),
    https://doi.org/10.1007/978-3-540-78862-1; Solving Ordinary Differential Equations II, IV.2 (Hairer & Wanner, 1996),
    https://doi.org/10.1007/978-3-642-05221-7
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["OWN_TARGET", "SHARED_TARGET", "Controller", "Tolerance", "first_step", "shared_error"]

SMALLEST, LARGEST = 0.2, 10.0
# The step is changed by (target / error)^(GAIN / order), which steers the error to a part of the tolerance; a gain below 1
# damps what the error of one step says about the next. At 0.7 steps run ahead where a problem becomes harder on the way (a
# score near the data: twice the error); a proportional part besides gains nothing measurable.
GAIN = 0.4
OWN_TARGET = 0.2  # at 0.4 a step in eight is rejected (Van der Pol), and what is gained is lost again
SHARED_TARGET = 0.4  # the error of a batch is smoother in time than that of a sample

SAFETY = 0.9  # where a step is rejected, times error^(−1 / order)

SLOWEST = 1e-3  # rates of change of a velocity, per unit of time, below which a first step does not grow further

WORST = 4.0  # tolerances that the error of the worst sample of a batch may reach


class Tolerance:
    """What is small: |error| ≤ atol + rtol |x|, in the root-mean-square over the coordinates of a sample.

    Arguments:
        relative: rtol, times the root of the number of coordinates, 0-d: so the root of the mean is in the scale.
        absolute: atol, likewise.
        weights: The roots of the coordinates' weights, ``(D,)``; None where all count alike.
    """

    def __init__(self, relative: Tensor, absolute: Tensor, weights: Tensor | None) -> None:
        self.relative, self.absolute, self.weights = relative, absolute, weights
        self.numbers: tuple[float, float] | None = None

    @classmethod
    def of(cls, rtol: float, atol: float, mask: Tensor | None, like: Tensor) -> Tolerance:
        """That of two numbers and a mask of the coordinates that count, broadcasting against one row; None for all."""
        weights, count = None, float(like[0].numel())
        if mask is not None:
            counted = mask.to(like).expand(like.shape[1:]).flatten()
            weights, count = counted.sqrt(), float(counted.sum())
        # With atol = 0 a coordinate that rests at 0 has no scale.
        relative, absolute = rtol * math.sqrt(count), (atol or torch.finfo(like.dtype).tiny) * math.sqrt(count)
        tolerance = cls(like.new_tensor(relative), like.new_tensor(absolute), weights)
        tolerance.numbers = (relative, absolute)
        return tolerance

    def scale(self, *states: Tensor) -> Tensor:
        """atol + rtol max |x|, times the root of the number of coordinates."""
        largest = states[0].abs()
        for state in states[1:]:
            largest = torch.maximum(largest, state.abs())
        return torch.addcmul(self.absolute, self.relative, largest)

    def norm(self, v: Tensor) -> Tensor:
        """The size of v, already divided by the scale: ``(…, B)`` of ``(…, B, D)``."""
        size: Tensor = torch.linalg.vector_norm(v if self.weights is None else v * self.weights, dim=-1)
        return size

    def error(self, estimates: Tensor, *states: Tensor) -> Tensor:
        """The error of each sample in units of the tolerance, ``(B,)``, from one estimate or two ``(1 or 2, B, *event)``."""
        scale = self.scale(*states)
        sizes = self.norm((estimates / scale).flatten(2))
        if len(sizes) == 1:
            return sizes[0]
        first, second = sizes.double().square().unbind()
        return first / (first + 0.01 * second).sqrt_().clamp_(min=1e-300)


class Controller:
    """By how much to change a step, from its error.

    Arguments:
        order: The power of h in the error of one step.
        target: The error to steer to, in tolerances.
    """

    def __init__(self, order: float, target: float = OWN_TARGET) -> None:
        self.gain, self.offset = GAIN / order, GAIN / order * math.log(target)
        self.plain, self.safety = 1 / order, math.log(SAFETY)

    def number(self, error: float) -> float:
        """The factor for a clock on the host."""
        if not 0 < error < math.inf:
            return LARGEST if error == 0 else SMALLEST
        log = math.log(error)
        factor = min(self.offset - self.gain * log, self.safety - self.plain * log)
        return min(max(math.exp(min(factor, 700.0)), SMALLEST), LARGEST)

    def vector(self, error: Tensor) -> Tensor:
        """The same for every clock, float64."""
        log = error.double().log()
        factor = torch.minimum(self.offset - self.gain * log, self.safety - self.plain * log)
        return _steady(factor.exp_().nan_to_num_(nan=SMALLEST).clamp_(SMALLEST, LARGEST))


def shared_error(error: Tensor) -> Tensor:
    """The error of a batch from those of its samples, 0-d."""
    root = math.sqrt(len(error))
    return torch.maximum(error.amax() * (root / WORST), torch.linalg.vector_norm(error)) / root


def first_step(
    evaluate: Callable[[Tensor, Tensor], Tensor],
    tolerance: Tolerance,
    t: float | Tensor,
    x: Tensor,
    velocity: Tensor,
    order: float,
    longest: float,
) -> Tensor:
    """A first step for each clock, from the size of x, of its velocity, and of the velocity's change; one evaluation.

    Returns:
        Float64, ``(B,)``; of one element where the batch has one clock.
    """
    shared = not isinstance(t, Tensor)

    def norm(v: Tensor) -> Tensor:
        size = tolerance.norm((v / scale).flatten(1)).double()
        return size.amax(0, keepdim=True) if shared else size

    with torch.no_grad():
        x, velocity = x.detach(), velocity.detach()
        scale = tolerance.scale(x)
        d0, d1 = norm(x), norm(velocity)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).clamp_max(longest)
        wide = h0.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        ahead = evaluate((t + h0)[0] if shared else t + h0, x + wide * velocity)
        d2 = norm(ahead - velocity) / h0
        steepest = torch.maximum(d1, d2)
        # The error is the size of the velocity times (rate h)^(order − 1): where it hardly changes, its size says little.
        slow = (d2 / d1).nan_to_num_(nan=1.0).clamp_(SLOWEST, 1.0) ** (order - 1)
        h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp_min(1e-6), (0.01 / (steepest * slow)) ** (1 / order))
        h = torch.minimum(100 * h0, h1)
        h = torch.where(h.isfinite() & (h > 0), h, h0)
        return torch.where(h.isfinite() & (h > 0), _steady(h), 1e-6 * longest).clamp_max(longest)


def _steady(v: Tensor) -> Tensor:
    """v to seven digits.

    Powers come out different in their last digit for the vectorised part of a tensor and its remainder, so by the size
    of the batch; a step size must not, or a sample's trajectory would depend on its batch-mates.
    """
    return v.float().double()
