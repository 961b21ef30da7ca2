"""Several steps in one compiled graph, which reads the noise and writes the state once.

The noise is drawn outside of the graph, some steps at a time, so that a compiled solve is on the same path as one that is not.
Graphs are kept with the process: what is solved again is not compiled again. Where the compiler gives up, the solve goes on
without it, and a warning says why.
"""

from __future__ import annotations

import time
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import SdeflowWarning
from sdeflow.processes.process import Process
from sdeflow.solvers.job import Counter, Job
from sdeflow.solvers.terms import Stepper, Terms

__all__ = ["Fused", "fused", "say_why_not"]

TOGETHER = (
    16  # steps in a graph: at 64 × 2 a step takes 3 us in 16 and 4 in 8, and compiling takes a second for every ten
)
VALUES = 2**18  # of noise in a graph, which stay in the cache

Block = Callable[..., tuple[Tensor, Tensor | None]]


class Fused:
    """A method's steps for one process and one shape of its state, compiled when they are first taken.

    Arguments:
        process: The process on a clock that runs forward.
        stepper: The method.
        axes: The number of axes of a state.
        count: How many steps are taken together.

    Attributes:
        together: How many steps are taken together.
        seconds: How long the last call spent on compiling.
    """

    def __init__(self, process: Process, stepper: Stepper, axes: int, count: int) -> None:
        self.together = count
        self.seconds = 0.0
        self._cold = True
        terms = Terms(process, Counter(), remember=False)

        def block(
            x: Tensor, carried: Tensor | None, h: Tensor, times: Sequence[Tensor], W: Tensor | None, H: Tensor | None
        ) -> tuple[Tensor, Tensor | None]:
            # What is only set is not an input of the graph, and what is left behind would be an output.
            terms.counter = Counter()
            for k in range(count):
                terms.h = h[k].reshape([1] * axes)
                terms.W = None if W is None else W[k]
                terms.H = None if H is None else H[k]
                x, _, carried, _ = stepper.step(terms, [t[k] for t in times], x, carried)
            terms.h, terms.W, terms.H = 0.0, None, None
            return x, carried

        # A code object of its own: the compiler counts what it has compiled by code, and gives up after eight.
        own = types.FunctionType(block.__code__.replace(), block.__globals__, "block", None, block.__closure__)
        self._block: Block = torch.compile(
            own, dynamic=False, fullgraph=True
        )  # in pieces it would be slower than plain

    def __call__(self, *arguments: Any) -> tuple[Tensor, Tensor | None] | None:
        """As many steps as are taken together, from (x, carried, h, times, W, H) to (x, carried); None if that cannot be."""
        self.seconds = 0.0
        if not self._cold:
            return self._block(*arguments)
        began = time.perf_counter()
        try:
            answer = self._block(*arguments)
        except Exception as error:
            say_why_not(error, 7)
            return None
        self.seconds, self._cold = time.perf_counter() - began, False
        return answer


def say_why_not(error: Exception, depth: int) -> None:
    """Warn that steps could not be compiled; the call of solve() is that many calls up."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    warnings.warn(
        f"compile=True: these steps could not be compiled ({type(error).__name__}: {reason[:200]}); the solve goes on "
        f"without. torch.compile wants a C++ compiler, and coefficients without Python side effects.",
        SdeflowWarning,
        stacklevel=depth,
    )


def fused(job: Job, stepper: Stepper, longest: int) -> Fused:
    """The compiled steps of a solve: those of an earlier one, if it was alike.

    Arguments:
        job: The solve.
        stepper: Its method.
        longest: How many steps there are between stops, at most.
    """
    x = job.x0
    count = max(1, min(TOGETHER, VALUES // max(1, x.numel()), longest))
    noise = None if job.brownian is None else (job.brownian.shape, job.brownian.has_levy)
    direction = job.process is job.owner
    key = (job.method.name, direction, x.shape, x.dtype, x.device, noise, count, torch.is_grad_enabled())
    kept: dict[Any, Fused] = job.owner.__dict__.setdefault("_fused", {})
    if key not in kept:
        kept[key] = Fused(job.process, stepper, x.ndim, count)
    return kept[key]
