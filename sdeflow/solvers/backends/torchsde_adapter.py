r"""A process and its path as torchsde wants to see them.

torchsde adds up its times, ``t += dt``, and so ends on slivers, drifts in float32, and steps over the save times,
between which it interpolates. Steps of fixed size are therefore run on a clock of their own, u = 0, h, 2h, …, where h
is the step with so many of its last binary digits cleared that no k h is rounded; that changes it by less than adding up
all steps would. So each save time is hit, and a step is k = u / h exactly; the true time of node k is looked up. All steps
of a call have the same size, since the later stages of a step belong to its end, where the next size would already hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from torchsde import BaseBrownian

from sdeflow.brownian import Driver
from sdeflow.processes.boundary import rounding_unit, state_time
from sdeflow.processes.sde import SDE
from sdeflow.solvers.grid import Grid
from sdeflow.solvers.job import Counter
from sdeflow.solvers.terms import Terms

__all__ = ["Coefficients", "Noise", "RealClock", "StepClock", "noise_type"]

CHUNK = 1024  # nodes whose times are prepared together

Clock = Callable[[float], Tensor]
Observer = Callable[[float, float], None]


def _prepare(process: SDE, t: Tensor, x: Tensor) -> Tensor:
    """Times ``(N,)`` as the process wants them, so that its guard has nothing to convert."""
    return t if process.precise_time else state_time(t, x.new_empty(len(t), 1), process.interval).reshape(-1)


class StepClock:
    """The true time of u, where nodes first, first + 1, …, last of a grid are u = 0, h, 2h, …

    Arguments:
        process: Whose times they are.
        x: A state, for its dtype and device.
        grid: The grid.
        first: The node that is u = 0.
        last: The last node; all steps between are equal up to rounding.
        jumps: The nodes at which a coefficient jumps; the run is on this side of them.

    Attributes:
        h: The step, of which every multiple and every quarter of one is a number.
    """

    def __init__(self, process: SDE, x: Tensor, grid: Grid, first: int, last: int, jumps: Collection[int] = ()) -> None:
        self.process, self.x = process, x
        self.nodes = grid.nodes[first : last + 1]
        unit = rounding_unit(x, *process.interval, *self.nodes[[0, -1]].tolist())
        self.low = float(self.nodes[0]) + unit * (first in jumps)
        self.high = float(self.nodes[-1]) - unit * (last in jumps)
        self.h = _with_digits_to_spare(float(self.nodes[-1] - self.nodes[0]) / (last - first), 4 * (last - first))
        self._rows: dict[tuple[int, float], tuple[Tensor, ...]] = {}

    def __call__(self, u: float) -> Tensor:
        steps = u / self.h
        k = math.floor(steps)
        place = steps - k
        key = (k // CHUNK, place)
        if key not in self._rows:
            if len(self._rows) >= 8:  # the places in a step that a method looks at, and the next chunk of each
                self._rows.clear()
            left = self.nodes[key[0] * CHUNK : (key[0] + 1) * CHUNK]
            t = torch.from_numpy(left + place * self.h).to(self.x.device)
            self._rows[key] = _prepare(self.process, t.clamp(self.low, self.high), self.x).unbind()
        return self._rows[key][k % CHUNK]

    def node(self, u: float) -> int:
        """Which node of the run u is."""
        return round(u / self.h)


def _with_digits_to_spare(h: float, multiple: int) -> float:
    """The number next to h all of whose multiples up to a certain one are numbers too."""
    mantissa, exponent = math.frexp(h)
    digits = 53 - multiple.bit_length()
    return math.ldexp(round(math.ldexp(mantissa, digits)), exponent - digits)


class RealClock:
    """The time itself, never outside [start, end], by which rounding may miss."""

    def __init__(self, process: SDE, x: Tensor, start: float, end: float) -> None:
        self.process, self.x, self.start, self.end = process, x, start, end
        self._recent: dict[float, Tensor] = {}

    def __call__(self, t: float) -> Tensor:
        if t not in self._recent:  # stages ask for the same few times, drift and diffusion for the same ones
            if len(self._recent) >= 8:
                self._recent.clear()
            inside = np.asarray([min(max(t, self.start), self.end)])
            self._recent[t] = _prepare(self.process, torch.from_numpy(inside).to(self.x.device), self.x)[0]
        return self._recent[t]


def noise_type(process: SDE) -> str:
    """torchsde's word for the noise. Additive noise on the diagonal stays there: it is a vector then, not a matrix."""
    return "additive" if process.additive and process.noise != "diagonal" else process.noise


