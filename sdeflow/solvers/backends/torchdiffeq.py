"""torchdiffeq behind sdeflow's checks (being written)."""

from __future__ import annotations

import torch
import torchdiffeq

from sdeflow.solvers.job import Counter, Job, Outcome
from sdeflow.solvers.methods import Method


def torchdiffeq_methods() -> tuple[Method, ...]:
    return (Method("torchdiffeq:dopri5", "torchdiffeq", ode_order=5, fixed=False, adaptive=True),)


def run(job: Job) -> Outcome:
    counter = Counter()

    def f(t, x):
        counter.drift += 1
        return job.process.drift(t, x)

    times = torch.tensor(job.times, dtype=torch.float64)
    x = torchdiffeq.odeint(f, job.x0, times, rtol=job.rtol, atol=job.atol, method="dopri5", options={"step_t": times[1:]})
    return Outcome(x, counter, accepted=0)
