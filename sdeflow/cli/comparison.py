"""A comparison from the command line: one problem after the other, one progress bar, every run kept as soon as it is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sdeflow.analysis import Order, Problem, Run, WorkPrecision, environment, order, work_precision
from sdeflow.analysis.peers import is_peer
from sdeflow.analysis.work_precision import plan
from sdeflow.errors import SdeflowError
from sdeflow.extras import MissingExtraError
from sdeflow.solvers.registry import get_method

__all__ = ["Comparison", "Interrupted", "Settings", "write_orders"]

READ = (
    "error: root mean square at the end, ± its standard error; f, g: evaluations of drift and diffusion; "
    "ms: median time of a solve, ± half the interquartile range."
)

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left:"),
    TimeRemainingColumn(),
)


class Interrupted(Exception):
    """Ctrl-C, after so many runs of so many."""

    def __init__(self, made: int, planned: int) -> None:
        super().__init__(f"{made} of {planned} runs")


@dataclass(frozen=True)
class Settings:
    """What all problems of a comparison share.

    Attributes:
        at: The error at which the best is named.
        seed: Of the paths.
        repeats: Solves that are timed for each run.
        memory: Whether peak memory is measured too.
        out: Where the results go.
    """

    at: float
    seed: int
    repeats: int
    memory: bool
    out: Path


@dataclass(frozen=True)
class Comparison:
    """One problem, and what is run on it."""

    problem: Problem
    methods: Sequence[str]
    dts: Sequence[float]
    tolerances: Sequence[float]
    settings: Settings
    made: list[Run] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.settings.out / f"{self.problem.name}.json"

    @property
    def planned(self) -> int:
        return len(plan(self.problem, self.methods, self.dts, self.tolerances))

    def run(self, progress: Progress, bar: Any) -> WorkPrecision:
        """All runs, those of an interrupted comparison with the same settings taken over."""
        problem, settings = self.problem, self.settings
        own = {
            "seed": settings.seed,
            "repeats": settings.repeats,
            "paths": len(problem.x0),
            "memory": settings.memory,
            "fingerprint": _fingerprint(problem),
        }
        done = _interrupted(self.file, own)

        def on_run(run: Run, number: int, planned: int) -> None:
            self.made.append(run)
            keys = {made.key for made in self.made}
            kept = [*self.made, *(run for run in done if run.key not in keys)]
            _keep(WorkPrecision(problem.name, kept, environment(), {**own, "complete": False}), self.file)
            progress.update(bar, advance=1, description=f"{problem.name}: {run.method}")

        result = work_precision(
            problem,
            self.methods,
            dts=self.dts,
            tolerances=self.tolerances,
            seed=settings.seed,
            repeats=settings.repeats,
            memory=settings.memory,
            done=done,
            on_run=on_run,
        )
        result = replace(result, settings={**result.settings, **own, "complete": False})
        _keep(result, self.file)
        return result

    def finish(self, result: WorkPrecision) -> None:
        """Say that there is nothing to take over: the command is done, and when given again measures anew."""
        _keep(replace(result, settings={**result.settings, "complete": True}), self.file)

    def orders(self) -> tuple[list[Order], dict[str, str]]:
        """The orders of the methods with fixed steps, where these steps show one; and why not, where they do not."""
        measured: list[Order] = []
        failures: dict[str, str] = {}
        for name in self.methods:
            if is_peer(name) or not get_method(name).fixed:
                continue
            try:
                measured.append(order(self.problem, name, self.dts, seed=self.settings.seed))
            except SdeflowError as error:
                failures[name] = str(error)
        return measured, failures

    @classmethod
    def all(cls, console: Console, comparisons: Sequence[Comparison]) -> list[WorkPrecision]:
        """Each in turn, on one thread: the runs are small, and two threads make their times depend on what else runs.

        Raises:
            Interrupted: Ctrl-C was pressed; what was made is in the files.
        """
        results = []
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        planned = sum(c.planned for c in comparisons)
        console.print(READ, highlight=False, soft_wrap=True, style="dim")
        try:
            with Progress(*COLUMNS, console=console, disable=not console.is_terminal) as progress:
                bar = progress.add_task("", total=planned)
                for comparison in comparisons:
                    result = comparison.run(progress, bar)
                    results.append(result)
                    comparison.tell(console, result)
        except KeyboardInterrupt:
            raise Interrupted(sum(len(c.made) for c in comparisons), planned) from None
        finally:
            torch.set_num_threads(threads)
        return results

    def tell(self, console: Console, result: WorkPrecision) -> None:
        """Its table, its picture, and the sentence that names the best."""
        of = f", {len(self.problem.x0)} paths" if self.problem.is_stochastic else ""
        console.print(f"\n[bold]{escape(result.problem)}[/bold]{of}", highlight=False)
        console.print(escape(result.table()), highlight=False, soft_wrap=True)
        drawn = replace(result, runs=[run for run in result.runs if run.error])
        try:
            if drawn.runs:
                drawn.plot().savefig(self.settings.out / f"{result.problem}.png")
        except MissingExtraError:
            pass  # a picture is a bonus
        console.print(f"\n{escape(str(result.best(at=self.settings.at)))}", highlight=False, soft_wrap=True)


def write_orders(out: Path, problem: str, measured: Sequence[Order], failures: Mapping[str, str]) -> None:
    """Measured orders as JSON."""
    stored = {
        "problem": problem,
        "environment": environment(),
        "orders": [asdict(m) for m in measured],
        "failures": dict(failures),
    }
    (out / f"order-{problem}.json").write_text(json.dumps(stored, indent=1) + "\n")


def _fingerprint(problem: Problem) -> str:
    """What tells one problem from another of the same name: where it is from, where it starts, how long it runs."""
    told = repr((problem.source, problem.span, problem.x0.tolist()))
    return sha256(told.encode()).hexdigest()[:16]


def _keep(result: WorkPrecision, file: Path) -> None:
    """Write the file so that no moment of an interrupt leaves half of it."""
    partial = file.with_suffix(".partial")
    result.to_json(partial)
    partial.replace(file)


def _interrupted(file: Path, settings: Mapping[str, object]) -> list[Run]:
    """The runs of an interrupted comparison with the same settings."""
    if not file.exists():
        return []
    stored = WorkPrecision.from_json(file)
    if stored.settings.get("complete") or {k: stored.settings.get(k) for k in settings} != settings:
        return []
    return list(stored.runs)
