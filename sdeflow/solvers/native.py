r"""Native methods: a step is one function, the loop exists once, and an ODE is an SDE without noise.

With the increment k(t, x) = f(t, x) h + σ(t, x) ΔW, every method here is written as its paper writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdeflow.brownian import Driver
from sdeflow.calculus import apply_diffusion
from sdeflow.processes.boundary import rounding_unit, state_time
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.solvers.job import Counter, Job, Outcome
from sdeflow.solvers.methods import Method

__all__ = ["NATIVE_METHODS", "run"]


class Terms:
    """The coefficients of a process over one step, counted."""

    def __init__(self, process: Process, counter: Counter) -> None:
        self.process = process
        self.counter = counter
        self.h = 0.0
        self.dW: Tensor | None = None

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """f h."""
        self.counter.drift += 1
        return self.process.drift(t, x) * self.h

    def noise(self, t: Tensor, x: Tensor) -> Tensor:
        """σ ΔW."""
        assert isinstance(self.process, SDE) and self.dW is not None
        self.counter.diffusion += 1
        return apply_diffusion(self.process.noise, self.process.diffusion(t, x), self.dW)

    def increment(self, t: Tensor, x: Tensor) -> Tensor:
        """f h + σ ΔW."""
        change = self.drift(t, x)
        return change if self.dW is None else change + self.noise(t, x)


Step = Callable[[Terms, tuple[Tensor, ...], Tensor], Tensor]


def _euler(terms: Terms, t: tuple[Tensor, ...], x: Tensor) -> Tensor:
    return x + terms.increment(t[0], x)


def _euler_heun(terms: Terms, t: tuple[Tensor, ...], x: Tensor) -> Tensor:
    noise = terms.noise(t[0], x)
    return x + terms.drift(t[0], x) + 0.5 * (noise + terms.noise(t[1], x + noise))


def _heun(terms: Terms, t: tuple[Tensor, ...], x: Tensor) -> Tensor:
    k1 = terms.increment(t[0], x)
    return x + 0.5 * (k1 + terms.increment(t[1], x + k1))


def _rk4(terms: Terms, t: tuple[Tensor, ...], x: Tensor) -> Tensor:
    k1 = terms.increment(t[0], x)
    k2 = terms.increment(t[1], x + 0.5 * k1)
    k3 = terms.increment(t[1], x + 0.5 * k2)
    k4 = terms.increment(t[2], x + k3)
    return x + (k1 + 2 * (k2 + k3) + k4) / 6


STEPS: dict[str, tuple[Step, tuple[float, ...]]] = {  # the step, and the places in [0, 1] at which it wants the time
    "euler": (_euler, (0.0,)),
    "euler-maruyama": (_euler, (0.0,)),
    "euler-heun": (_euler_heun, (0.0, 1.0)),
    "heun": (_heun, (0.0, 1.0)),
    "rk4": (_rk4, (0.0, 0.5, 1.0)),
}

_HALF = {"diagonal": 0.5, "scalar": 0.5, "general": 0.5}
_ONE = {"additive": 1.0, "diagonal": 1.0, "scalar": 1.0}
_KLOEDEN = "Numerical Solution of Stochastic Differential Equations (Kloeden & Platen, 1992), https://doi.org/10.1007/978-3-662-12616-5"

NATIVE_METHODS = (
    Method(
        "euler-maruyama",
        "native",
        strong_order={"additive": 1.0, **_HALF},
        weak_order={"additive": 1.0, "diagonal": 1.0, "scalar": 1.0, "general": 1.0},
        calculus="ito",
        drift_evaluations=1,
        diffusion_evaluations=1,
        needs=("W",),
        paper="Continuous Markov processes and stochastic equations (Maruyama, 1955), https://doi.org/10.1007/BF02846028",
    ),
    Method(
        "euler-heun",
        "native",
        strong_order={**_ONE, "general": 0.5},
        weak_order={"additive": 1.0, "diagonal": 1.0, "scalar": 1.0, "general": 1.0},
        calculus="stratonovich",
        drift_evaluations=1,
        diffusion_evaluations=2,
        needs=("W",),
        paper=_KLOEDEN,
    ),
    Method(
        "heun",
        "native",
        ode_order=2,
        strong_order={**_ONE, "general": 0.5},
        weak_order={"additive": 1.0, "diagonal": 1.0, "scalar": 1.0, "general": 1.0},
        calculus="stratonovich",
        drift_evaluations=2,
        diffusion_evaluations=2,
        needs=("W",),
        paper=_KLOEDEN,
    ),
    Method(
        "euler",
        "native",
        ode_order=1,
        drift_evaluations=1,
        paper="Institutionum calculi integralis, vol. 1 (Euler, 1768)",
    ),
    Method(
        "rk4",
        "native",
        ode_order=4,
        drift_evaluations=4,
        paper="Beitrag zur näherungsweisen Integration totaler Differentialgleichungen (Kutta, 1901)",
    ),
)

CHUNK = 1024  # steps whose times are prepared together


def run(job: Job) -> Outcome:
    """Step through the grid: the one loop."""
    assert job.grid is not None
    step, places = STEPS[job.method.name]
    nodes, saves = job.grid.nodes.tolist(), set(job.grid.saves)
    counter = Counter()
    terms = Terms(job.process, counter)
    draw = None if job.brownian is None else _draws(job.brownian, nodes)
    x, saved = job.x0, [job.x0]
    for first in range(0, job.grid.steps, CHUNK):
        left = torch.tensor(nodes[first : first + CHUNK + 1], dtype=torch.float64, device=x.device)
        left, width = left[:-1], left.diff()
        # A place at 1 is the next node itself, so that no time is rounded past the end.
        stage_times = [left + c * width if c < 1 else left + width for c in places]
        ready = [_prepare(job.process, t, x) for t in stage_times]
        if job.breakpoints:
            ready = _between(job, left, width, ready)
        prepared = zip(*(t.unbind() for t in ready), strict=True)
        for k, times in enumerate(prepared, start=first):
            terms.h = nodes[k + 1] - nodes[k]
            terms.dW = None if draw is None else draw(k)
            x = step(terms, times, x)
            if k + 1 in saves:
                saved.append(x)
                job.progress(nodes[k + 1])
            elif k % 16 == 0:
                job.progress(nodes[k + 1])
    return Outcome(torch.stack(saved), counter, accepted=job.grid.steps)


def _prepare(process: Process, t: Tensor, x: Tensor) -> Tensor:
    """Times ``(N,)`` as the process wants them, so that none is converted inside the loop."""
    if process.precise_time:
        return t
    like = x.new_empty(len(t), 1)
    return state_time(t, like, process.interval).reshape(-1)


def _between(job: Job, left: Tensor, width: Tensor, stages: list[Tensor]) -> list[Tensor]:
    """Stage times, moved by a rounding unit into their own step where it begins or ends at a time of a jump.

    The stage at the end of a step would otherwise see the coefficient after the jump, which costs every order but one.
    """
    at = torch.tensor(job.breakpoints, dtype=torch.float64, device=left.device)
    unit = rounding_unit(job.x0, *job.process.interval, *job.times)

    def jumping(t: Tensor) -> Tensor:
        return ((t[:, None] - at).abs() <= 1e-9 * width[:, None]).any(1)

    low = left + unit * jumping(left)
    high = left + width - unit * jumping(left + width)
    moved = [torch.minimum(torch.maximum(t, low.to(t.dtype)), high.to(t.dtype)) for t in stages]
    return moved


def _draws(brownian: Driver, nodes: Sequence[float]) -> Callable[[int], Tensor]:
    """The increment of step k: the path's own cell where the grid is the path's, else a query."""
    rounding = 1e-12 * (nodes[-1] - nodes[0])
    if brownian.cells == len(nodes) - 1 and all(abs(brownian.edge(k) - t) <= rounding for k, t in enumerate(nodes)):
        return brownian.cell
    return lambda k: brownian(nodes[k], nodes[k + 1])
