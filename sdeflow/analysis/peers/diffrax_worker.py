"""Run by the interpreter that has diffrax: a job as JSON in, the figures of its run as JSON out, nothing of sdeflow."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

REPEATS = 5

Velocity = Callable[[Any, Any, Any], Any]


def velocities(jnp: Any) -> dict[str, Velocity]:
    """The velocities of the problems that are ODEs; jax is imported by main alone, so that this file can be without it."""
    return {
        "lotka-volterra": lambda t, x, args: jnp.array([1.5 * x[0] - x[0] * x[1], x[0] * x[1] - 3 * x[1]]),
        "lorenz": lambda t, x, args: jnp.array(
            [10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]]
        ),
        "van-der-pol-2": lambda t, x, args: jnp.array([x[1], 2.0 * (1 - x[0] ** 2) * x[1] - x[0]]),
        "brusselator": lambda t, x, args: jnp.array([1 + x[0] ** 2 * x[1] - 4 * x[0], 3 * x[0] - x[0] ** 2 * x[1]]),
    }


MU, SIGMA = 0.5, 0.6  # of "gbm"


def solver(job: dict[str, Any], jax: Any, diffrax: Any) -> Any:
    """The end of one row and the number of steps, from its start and its key."""
    jnp, (start, end) = jax.numpy, job["span"]
    method = getattr(diffrax, job["method"])()
    fixed = job["rule"] == "dt"
    controller = diffrax.ConstantStepSize() if fixed else diffrax.PIDController(rtol=job["value"], atol=job["value"])
    first = job["value"] if fixed else None

    def one(x: Any, key: Any) -> Any:
        if job["problem"] == "gbm":
            brownian = diffrax.VirtualBrownianTree(
                start, end, tol=(job["value"] if fixed else 1e-3) / 4, shape=(), key=key
            )
            terms = diffrax.MultiTerm(
                diffrax.ODETerm(lambda t, y, args: MU * y),
                diffrax.ControlTerm(lambda t, y, args: SIGMA * y, brownian),
            )
            exact = x * jnp.exp((MU - SIGMA**2 / 2) * (end - start) + SIGMA * brownian.evaluate(start, end))
        else:
            terms, exact = diffrax.ODETerm(velocities(jnp)[job["problem"]]), jnp.zeros_like(x)
        solution = diffrax.diffeqsolve(
            terms, method, start, end, first, x, stepsize_controller=controller, max_steps=1_000_000
        )
        return solution.ys[-1], exact, solution.stats["num_steps"]

    return jax.jit(jax.vmap(one))


def main() -> None:
    jax, diffrax = import_module("jax"), import_module("diffrax")
    jnp = import_module("jax.numpy")
    jax.config.update("jax_enable_x64", True)
    job = json.load(sys.stdin)
    x0 = jnp.array(job["x0"])
    keys = jax.random.split(jax.random.PRNGKey(0), len(x0))
    solve = solver(job, jax, diffrax)
    end, exact, steps = jax.block_until_ready(solve(x0, keys))
    truth = exact if job["truth"] is None else jnp.array(job["truth"])
    squared = ((end - truth) ** 2).reshape(len(x0), -1).mean(1)
    error = float(jnp.sqrt(squared.mean()))
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(solve(x0, keys))
        times.append(time.perf_counter() - began)
    quartiles = statistics.quantiles(times, n=4)
    spread = float(squared.std()) / len(x0) ** 0.5 / (2 * error) if error and len(x0) > 1 else 0.0
    figures = {"error": error, "spread": spread, "seconds": quartiles[1], "interquartile": quartiles[2] - quartiles[0]}
    stages = {"Euler": 1, "ItoMilstein": 1, "Heun": 2, "Tsit5": 6, "Dopri5": 6, "Dopri8": 13}.get(job["method"])
    if stages is not None:
        count = stages * int(steps.max())
        figures |= {"nfe_drift": count, "nfe_diffusion": count if job["problem"] == "gbm" else 0}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
