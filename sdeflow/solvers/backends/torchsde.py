"""torchsde behind sdeflow's checks (being written)."""

from __future__ import annotations

from sdeflow.solvers.job import Job, Outcome
from sdeflow.solvers.methods import Method


def torchsde_methods() -> tuple[Method, ...]:
    return ()


def run(job: Job) -> Outcome:
    raise NotImplementedError
