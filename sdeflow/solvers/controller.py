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
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["UNKNOWN", "Controller", "Tolerance", "first_step", "shared_error", "shared_size"]

NOTHING = 1e-300  # an error that is none
UNKNOWN = 1e300  # log φ before the first step: nothing is more

SMALLEST, LARGEST = 0.2, 10.0
# Factors are rounded to parts of one: the last digits of an error differ between ways of computing it (with gradients or
# without, compiled, among other samples), and steps that differed by as much would part the solutions.
PARTS = 1024
# Where the error is below what is steered to, only this part of the way is gone: the error of one step says little about the
# next, least of all where it is small. What is more than e⁵ below is gone all the way: a first step is soon forgotten.
GAIN, DAMPED = 0.4, 5.0
# A step is as long as would reach the tolerance at the rate of this step, times this. Samples differ: where each has a clock of
# its own its error is less smooth in time than that of the batch.
OWN_SAFETY, SHARED_SAFETY = 0.78, 0.93
RISE = 3.0  # a logarithm: no more than e³ from step to step is believed of the growth of what makes a problem hard
# The error of a step that noise drives says nothing about the next one's: it is steered to these parts of the tolerance.
OWN_NOISY, SHARED_NOISY = 0.2, 0.4

SLOWEST = 1e-3  # rates of change of a velocity, per unit of time, below which a first step does not grow further

WORST = 8.0  # tolerances that the error of the worst sample of a batch may reach


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
        self.sizes: tuple[Tensor | None, Tensor] = (None, relative)  # of the state asked about last: |x|

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

    def scale(self, x: Tensor, x1: Tensor | None = None) -> Tensor:
        """atol + rtol max |x|, times the root of the number of coordinates."""
        largest = self.sizes[1] if x is self.sizes[0] else x.abs()
        if x1 is not None:  # most often the next step begins there
            self.sizes = (x1, x1.abs())
            largest = torch.maximum(largest, self.sizes[1])
        return torch.addcmul(self.absolute, self.relative, largest)

    def norm(self, v: Tensor) -> Tensor:
        """The size of v, already divided by the scale: ``(…, B)`` of ``(…, B, D)``."""
        size: Tensor = torch.linalg.vector_norm(v if self.weights is None else v * self.weights, dim=-1)
        return size

    def error(self, estimates: Tensor, x: Tensor, x1: Tensor) -> Tensor:
        """The error of each sample in units of the tolerance, ``(B,)``, from one estimate or two ``(1 or 2, B, *event)``."""
        relative = estimates / self.scale(x, x1)
        sizes = self.norm(relative if relative.ndim == 3 else relative.flatten(2))
        if sizes.shape[0] == 1:
            return sizes[0]
        first, second = sizes.unbind()
        tiny = torch.finfo(sizes.dtype).tiny
        return first * (first / torch.hypot(first, 0.1 * second).clamp_(min=tiny))


class Controller:
    r"""By how much to change a step, from its error and that of the step before.

    The error of a step of length h is :math:`\varphi h^k`. Where φ has grown by a factor from one step to the next, it is
    expected to do so once more; where it has shrunk, it is expected to stay. A problem that becomes harder on the way, as a
    score does near the data, would otherwise see every other step rejected.

    Arguments:
        order: k, the power of h in the error of one step.
        shared: Whether the error is that of a batch.
        noisy: Whether noise drives the steps: then φ is not expected to grow.

    References:
        Control theoretic techniques for stepsize selection in explicit Runge–Kutta methods (Gustafsson, 1991),
        https://doi.org/10.1145/210232.210242
    """

    def __init__(self, order: float, shared: bool, noisy: bool = False) -> None:
        self.order = order
        safety = SHARED_SAFETY if shared else OWN_SAFETY
        self.aim = math.log(SHARED_NOISY if shared else OWN_NOISY) if noisy else order * math.log(safety)
        self.rise, self.damped = (0.0, math.inf) if noisy else (RISE, DAMPED)

    def number(self, error: float, h: float, before: float) -> tuple[float, float]:
        """For a clock on the host: the factor, and log φ, from that of the last step that was accepted."""
        if not error < math.inf:
            return SMALLEST, before
        log = math.log(max(error, NOTHING))
        hardness = log - self.order * math.log(h)
        room = self.aim - log
        change = room - (1 - GAIN) * min(max(room, 0.0), self.damped)
        if error <= 1:
            change -= min(max(hardness - before, 0.0), self.rise)
        factor = math.exp(min(change / self.order, 3.0))
        return min(max(round(factor * PARTS) / PARTS, SMALLEST), LARGEST), hardness

    def vector(self, error: Any, h: Any, before: Any) -> tuple[Any, Any]:
        """The same for every clock, float64: arrays on the host, or tensors."""
        on: Any = np if isinstance(error, np.ndarray) else torch
        log = on.log(_between(error, NOTHING, 1 / NOTHING))
        hardness = log - self.order * on.log(_between(h, NOTHING, math.inf))
        room = self.aim - log
        change = room - (1 - GAIN) * _between(room, 0.0, self.damped)
        if self.rise:  # a step that is tried again is as hard as it has been
            change = change - _between(hardness - before, 0.0, self.rise) * (error <= 1)
        factor = _between(on.round(on.exp(change / self.order) * PARTS) / PARTS, SMALLEST, LARGEST)
        return on.where(error < math.inf, factor, SMALLEST), hardness  # also where the error is NaN


def shared_error(error: Tensor) -> Tensor:
    """The error of a batch from those of its samples, 0-d."""
    root = math.sqrt(len(error))
    return torch.maximum(error.amax() * (root / WORST), torch.linalg.vector_norm(error)) / root


def shared_size(error: Tensor) -> float:
    """The same on the host: two numbers are brought there, in one wait for the device."""
    return max(float(error.amax()) / WORST, float(torch.linalg.vector_norm(error)) / math.sqrt(error.shape[0]))


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


def _between(v: Any, low: float, high: float) -> Any:
    return v.clamp(low, high) if isinstance(v, Tensor) else np.minimum(np.maximum(v, low), high)


def _steady(v: Tensor) -> Tensor:
    """v to seven digits.

    Powers come out different in their last digit for the vectorised part of a tensor and its remainder, so by the size
    of the batch; a step size must not, or a sample's trajectory would depend on its batch-mates.
    """
    return v.float().double()
