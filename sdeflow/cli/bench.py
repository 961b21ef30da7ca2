"""``sdeflow bench``: methods against each other and against other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sdeflow.analysis import Problem, WorkPrecision, compare, report
from sdeflow.analysis.peers.registry import PEERS, PREFIX
from sdeflow.cli.comparison import Comparison, Interrupted, Settings, write_orders
from sdeflow.cli.own_process import fitting_methods, numbers, one_source, own_code, problem_of
from sdeflow.errors import SdeflowError, nearest
from sdeflow.extras import require

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
    html: Annotated[
        Path | None,
        typer.Option(help="A folder for index.html: the results as one page to look around in, and the orders."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder for results and pictures; by default that of --html, or bench.")
    ] = None,
    compare_with: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="OLD NEW", help="Run nothing: say what changed from one result to another."),
    ] = None,
) -> None:
    """Compare methods by error, evaluations and time, and name the best at an accuracy.

    Every run is written to OUT/PROBLEM.json as soon as it is made. After Ctrl-C, the same command takes over what was
    done and goes on, unless the process has changed. Failures are rows, not gaps.
    """
    console = Console(emoji=False)
    try:
        if compare_with is not None:
            raise typer.Exit(_compare(console, *compare_with))
        if not at > 0:
            raise SdeflowError(f"--at {at:g} is not a positive error.")
        one_source(problem, process, x0)
        start = numbers(x0, "--x0")
        sizes, asked = numbers(dts, "--dts", positive=True), numbers(tolerances, "--tolerances", positive=True)
        if html is not None:
            require("plotly", extra="report", purpose="--html")
        out = out or html or Path("bench")
        for folder in (out, html):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        steps = STEPS[:4] if quick else STEPS
        chosen: Sequence[str | None] = [None] if process is not None else list(dict.fromkeys(problem or SUITE))
        settings = Settings(at, seed, min(repeats, 3) if quick else repeats, memory, out)
        comparisons = []
        with own_code(process):
            for name in chosen:
                subject = problem_of(name, process, start, paths, steps[-1], sizes)
                comparisons.append(
                    Comparison(
                        subject,
                        _methods(subject, methods, against),
                        sizes or [subject.length / n for n in steps],
                        asked or _tolerances(subject, quick),
                        settings,
                    )
                )
            results = Comparison.all(console, comparisons)
            if html is not None:
                _page(console, comparisons, results, html)
        for comparison, result in zip(comparisons, results, strict=True):
            comparison.finish(result)
    except Interrupted as so_far:
        console.print(
            f"Interrupted: {so_far} are in {escape(str(out))}. The same command takes them over and goes on.",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    except (SdeflowError, OSError) as error:
        console.print(f"[red]sdeflow bench:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _page(console: Console, comparisons: Sequence[Comparison], results: Sequence[WorkPrecision], folder: Path) -> None:
    """The report, with the orders that the same step sizes show."""
    orders = []
    with console.status("measuring orders for the page"):
        for comparison in comparisons:
            measured, failures = comparison.orders()
            orders += measured
            write_orders(comparison.settings.out, comparison.problem.name, measured, failures)
    path = folder / "index.html"
    report(results, orders, at=comparisons[0].settings.at, path=path)
    console.print(f"\nThe page is {escape(str(path))}.", highlight=False, soft_wrap=True)


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
