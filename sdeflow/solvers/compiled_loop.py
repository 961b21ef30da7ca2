"""Adaptive steps of a Runge–Kutta method as one compiled loop, which ends when every sample has arrived or one has failed.

Attempt, error, controller and the choice between the old state and the new are tensors, and so is whether anybody is under way:
nothing comes to the host between the first step and the last. A batch on one clock is the case of one clock. Save times inside
the span are looked up in every step, all of them: where they are few that costs less than finding out which.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdeflow.solvers.controller import Controller, Tolerance, shared_error
from sdeflow.solvers.fused import say_why_not
from sdeflow.solvers.stages import Sums
from sdeflow.solvers.stepper import horner
from sdeflow.solvers.tableaus import Tableau
from sdeflow.solvers.velocity import Velocity

__all__ = ["CompiledLoop", "Fixed", "Moving"]


class Moving(NamedTuple):
    """What changes from step to step; n clocks, one for each sample or one for all.

    A handful of tensors, for the compiled loop makes new handles for each of them in every step.

    Attributes:
        clocks: Float64 ``(6, n)``: where the clocks are, how long a step to try next, log φ of the last step that was
            accepted (:class:`~sdeflow.solvers.controller.Controller`), the error of the last attempt in tolerances, and how
            many steps were taken and tried.
        x: The states.
        velocity: The velocity there.
        saved: The states at the save times inside the span, ``(W, B, *event)``; NaN where they are to come.
        control: Float64 ``(2,)``: how many more steps may be tried, and whether there is anything left to do.
    """

    clocks: Tensor
    x: Tensor
    velocity: Tensor
    saved: Tensor
    control: Tensor


class Fixed(NamedTuple):
    """What does not.

    Attributes:
        end: Where the clocks are to arrive, ``(n,)``.
        inner: The save times inside the span, ``(W,)``, filled up with infinity.
        numbers: Float64 ``(5,)``: between which times the velocity may be asked, the shortest step, and the tolerances,
            relative and absolute, as :class:`~sdeflow.solvers.controller.Tolerance` has them.
    """

    end: Tensor
    inner: Tensor
    numbers: Tensor


class CompiledLoop:
    """The steps of a method for one process and one shape of its state.

    Arguments:
        tableau: The method.
        velocity: The velocity of the process.
        controller: What sets the steps.
        tolerance: What an error is measured by; its numbers are taken from :class:`Fixed`.
        shared: Whether the batch has one clock.
        looks: Whether there are save times inside the span.
        like: A state.

    Attributes:
        seconds: How long the last call spent on compiling.
    """

    def __init__(
        self,
        tableau: Tableau,
        velocity: Velocity,
        controller: Controller,
        tolerance: Tolerance,
        shared: bool,
        looks: bool,
        like: Tensor,
    ) -> None:
        self.seconds, self._cold = 0.0, True
        self._refusal: Exception | None = None
        dtype, function, axes = velocity.dtype, velocity.function, [1] * (like.ndim - 1)
        clock = [] if shared else [-1, *axes]
        stages, weights = len(tableau.c), tolerance.weights

        def step(now: Moving, fixed: Fixed) -> Moving:
            x = now.x
            t, h, before, _, taken, tried = now.clocks.unbind()
            low, high, smallest, relative, absolute = fixed.numbers.unbind()
            left = fixed.end - t
            moving, lands = left > 0, h >= left * (1 - 1e-10)
            length = torch.minimum(h, left)
            t1 = torch.where(lands, fixed.end, t + length)

            def at(c: float) -> Tensor:
                return (t1 if c == 1 else t + c * length).clamp(low, high).to(dtype).reshape(clock)

            sums = Sums(tableau)
            sums.begin(x, length.to(x.dtype).reshape(-1, *axes))
            sums.put(0, now.velocity)
            x1 = x
            for i, c in enumerate(tableau.c[1:]):
                x1 = sums.move(i, i + 1)
                sums.put(i + 1, function(at(c), x1))
            velocity1 = sums.rows[stages - 1]
            measure = Tolerance(relative.to(x.dtype), absolute.to(x.dtype), weights)
            error = measure.error(sums.errors(), x, x1)
            if shared:
                error = shared_error(error).reshape(1)
            ok = error <= 1  # not so where it is NaN
            factor, hardness = controller.vector(error.double(), length, before)
            proposed, accepted = length * factor, ok & moving
            mask = accepted.reshape(-1, *axes)
            saved = now.saved
            if looks:
                for i, c in enumerate(tableau.extra_c, start=stages):
                    sums.put(i, function(at(c), sums.move(i - 1, i)))
                to = fixed.inner[:, None]
                place = ((to - t) / torch.where(moving, length, 1.0)).to(x.dtype)
                inside = horner(sums.polynomial()[:, None], place.reshape(len(to), -1, *axes))
                here = (accepted & (to > t) & (to <= t1)).reshape(len(to), -1, *axes)
                at_end = (to == t1).reshape(len(to), -1, *axes)
                saved = torch.where(here, torch.where(at_end, x1, inside), saved)
            t = torch.where(accepted, t1, t)
            kept = lands & (ok | ~moving)
            h = torch.maximum(proposed, torch.where(kept, h, smallest * ok))
            stuck = moving & ~ok & ~(h >= smallest)
            budget = now.control[0] - 1
            going = (t < fixed.end).any() & ~stuck.any()
            return Moving(
                torch.stack(
                    [t, h, torch.where(accepted, hardness, before), error.double(), taken + accepted, tried + moving]
                ),
                torch.where(mask, x1, x),
                torch.where(mask, velocity1, now.velocity),
                saved if looks else saved.clone(),  # what comes out is not what went in
                torch.stack([budget, going.double()]),
            )

        def loop(now: Moving, fixed: Fixed) -> Moving:
            from torch._higher_order_ops.while_loop import while_loop

            def going(*values: Tensor) -> Tensor:
                return Moving(*values).control.amin() > 0

            def body(*values: Tensor) -> tuple[Tensor, ...]:
                return tuple(step(Moving(*values), fixed))

            return Moving(*while_loop(going, body, tuple(now)))

        # A code object of its own: the compiler counts what it has compiled by code, and gives up after eight.
        own = types.FunctionType(loop.__code__.replace(), loop.__globals__, "loop", None, loop.__closure__)
        # With Python between the kernels a step of Van der Pol takes twice as long.
        options: dict[str, Any] = {"cpp_wrapper": like.device.type == "cpu"}
        self._loop: Callable[[Moving, Fixed], Moving] = torch.compile(
            own, dynamic=False, fullgraph=True, options=options
        )

    def __call__(self, now: Moving, fixed: Fixed) -> Moving | None:
        """Step until all clocks have arrived, one is stuck, or the budget is spent; None if that cannot be compiled."""
        began, self.seconds = time.perf_counter(), 0.0
        if self._refusal is None:
            try:
                with torch.no_grad():
                    after = self._loop(now, fixed)
            except Exception as error:
                if not self._cold:
                    raise
                self._refusal = error.with_traceback(None)
            else:
                self.seconds = time.perf_counter() - began if self._cold else 0.0
                self._cold = False
                return after
        say_why_not(self._refusal, 9)
        return None