class Coefficients:
    """The object with f and g that torchsde steps; states are flat, ``(B, D)``, and every evaluation is counted.

    Before it steps, torchsde calls f and g once to see their shapes. Those values are kept and handed out where the
    first step asks for them again, so that nothing is evaluated or counted in vain.

    Arguments:
        process: The process.
        shape: The shape of its state, ``(B, *event)``.
        clock: From torchsde's time to the time given to the process.
        calculus: The calculus that the method is for; additive noise goes with either.
        counter: Where evaluations are counted.
    """

    def __init__(self, process: SDE, shape: torch.Size, clock: Clock, calculus: str, counter: Counter) -> None:
        self.process, self.shape, self.clock, self.counter = process, shape, clock, counter
        self.sde_type = calculus
        self.noise_type = noise_type(process)
        self._seen: dict[str, tuple[float, Tensor, Tensor] | None] = {}
        self._terms = Terms(process, Counter())  # calls and checks; what counts is what torchsde uses
        self._number: tuple[Tensor, Tensor] | None = None

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self._first_twice("drift", self._drift, float(t), y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self._first_twice("diffusion", self._diffusion, float(t), y)

    def _first_twice(self, name: str, evaluate: Callable[[float, Tensor], Tensor], t: float, y: Tensor) -> Tensor:
        if name not in self._seen:
            value = evaluate(t, y)
            self._seen[name] = t, y, value
            return value
        setattr(self.counter, name, getattr(self.counter, name) + 1)
        seen = self._seen[name]
        # The same tensor, not an equal one: Milstein's method differentiates by a copy of the state.
        if seen is None or seen[1] is not y or seen[0] != t:
            return evaluate(t, y)
        self._seen[name] = None
        return seen[2]

    def _drift(self, t: float, y: Tensor) -> Tensor:
        return _shaped(self._terms.drift(self.clock(t), _shaped(y, self.shape)), y.shape)

    def _diffusion(self, t: float, y: Tensor) -> Tensor:
        g = self._terms.diffusion(self.clock(t), _shaped(y, self.shape))
        if g is not self._terms.constant[1]:  # not a number
            return self._as_wanted(g, y)
        if self._number is None or self._number[0] is not g:  # a number is made a tensor of the state's shape once
            self._number = g, self._as_wanted(g, y)
        return self._number[1]

    def _as_wanted(self, g: Tensor, y: Tensor) -> Tensor:
        """A diffusion in the shape that torchsde wants."""
        if self.process.noise == "general":
            return g
        g = _shaped(g.expand(self.shape), y.shape)
        return g if self.process.noise == "diagonal" else g.unsqueeze(-1)


class Noise(BaseBrownian):  # type: ignore[misc]  # torchsde has no types
    """A path as torchsde's Brownian motion, with shape ``(B, M)``, on the clock that torchsde runs on.

    Arguments:
        path: The path.
        areas: Whether the Lévy area matters, as it does for general noise only; without, it is not computed.
        clock: The clock of fixed steps, or None where torchsde's time is the time itself.
        steps: The noise of each step of that clock, where nothing but whole steps is asked for; else None.
        observe: Called with each interval that is asked for, in torchsde's time.
    """

    def __init__(
        self,
        path: Driver,
        areas: bool,
        observe: Observer,
        clock: StepClock | None = None,
        steps: Callable[[int], tuple[Tensor, Tensor | None]] | None = None,
    ) -> None:
        self.path, self.areas, self.observe, self.clock, self._steps = path, areas, observe, clock, steps
        self._shape = (path.shape[0], math.prod(path.shape[1:]))

    def __repr__(self) -> str:
        return f"Noise({self.path!r})"

    shape = property(lambda self: self._shape)
    dtype = property(lambda self: self.path.dtype)
    device = property(lambda self: self.path.device)
    levy_area_approximation = property(lambda self: self.path.levy_area_approximation)

    def __call__(
        self, ta: float | Tensor, tb: float | Tensor, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        start, stop = float(ta), float(tb)
        self.observe(start, stop)
        areas = return_A and self.areas
        parts = self._step(start, return_U) if self._steps and not areas else self._query(start, stop, return_U, areas)
        if not areas:
            parts = [_shaped(part, self._shape) for part in parts]
            if return_A:
                parts.append(parts[0].new_zeros(()))  # torchsde asks for it and, without general noise, ignores it
        return tuple(parts) if len(parts) > 1 else parts[0]

    def _step(self, start: float, return_U: bool) -> list[Tensor]:
        """W, and U where it is wanted, of the whole step that begins then."""
        assert self._steps is not None and self.clock is not None
        W, H = self._steps(self.clock.node(start))
        return [W, torch.add(H, W, alpha=0.5).mul_(self.clock.h)] if return_U and H is not None else [W]

    def _query(self, start: float, stop: float, return_U: bool, areas: bool) -> list[Tensor]:
        """W, and U and A where they are wanted."""
        if self.clock is not None:
            nodes = self.clock.nodes
            start, stop = (float(nodes[self.clock.node(u)]) for u in (start, stop))
        answer = self.path(start, stop, return_U=return_U, return_A=areas)
        return [answer] if isinstance(answer, Tensor) else list(answer)


def _shaped(x: Tensor, shape: Sequence[int]) -> Tensor:
    """A view of another shape; none is made where it has that already, since each costs as much as a small step."""
    return x if x.shape == shape else x.reshape(shape)
