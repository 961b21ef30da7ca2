r"""Adaptive steps for SDEs: a native method in the adaptive loop, driven by a path that can be asked again.

Steps depend on the noise that they have met, and a step that is rejected has met noise already. Whoever forgets it and draws
anew prefers the quiet half of all paths, and loses variance even for :math:`dX = dW`. Here the path is a fixed
function, and a rejected step merely looks at less of it, so that the law is right at every tolerance.

Ends of steps that are estimates anyway are moved to times which the path finds with few draws
(:meth:`~sdeflow.brownian.driver.Driver.shorten`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.brownian import Driver
from sdeflow.calculus import apply_covariance
from sdeflow.processes.sde import SDE
from sdeflow.solvers import terms as native
from sdeflow.solvers.controller import Tolerance
from sdeflow.solvers.job import Counter, Job
from sdeflow.solvers.stepper import Attempt, Step
from sdeflow.solvers.terms import Terms
from sdeflow.solvers.velocity import Velocity

__all__ = ["Driven"]

STEPS_APART = 16  # of the lattice of the path, at least: below that its times are too coarse for a law
GUESS = 0.1  # of the root of the tolerance: how far the first step may move the state


class Driven:
    """A native method with an error estimate, as the adaptive loop wants it.

    Arguments:
        job: The solve.
        method: What steps it.
        velocity: What prepares times for it.
        counter: What counts the evaluations.
    """

    evaluations: int
    dense = False  # between the ends of a step a path is not known
    lookups = 0

    def __init__(self, job: Job, method: native.Stepper, velocity: Velocity, counter: Counter) -> None:
        assert job.brownian is not None and isinstance(job.process, SDE) and method.error_order is not None
        self.process, self.method = job.process, method
        self.path: Driver = job.brownian
        self.smallest = STEPS_APART * self.path.resolution
        self.levy = "H" in job.method.needs
        self.error_order = method.error_order
        self.evaluations = job.method.drift_evaluations or 0
        self.terms = Terms(job.process, counter)
        self.velocity = velocity
        self.looks_outside = min(method.places) < 0 or max(method.places) > 1

    def start(self, low: float, high: float, t: float | Tensor, x: Tensor) -> int:
        self.velocity.within(low, high)
        if (
            self.looks_outside
        ):  # no stage leaves the segment; that costs a few steps some of their order, the solve none
            self.velocity.lowest, self.velocity.highest = (
                max(self.velocity.lowest, low),
                min(self.velocity.highest, high),
            )
        return 0

    def first_step(self, tolerance: Tolerance, t: float | Tensor, x: Tensor, longest: float) -> Tensor:
        """The step in which drift and noise move the state by a tenth of the root of the tolerance.

        A method's error is about the square of that motion, so this is on the safe side of a step of the right size.
        """
        with torch.no_grad():
            time = self.velocity.time(t, x)
            f, g = self.terms.drift(time, x), self.terms.diffusion(time, x)
            size = apply_covariance(self.process.noise, g, torch.ones_like(x)).abs().sqrt()
            root = tolerance.scale(x).sqrt()
            drift, noise = (tolerance.norm((v / root).expand_as(x)).double() for v in (f, size))
            h = torch.minimum(GUESS / drift, (GUESS / noise).square()).clamp(1e-6 * longest, longest)
            return h if isinstance(t, Tensor) else h.amin(0, keepdim=True)

    def end(self, t: float | Tensor, t1: float | Tensor) -> float | Tensor:
        return self.path.shorten(t, t1)  # type: ignore[arg-type]

    def attempt(self, step: Step, x: Tensor) -> Attempt:
        terms = self.terms
        terms.h = step.width
        if isinstance(
            step.width, Tensor
        ):  # a sample that has arrived takes a step of 0, by whose root nothing is divided
            terms.h = torch.where(step.width > 0, step.width, 1.0)
        terms.W, terms.H = self.path.levy(step.t, step.t1) if self.levy else (self.path(step.t, step.t1), None)
        times = self.velocity.times(step.t, step.h, step.t1, tuple(self.method.places))
        x1, error, _, failed = self.method.step(terms, times, x, error=True)
        assert error is not None
        if failed is not None:
            error = error.masked_fill(failed.reshape(-1, *[1] * (x.ndim - 1)), torch.inf)
        return Attempt(x1, error[None])

    def advance(self, accepted: Tensor | None) -> None:
        """Nothing is carried from step to step."""

    def polynomial(self) -> Tensor:
        raise AssertionError("a path is not known between the ends of a step")

    def narrow(self, keep: Tensor, t: float | Tensor, x: Tensor) -> bool:
        return False  # the path is that of the whole batch

    def stiffness(self) -> Tensor | None:
        return None
