"""Going ahead with a compiled loop, in place of the adaptive loop's steps.

Loops are kept with the process: what is solved again is not compiled again. Where the compiler gives up, or gradients are
wanted, the solve goes on without, and a warning says why.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import SdeflowWarning
from sdeflow.solvers.compiled_loop import CompiledLoop, Fixed, Moving
from sdeflow.solvers.controller import Tolerance
from sdeflow.solvers.explicit import ExplicitRungeKutta
from sdeflow.solvers.job import Job
from sdeflow.solvers.own_clocks import OwnClocks
from sdeflow.solvers.shared_clock import SharedClock

__all__ = ["Ahead"]


class Ahead:
    """The compiled loop of a solve: it takes the samples to the end of a segment, or to where one of them fails.

    Arguments:
        job: The solve.
        stepper: What takes the first step, and all of them where none can be compiled.
        clocks: The clocks.
        tolerance: What an error is measured by.

    Attributes:
        possible: Whether steps can be compiled, as far as is known.
        steps: How many the loop has tried.
        seconds: How long the compiler took.
    """

    def __init__(
        self, job: Job, stepper: ExplicitRungeKutta, clocks: SharedClock | OwnClocks, tolerance: Tolerance
    ) -> None:
        self.job, self.stepper, self.tolerance = job, stepper, tolerance
        self.possible, self.steps, self.seconds = True, 0, 0.0
        x, inner = job.x0, list(job.times[1:-1])
        if inner:  # up to a power of two, so that a few more or less are not compiled anew
            inner += [math.inf] * (2 ** (len(inner) - 1).bit_length() - len(inner))
        self.inner = torch.tensor(inner, dtype=torch.float64, device=x.device)
        self.saved = x.new_full((len(inner), *x.shape), math.nan)
        self.lookups = stepper.lookups if inner else 0
        key = (job.method.name, job.stepping, job.process is job.owner, x.shape, x.dtype, x.device, len(inner))
        kept: dict[Any, Any] = job.owner.__dict__.setdefault("_fused", {})
        if key not in kept:
            kept[key] = CompiledLoop(
                stepper.tableau, stepper.velocity, clocks.controller, tolerance, clocks.shared, bool(inner), x
            )
        self.loop: CompiledLoop = kept[key]

    def run(self, clocks: SharedClock | OwnClocks, x: Tensor) -> Tensor:
        """The states after as many steps as can be taken."""
        stepper = self.stepper
        first = stepper.stages.first.clone()
        if first.requires_grad:
            warnings.warn(
                "compile=True: gradients are wanted, and compiled adaptive steps have none; the solve goes on without. "
                "Solve under torch.no_grad(), or take steps of fixed size (steps=, dt=).",
                SdeflowWarning,
                stacklevel=8,  # of the call of solve()
            )
            self.possible = False
        while self.possible and clocks.going:
            counts, end = clocks.tensors()
            budget = self.job.max_steps - int(counts[-1].max())
            if budget <= 0:
                break
            velocity, tolerance = stepper.velocity, self.tolerance
            assert tolerance.numbers is not None
            numbers = (velocity.lowest, velocity.highest, clocks.smallest, *tolerance.numbers)
            control = end.new_tensor([budget, 1])
            after = self.loop(
                Moving(counts, x, first, self.saved, control), Fixed(end, self.inner, end.new_tensor(numbers))
            )
            if after is None:
                self.possible = False
                break
            x, first, self.saved = after.x, after.velocity, after.saved
            left = int(after.control[0])
            self.steps += budget - left
            self.seconds += self.loop.seconds
            velocity.counter.drift += (budget - left) * (stepper.evaluations + self.lookups)
            clocks.overtake(after.clocks, self.lookups)
            if clocks.going and left > 0:
                clocks.give_up_stuck()
        if self.steps:
            stepper.begin_with(first)
        return x

    def saves(self, clocks: SharedClock | OwnClocks, x: Tensor) -> list[tuple[int | Tensor, Tensor | None, Tensor]]:
        """The states at the save times that have been reached, as the adaptive loop keeps them."""
        times, last = self.job.times, len(self.job.times) - 1
        values = [*self.saved[: last - 1], x]
        if isinstance(clocks, SharedClock):
            return [(i, None, values[i - 1]) for i in range(1, last + 1) if times[i] <= clocks.t]
        found: list[tuple[int | Tensor, Tensor | None, Tensor]] = []
        for i in range(1, last + 1):
            rows = (clocks.now >= times[i]).nonzero().flatten()
            found.append((torch.full_like(rows, i), rows, values[i - 1][rows]))
        return found
