"""Work against precision: each method at each step size or tolerance, its error and what it cost."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from sdeflow.analysis.problem import Problem
from sdeflow.brownian import Driver
from sdeflow.errors import ArgumentError, SdeflowError
from sdeflow.solvers import solve
from sdeflow.solvers.registry import get_method

__all__ = ["Run", "WorkPrecision", "work_precision"]


@dataclass(frozen=True)
class Run:
    """One method at one step size or tolerance.

    Attributes:
        method: Its name.
        rule: ``"dt"`` or ``"tolerance"``.
        value: The step or the tolerance.
        error: Root-mean-square distance to the truth at the end, over samples and coordinates; None where it failed.
        spread: The standard error of the squared error's mean, carried over to the error.
        nfe_drift: Evaluations of the drift.
        nfe_diffusion: Evaluations of the diffusion.
        seconds: The median wall time of a solve on a path of its own.
        interquartile: Of those times.
        message: Why it failed, or empty.
    """

    method: str
    rule: str
    value: float
    error: float | None = None
    spread: float | None = None
    nfe_drift: int | None = None
    nfe_diffusion: int | None = None
    seconds: float | None = None
    interquartile: float | None = None
    message: str = ""


@dataclass(frozen=True)
class WorkPrecision:
    """The runs of :func:`work_precision`, and where they were made."""

    problem: str
    runs: list[Run]
    environment: dict[str, Any] = field(default_factory=dict)

    def curve(self, method: str) -> list[Run]:
        """The runs of one method that did not fail."""
        return [run for run in self.runs if run.method == method and not run.message]

    def table(self) -> str:
        """The runs as text; failures are rows, not gaps."""
        header = ("method", "rule", "error", "±", "f", "g", "ms")
        rows = [
            (
                r.method,
                f"{r.rule} {r.value:.3g}",
                f"{r.error:.3g}",
                f"{r.spread:.1g}",
                str(r.nfe_drift),
                str(r.nfe_diffusion),
                _ms(r),
            )
            if r.error is not None
            else (r.method, f"{r.rule} {r.value:.3g}", f"failed: {r.message}", "", "", "", "")
            for r in self.runs
        ]
        widths = [
            max(len(row[i]) for row in (header, *rows) if i != 2 or not row[i].startswith("failed")) for i in range(7)
        ]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (header, *rows)
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """Everything as JSON, written to a file if one is named."""
        text = json.dumps(asdict(self), indent=1)
        if path is not None:
            Path(path).write_text(text + "\n")
        return text

    def plot(self) -> Any:
        """Error against evaluations and against time, a matplotlib figure (extra ``plot``)."""
        from sdeflow.plotting import WorkPoint
        from sdeflow.plotting import work_precision as draw

        curves = {
            name: [
                WorkPoint((r.nfe_drift or 0) + (r.nfe_diffusion or 0), r.seconds or 0.0, r.error or 0.0)
                for r in self.curve(name)
                if r.error
            ]
            for name in dict.fromkeys(run.method for run in self.runs)
        }
        return draw({self.problem: curves})


def work_precision(
    problem: Problem,
    methods: Sequence[str],
    *,
    dts: Sequence[float] | None = None,
    tolerances: Sequence[float] | None = None,
    seed: int = 0,
    repeats: int = 3,
) -> WorkPrecision:
    """Run each method at each step size or tolerance against the truth.

    The errors of an SDE's methods are pathwise: all of them, at all step sizes, are driven by one Brownian path, whose cells
    are the finest step. Times are of the same solves on a path of their own, as a user would run them.

    Arguments:
        problem: What to solve, and what is right.
        methods: Names of :func:`sdeflow.methods`.
        dts: Steps for the methods that take them; each divides the span into a whole number of steps.
        tolerances: rtol = atol, for the methods that adapt their steps.
        seed: Of the path.
        repeats: Solves that are timed for each run; 0 for none.

    Returns:
        A :class:`WorkPrecision`: ``.runs``, ``.table()``, ``.to_json()``, ``.plot()``.

    Raises:
        ArgumentError: There is neither dts nor tolerances, or a method is for neither of those given.
        MethodError: A method is not known.

    Example:
        >>> import math
        >>> decay = sf.analysis.Problem(
        ...     sf.ODE(lambda t, x: -x), torch.ones(1, 1).double(), exact=torch.full((1, 1), math.exp(-1)).double()
        ... )
        >>> result = sf.analysis.work_precision(decay, ["euler", "rk4"], dts=[0.25, 0.125], repeats=0)
        >>> [run.nfe_drift for run in result.runs]
        [4, 8, 16, 32]
    """
    if not dts and not tolerances:
        raise ArgumentError("give dts= for methods with fixed steps, tolerances= for adaptive ones, or both.")
    plan: list[tuple[str, str, float]] = []
    for name in methods:
        entry = get_method(name)
        rules = [("dt", v) for v in dts or () if entry.fixed] + [
            ("tolerance", v) for v in tolerances or () if entry.adaptive
        ]
        if not rules:
            given, other = ("dts", "tolerances") if dts else ("tolerances", "dts")
            raise ArgumentError(f"method={name!r} has no use for {given}=; give {other}= too.")
        plan += [(name, rule, value) for rule, value in rules]
    start, end = problem.span
    finest = min(dts) if dts else abs(end - start) / 1024
    cells = max(1, round(abs(end - start) / finest))
    if problem.reference is not None and isinstance(problem.reference.get("steps"), int):
        cells = max(cells, problem.reference["steps"])
    path = problem.path(cells, seed=seed, levy=problem.needs_levy(list(methods)))
    truth = problem.truth(path)
    runs = [_run(problem, name, rule, value, path, truth, seed, repeats) for name, rule, value in plan]
    return WorkPrecision(problem.name, runs, environment())


def _run(
    problem: Problem, name: str, rule: str, value: float, path: Driver | None, truth: Tensor, seed: int, repeats: int
) -> Run:
    options: dict[str, Any] = {"dt": value} if rule == "dt" else {"rtol": value, "atol": value}

    def once(**noise: Any) -> Any:
        with torch.no_grad():
            return solve(problem.process, problem.x0, problem.span, method=name, **options, **noise)

    try:
        solution = once(**({} if path is None else {"brownian": path}))
    except SdeflowError as failure:
        return Run(name, rule, value, message=str(failure))
    squared = (solution.final - truth).flatten(1).square().mean(1)
    error = squared.mean().sqrt().item()
    spread = squared.std().item() / len(squared) ** 0.5 / (2 * error) if len(squared) > 1 and error else 0.0
    own = {} if path is None else {"seed": seed}
    times = sorted(Timer("once(**own)", globals={"once": once, "own": own}).timeit(1).mean for _ in range(repeats))
    quartiles = torch.tensor(times or [0.0]).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return Run(
        name,
        rule,
        value,
        error,
        spread,
        solution.stats["nfe_drift"],
        solution.stats["nfe_diffusion"],
        quartiles[1] if times else None,
        quartiles[2] - quartiles[0] if times else None,
    )


def environment() -> dict[str, Any]:
    """What a figure depends on besides the code: versions, processor, threads."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    return {
        **{name: installed(name) for name in ("sdeflow", "torch", "torchsde", "torchdiffeq", "numpy")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _ms(run: Run) -> str:
    return "" if run.seconds is None else f"{1e3 * run.seconds:.2f}"
