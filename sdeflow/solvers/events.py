r"""Events: the times at which a function g(t, x) of the solution crosses zero, sample by sample.

A crossing shows as a change of sign between two of nine places in an accepted step, and is located on the polynomial through
the step by the ITP method, for all samples concerned together. Its time and state carry gradients, by the implicit function
theorem:

.. math:: dt^* = -\frac{\nabla g \cdot dx}{\dot g}, \qquad dx^* = dx + \dot x\, dt^*

with dx the change of the solution at a fixed time, and ġ the derivative of g along it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.solvers.stepper import horner
from sdeflow.types import Field

__all__ = ["Event", "Occurrences", "Watch", "as_events", "itp"]

PARTS = 8  # of a step, in each of which one crossing is seen: steps are as long as the solution allows, not g


@dataclass(frozen=True)
class Event:
    """Something to look out for in a solve: a zero of g(t, x).

    Arguments:
        function: g, a function of (t, x) with shape ``(B,)``, continuous where it crosses zero. It is asked at nine places
            in a step: two crossings within an eighth of it are not seen.
        direction: +1 for crossings upwards as the solve goes, −1 for those downwards, 0 for both.
        terminal: Whether a sample ends there: it has the status ``EVENT``, and its state is held for later save times.

    Raises:
        ArgumentError: The function is not one, or the direction is none of the three.

    Example:
        >>> fall = sf.ODE(lambda t, x: torch.stack([x[:, 1], -9.81 + 0 * x[:, 1]], 1), interval=(0.0, 5.0))
        >>> ground = sf.Event(lambda t, x: x[:, 0], direction=-1)
        >>> sol = sf.solve(fall, torch.tensor([[10.0, 0.0]]), rtol=1e-6, event=ground)
        >>> sol.events[0].t, sol.status
        (tensor([1.4278], dtype=torch.float64), tensor([4]))
    """

    function: Field
    direction: int = 0
    terminal: bool = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ArgumentError(
                f"the event is {self.function!r}; give a function of (t, x) that is zero where it happens."
            )
        if self.direction not in (-1, 0, 1):
            raise ArgumentError(f"direction={self.direction!r}; give +1 (upwards), −1 (downwards) or 0 (both).")


@dataclass(frozen=True)
class Occurrences:
    """Where one event has happened, ordered by sample, then by time as the solve went.

    Attributes:
        sample: Which sample, ``(N,)``.
        t: The times, float64, ``(N,)``.
        x: The states, ``(N, *event)``.
    """

    sample: Tensor
    t: Tensor
    x: Tensor

    def __len__(self) -> int:
        return len(self.sample)


def as_events(event: Event | Field | Sequence[Event | Field] | None) -> tuple[Event, ...]:
    """What was given as ``event=``, as events."""
    if event is None:
        return ()
    if isinstance(event, (list, tuple)):
        return tuple(one if isinstance(one, Event) else Event(one) for one in event)
    return (event if isinstance(event, Event) else Event(event),)  # type: ignore[arg-type]


class Ended(NamedTuple):
    """Samples that a terminal event has ended.

    Attributes:
        rows: Which, a mask ``(B,)``.
        t: When, ``(B,)`` float64.
        x: Where.
    """

    rows: Tensor
    t: Tensor
    x: Tensor


class Watch:
    """The events of a solve, watched step by step.

    Arguments:
        events: The events, on the clock of the solve.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.before: list[Tensor] = []
        self.found: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in events]

    def values(self, t: Tensor, x: Tensor) -> list[Tensor]:
        """g of every event; t is ``(B,)``."""
        time = t.reshape(-1, *[1] * (x.ndim - 1))
        values = []
        for event in self.events:
            value = event.function(time, x)
            if not isinstance(value, Tensor) or value.shape != (len(x),):
                what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"
                raise ArgumentError(
                    f"the event returned {what} for {len(x)} samples; return one number for each, ({len(x)},)."
                )
            values.append(value)
        return values

    def start(self, t: Tensor, x: Tensor) -> None:
        with torch.no_grad():
            self.before = self.values(t, x)

    def look(
        self,
        t: Tensor,
        h: Tensor,
        x1: Tensor,
        accepted: Tensor,
        polynomial: Callable[[], Tensor],
    ) -> Ended | None:
        """What has happened in a step; t and h are ``(B,)``, and so is the mask. Returns those whom it has ended."""
        c = polynomial()
        with torch.no_grad():
            after = self.values(t + h, x1)
            inside = [self.values(t + p * h, horner(c, p)) for p in (j / PARTS for j in range(1, PARTS))]
            course = [torch.stack(values) for values in zip(self.before, *inside, after, strict=True)]  # (PARTS + 1, B)
            crossed = torch.stack(
                [
                    accepted & _crosses(g[:-1], g[1:], event.direction)
                    for event, g in zip(self.events, course, strict=True)
                ]
            )
            self.before = [torch.where(accepted, g1, g0) for g0, g1 in zip(self.before, after, strict=True)]
            found = crossed.any(-1).nonzero().tolist()  # which events in which parts, in the order of time for each
            if not found:
                return None
            places = [torch.where(crossed[k, j], self._zero(k, j, course[k], t, h, c), math.inf) for k, j in found]
            last = torch.full_like(t, math.inf)
            for (k, _), place in zip(found, places, strict=True):
                last = torch.minimum(last, place) if self.events[k].terminal else last
        ended = None
        for (k, _), place in zip(found, places, strict=True):
            here = (place <= last) & place.isfinite()
            time, x = self._at(k, t, h, c, torch.where(here, place, 0.0))
            index = here.nonzero().flatten()
            self.found[k].append((index, time[index], x[index]))
            if self.events[k].terminal:
                done = Ended(here, torch.where(here, time, t), x)
                ended = done if ended is None else _either(ended, done)
        return ended

    def _zero(self, k: int, part: int, course: Tensor, t: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Where in the step an event crosses zero in a part of it, 0 to 1, ``(B,)``."""

        def place(inside: Tensor) -> Tensor:
            return (part + inside) / PARTS

        def g(inside: Tensor) -> Tensor:
            at = place(inside)
            return self.values(t + at * h, horner(c, _wide(at, c[0])))[k].double()

        return place(itp(g, course[part].double(), course[part + 1].double()))

    def _at(self, k: int, t: Tensor, h: Tensor, c: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """The time and state of a crossing, with their derivatives."""
        wide = _wide(place, c[0])
        x, time = horner(c, wide), t + place * h
        if not torch.is_grad_enabled():
            return time, x
        value = self.values(time, x)[k]
        if not value.requires_grad:  # neither the solution nor what g itself is made of
            return time, x
        powers = torch.arange(1, len(c), dtype=c.dtype, device=c.device).reshape(-1, *[1] * (c.ndim - 1))
        length = torch.where(h > 0, h, 1.0)
        slope = (horner(c.detach()[1:] * powers, wide) / _wide(length, x)).detach()  # ẋ
        with torch.enable_grad():
            s, y = time.detach().requires_grad_(), x.detach().requires_grad_()
            g = self.values(s, y)[k].sum()
            along_t, along_x = torch.autograd.grad(g, (s, y), allow_unused=True)
        rate = torch.zeros_like(s) if along_t is None else along_t
        if along_x is not None:
            rate = rate + (along_x * slope).flatten(1).sum(1)
        shift = (
            -(value - value.detach()) / torch.where(rate == 0, 1.0, rate).detach()
        )  # zero, with the derivative of t*
        return time + shift, x + slope * _wide(shift, x)

    def occurrences(self, like: Tensor, caller_time: Callable[[Tensor], Tensor]) -> tuple[Occurrences, ...]:
        """All that has happened, with times on the caller's clock."""
        result = []
        for found in self.found:
            nothing = (like.new_empty(0, dtype=torch.int64), like.new_empty(0, dtype=torch.float64), like[:0])
            sample, t, x = (torch.cat(part) for part in zip(nothing, *found, strict=True))
            order = torch.argsort(sample, stable=True)
            result.append(Occurrences(sample[order], caller_time(t[order]), x[order]))
        return tuple(result)


def _either(first: Ended, second: Ended) -> Ended:
    sooner = second.rows & (~first.rows | (second.t < first.t))
    return Ended(
        first.rows | second.rows,
        torch.where(sooner, second.t, first.t),
        torch.where(_wide(sooner, first.x), second.x, first.x),
    )


def _crosses(before: Tensor, after: Tensor, direction: int) -> Tensor:
    up, down = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
    return up if direction > 0 else down if direction < 0 else up | down


def _wide(v: Tensor, x: Tensor) -> Tensor:
    return (v if v.dtype is torch.bool else v.to(x.dtype)).reshape(-1, *[1] * (x.ndim - 1))


def itp(g: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, precision: float = 1e-14) -> Tensor:
    """A zero in [0, 1] of each of a vector of functions, from their values at the ends; what does not change sign is left over.

    References:
        An enhancement of the bisection method average performance preserving minmax optimality (Oliveira & Takahashi, 2020),
        https://doi.org/10.1145/3423597
    """
    a, b = torch.zeros_like(low), torch.ones_like(low)
    sign = torch.where(high >= low, 1.0, -1.0)
    ya, yb = low * sign, high * sign
    brackets = (ya <= 0) & (yb >= 0)
    most = math.ceil(math.log2(1 / (2 * precision))) + 1
    for j in range(most + 1):
        width = torch.where(brackets, b - a, 0.0)
        if float(width.max()) <= 2 * precision:
            break
        middle = (a + b) / 2
        false = torch.where(yb > ya, (yb * a - ya * b) / (yb - ya), middle)
        toward = torch.sign(middle - false)
        shift = 0.2 * width.square()
        point = torch.where(shift <= (middle - false).abs(), false + toward * shift, middle)
        radius = (precision * 2.0 ** (most - j) - width / 2).clamp_min(0.0)
        point = torch.where((point - middle).abs() <= radius, point, middle - toward * radius)
        y = g(point) * sign
        a, ya = torch.where(y < 0, point, a), torch.where(y < 0, y, ya)
        b, yb = torch.where(y > 0, point, b), torch.where(y > 0, y, yb)
        exact = y == 0
        a, b = torch.where(exact, point, a), torch.where(exact, point, b)
    return (a + b) / 2
