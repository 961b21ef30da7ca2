"""What the suites share: timing side by side, one thread, and a record of what was measured on what."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch.utils.benchmark import Timer

import sdeflow as sf

HERE = Path(__file__).parent
RESULTS = HERE / "results"
JAX = "SDEFLOW_DIFFRAX_PYTHON"  # an interpreter that has jax and diffrax, which want an environment of their own


class Times(dict[str, float]):
    """The median milliseconds of each of some calls, and of their ratios.

    Attributes:
        rounds: The milliseconds of each round, by the name of the call.
    """

    def __init__(self, rounds: Mapping[str, list[float]]) -> None:
        super().__init__({name: median(values) for name, values in rounds.items()})
        self.rounds = rounds

    def ratio(self, over: str, under: str) -> float:
        """How many times as long the one takes as the other: the median of the rounds, in each of which the machine is one."""
        return median(a / b for a, b in zip(self.rounds[over], self.rounds[under], strict=True))


def side_by_side(calls: Mapping[str, Callable[[], Any]], repeats: int, threads: int = 1) -> Times:
    """The milliseconds of each call; they take turns, so that a busy minute of the machine falls on all."""
    torch.set_num_threads(1)
    timers = {name: Timer("call()", globals={"call": call}, num_threads=threads) for name, call in calls.items()}
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, timer in timers.items():
            times[name].append(1e3 * timer.timeit(1).mean)
    return Times(times)


def in_jax(script: str, **arguments: Any) -> dict[str, Any]:
    """What a peer's script prints as JSON when run with the interpreter of jax; or why it was not run."""
    python = os.environ.get(JAX)
    if not python:
        return {"not run": f"{JAX} does not name a Python that has the packages of benchmarks/peers.txt"}
    command = [python, str(HERE / "peers" / script), json.dumps(arguments)]
    single = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
    # XLA hands work to threads of its own all the same; on one core small calls take half the time, and are of one thread.
    pinned = ["taskset", "-c", str(max(os.sched_getaffinity(0)))] if shutil.which("taskset") else []
    done = subprocess.run([*pinned, *command], capture_output=True, text=True, env={**os.environ, **single})
    if done.returncode:
        return {"not run": (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def write(name: str, results: Mapping[str, Any], out: Path = RESULTS) -> None:
    out.mkdir(parents=True, exist_ok=True)
    words = ["python", *sys.argv]
    if "--out" in words:  # where a record was written to is nobody else's business
        del words[words.index("--out") : words.index("--out") + 2]
    record = {"environment": sf.analysis.environment(), "command": " ".join(words), **results}
    partial = out / f"{name}.partial"  # no moment of an interrupt leaves half a record
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(out / f"{name}.json")


def show(results: Mapping[str, Any]) -> None:
    """Print the rows of each suite."""
    for suite, rows in results.items():
        print(suite)
        for row in rows if isinstance(rows, list) else [rows]:
            print("  ", {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()})
