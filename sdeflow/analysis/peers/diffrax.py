"""diffrax, in an interpreter of its own: JAX and its coefficients stay out of this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from sdeflow.analysis.problem import Problem
from sdeflow.analysis.run import Run
from sdeflow.brownian import Driver

__all__ = ["Diffrax"]

WORKER = Path(__file__).with_name("diffrax_worker.py")
INTERPRETER = "SDEFLOW_DIFFRAX_PYTHON"
TIMEOUT = 300.0
TRANSLATED = ("gbm", "lotka-volterra", "lorenz", "van-der-pol-2", "brusselator")  # problems that the worker has in JAX


class Diffrax:
    """``diffrax.diffeqsolve``, compiled, with its ``VirtualBrownianTree``; times are of the compiled call.

    The interpreter is the one that the environment variable SDEFLOW_DIFFRAX_PYTHON names, else this one.
    """

    name = package = "diffrax"
    FIXED = ("Euler", "Heun", "ItoMilstein")
    ADAPTIVE = ("Tsit5", "Dopri5", "Dopri8", "Kvaerno5")

    def interpreter(self) -> str | None:
        """Where diffrax is to be imported, or None."""
        return os.environ.get(INTERPRETER) or (sys.executable if find_spec("diffrax") else None)

    def rules(self, method: str) -> tuple[str, ...]:
        return ("dt",) if method in self.FIXED else ("tolerance",) if method in self.ADAPTIVE else ()

    def misfit(self, problem: Problem, method: str) -> str:
        if problem.name not in TRANSLATED:
            return f"its coefficients must be in JAX, and only {', '.join(TRANSLATED)} are"
        if problem.is_stochastic and method not in ("Euler", "ItoMilstein"):
            return f"{method} is not for Itô SDEs"
        return ""

    def prepare(self, problem: Problem, method: str, rule: str, value: float, path: Driver | None, count: bool) -> Run:
        python = self.interpreter()
        assert python is not None
        name = f"peer:diffrax:{method}"
        job = {
            "problem": problem.name,
            "method": method,
            "rule": rule,
            "value": value,
            "x0": problem.x0.tolist(),
            "span": problem.span,
            "truth": None if problem.is_stochastic else problem.truth().tolist(),
        }
        try:
            done = subprocess.run(
                [python, "-I", str(WORKER)], input=json.dumps(job), capture_output=True, text=True, timeout=TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            return Run(name, rule, value, message=f"the worker of diffrax did not answer: {failure}")
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            return Run(name, rule, value, message=f"diffrax failed: {last[0]}")
        return Run(name, rule, value, **json.loads(done.stdout.splitlines()[-1]))
