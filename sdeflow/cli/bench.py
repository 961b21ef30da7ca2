"""``sdeflow bench``: methods against each other and against other libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sdeflow.analysis import Problem, Run, WorkPrecision, compare, environment, work_precision
from sdeflow.analysis.peers import is_peer, peer
from sdeflow.analysis.peers.registry import PEERS, PREFIX
from sdeflow.cli.own_process import fitting_methods, numbers, problem_of
from sdeflow.errors import SdeflowError, nearest
from sdeflow.solvers.registry import get_method

__all__ = ["bench"]

INTERRUPTED = 130
SUITE = ("gbm", "stratonovich-gbm", "additive", "commuting", "mixture-flow-1d", "lotka-volterra")
TOLERANCES = (1e-3, 1e-5, 1e-7, 1e-9)
STEPS = (8, 16, 32, 64, 128, 256)
# What users of a library reach for first; those that do not fit a problem are left out.
USUAL = {
    "torchsde": ("euler", "milstein", "srk", "midpoint"),
    "torchdiffeq": ("rk4", "dopri5"),
    "scipy": ("DOP853", "LSODA"),
    "torchode": ("dopri5", "tsit5"),
    "zuko": ("dopri45",),
    "flow_matching": ("midpoint", "dopri5"),
    "diffrax": ("Euler", "ItoMilstein", "Tsit5"),
}


def bench(
    problem: Annotated[
        list[str] | None, typer.Argument(help="Reference problems, by name; a small suite of them by default.")
    ] = None,
    process: Annotated[
        str | None, typer.Option(help="Your own process instead, as MODULE:NAME; with --x0, or a Problem.")
    ] = None,
    x0: Annotated[str | None, typer.Option(help="Where your process starts, such as 1.0,0.5.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods of solve() with commas between them; by default five that fit.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Other libraries, called as their users call them: torchsde,torchdiffeq,…")
    ] = None,
    tolerances: Annotated[str | None, typer.Option(help="For methods that choose their steps: 1e-3,1e-5.")] = None,
    dts: Annotated[str | None, typer.Option(help="For methods with fixed steps: 0.1,0.01.")] = None,
    at: Annotated[float, typer.Option(help="The error at which the best method is named.")] = 1e-2,
    paths: Annotated[int, typer.Option(min=2, help="Paths of an SDE.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the Brownian path.")] = 0,
    repeats: Annotated[int, typer.Option(min=0, help="Solves that are timed for each figure; 0 for none.")] = 5,
    memory: Annotated[bool, typer.Option("--memory", help="Measure peak memory too.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer step sizes, tolerances and repeats.")] = False,
    out: Annotated[Path, typer.Option(help="The folder for results and pictures; made if need be.")] = Path("bench"),
    compare_with: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="OLD NEW", help="Run nothing: say what changed from one result to another."),
    ] = None,
) -> None:
    """Compare methods by error, evaluations and time, and name the best at an accuracy.

    Every run is written to OUT/PROBLEM.json as soon as it is made. After Ctrl-C, the same command takes over what was
    done and goes on. Failures are rows, not gaps.
    """
    console = Console()
    try:
        if compare_with is not None:
            raise typer.Exit(_compare(console, *compare_with))
        out.mkdir(parents=True, exist_ok=True)
        steps = STEPS[:4] if quick else STEPS
        chosen: Sequence[str | None] = [None] if process is not None else problem or SUITE
        for name in chosen:
            subject = problem_of(name, process, numbers(x0, "--x0"), paths, steps[-1])
            _one(
                console,
                subject,
                _methods(subject, methods, against),
                numbers(dts, "--dts") or [subject.length / n for n in steps],
                numbers(tolerances, "--tolerances") or _tolerances(subject, quick),
                at,
                seed,
                min(repeats, 3) if quick else repeats,
                memory,
                out,
            )
    except SdeflowError as error:
        console.print(f"[red]sdeflow bench:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except OSError as error:
        console.print(f"[red]sdeflow bench:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _methods(problem: Problem, methods: str | None, against: str | None) -> list[str]:
    own = [word for word in (methods or "").replace(" ", "").split(",") if word] or fitting_methods(problem.process)
    for library in (word for word in (against or "").replace(" ", "").split(",") if word):
        if library not in PEERS:
            raise SdeflowError(f"--against {library} is not known. {nearest(library, PEERS)}")
        fits = [name for name in USUAL[library] if not PEERS[library].misfit(problem, name)]
        own += [f"{PREFIX}{library}:{name}" for name in fits or USUAL[library][:1]]
    return own


def _tolerances(problem: Problem, quick: bool) -> list[float]:
    """None for an SDE unless asked for: its methods take fixed steps too, and adaptive ones cost many times as much."""
    if problem.is_stochastic:
        return []
    return list(TOLERANCES[:2] if quick else TOLERANCES)


def _rules(name: str) -> tuple[str, ...]:
    if is_peer(name):
        library, method = peer(name)
        return library.rules(method)
    entry = get_method(name)
    return (*(["dt"] if entry.fixed else []), *(["tolerance"] if entry.adaptive else []))


def _one(
    console: Console,
    problem: Problem,
    methods: list[str],
    dts: list[float],
    tolerances: list[float],
    at: float,
    seed: int,
    repeats: int,
    memory: bool,
    out: Path,
) -> None:
    """One problem, on one thread: the runs are small, and two threads make their times depend on what else runs."""
    file = out / f"{problem.name}.json"
    settings = {"seed": seed, "repeats": repeats, "paths": len(problem.x0), "memory": memory}
    done = _interrupted(file, settings)
    made: list[Run] = []

    def keep(complete: bool) -> WorkPrecision:
        runs = made if complete else [*made, *(r for r in done if r.key not in {m.key for m in made})]
        result = WorkPrecision(problem.name, runs, environment(), {**settings, "complete": complete})
        partial = file.with_suffix(".partial")
        result.to_json(partial)
        partial.replace(file)  # so that no moment of an interrupt leaves half a file
        return result

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    total = sum(len(dts) * ("dt" in _rules(name)) + len(tolerances) * ("tolerance" in _rules(name)) for name in methods)
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task(problem.name, total=total)

            def on_run(run: Run, number: int, planned: int) -> None:
                made.append(run)
                keep(False)
                progress.update(bar, completed=number, total=planned, description=f"{problem.name}: {run.method}")

            work_precision(
                problem,
                methods,
                dts=dts,
                tolerances=tolerances,
                seed=seed,
                repeats=repeats,
                memory=memory,
                done=done,
                on_run=on_run,
            )
        result = keep(True)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted: {len(made)} of {total} runs are in {file}. The same command takes them over and goes on.",
            highlight=False,
        )
        raise typer.Exit(INTERRUPTED) from None
    finally:
        torch.set_num_threads(threads)
    of = f", {len(problem.x0)} paths" if problem.is_stochastic else ""
    console.print(f"\n[bold]{escape(problem.name)}[/bold]{of}", highlight=False)
    console.print(escape(result.table()), highlight=False, soft_wrap=True)
    _picture(result, out)
    console.print(f"\n{escape(str(result.best(at=at)))}", highlight=False, soft_wrap=True)


def _interrupted(file: Path, settings: Mapping[str, object]) -> list[Run]:
    """The runs of an interrupted comparison with the same settings."""
    if not file.exists():
        return []
    stored = WorkPrecision.from_json(file)
    if stored.settings.get("complete") or {k: stored.settings.get(k) for k in settings} != settings:
        return []
    return list(stored.runs)


def _picture(result: WorkPrecision, out: Path) -> None:
    from sdeflow.extras import MissingExtraError

    timed = replace(result, runs=[run for run in result.runs if run.error and run.seconds])
    try:
        if timed.runs:
            timed.plot().savefig(out / f"{result.problem}.png")
    except MissingExtraError:
        pass  # a picture is a bonus


def _compare(console: Console, old: Path, new: Path) -> int:
    """Print what changed; 1 where something got slower or fails now."""
    before, after = WorkPrecision.from_json(old), WorkPrecision.from_json(new)
    changes = compare(before, after)
    differ = [
        f"{key}: {before.environment.get(key)} → {value}"
        for key, value in after.environment.items()
        if before.environment.get(key) != value
    ]
    if differ:
        console.print(f"The environments differ ({escape('; '.join(differ))}).", highlight=False, soft_wrap=True)
    for change in changes:
        console.print(escape(str(change)), highlight=False, soft_wrap=True)
    if not changes:
        console.print("Nothing changed beyond noise.")
    return int(any(change.what in ("slower", "fails", "less accurate") for change in changes))
