"""``sdeflow order``: measured orders of convergence."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from sdeflow.analysis import Order
from sdeflow.analysis import order as measure
from sdeflow.cli.comparison import COLUMNS, write_orders
from sdeflow.cli.own_process import fitting_methods, numbers, one_source, own_code, problem_of
from sdeflow.errors import SdeflowError
from sdeflow.solvers import methods as registry

__all__ = ["order"]

INTERRUPTED = 130
STEPS = (8, 16, 32, 64, 128, 256, 512)


class Kind(str, Enum):
    """Of error."""

    strong = "strong"
    weak = "weak"
    ode = "ode"


def order(
    problem: Annotated[str | None, typer.Argument(help="A reference problem, by name.")] = None,
    process: Annotated[str | None, typer.Option(help="Your own process instead, as MODULE:NAME; with --x0.")] = None,
    x0: Annotated[str | None, typer.Option(help="Where your process starts, such as 1.0,0.5.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods with fixed steps, with commas between them; by default those that fit.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Strong for an SDE by default, ode for an ODE.")] = None,
    dts: Annotated[str | None, typer.Option(help="Step sizes that divide the span, such as 0.1,0.05,0.025.")] = None,
    paths: Annotated[int, typer.Option(min=20, help="Paths of an SDE.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the Brownian path.")] = 0,
    half: Annotated[
        bool, typer.Option("--half", help="Errors bend in powers of √h, as stochastic Runge–Kutta methods' may.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A folder for results and pictures; made if need be.")] = None,
) -> None:
    """Measure the order of methods on a problem, with 95 % intervals, and hold them against the registry's claims.

    After Ctrl-C, what was measured is shown and stored, and a sentence says how to measure the rest.
    """
    console = Console(emoji=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if (problem is None) == (process is None):
            raise SdeflowError("give the name of a reference problem, or --process MODULE:NAME.")
        one_source(problem, process, x0)
        sizes = numbers(dts, "--dts", positive=True)
        with own_code(process):
            subject = problem_of(problem, process, numbers(x0, "--x0"), paths, STEPS[-1], sizes)
        table = registry()
        names = [word for word in (methods or "").replace(" ", "").split(",") if word] or [
            name for name in fitting_methods(subject.process, most=len(table)) if table[name].fixed
        ]
        sizes = sizes or [subject.length / n for n in STEPS]
        measured: list[Order] = []
        failures: list[tuple[str, str]] = []
        rest: list[str] = []
        with own_code(process), Progress(*COLUMNS, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=len(names))
            for done, name in enumerate(names):
                progress.update(bar, completed=done, description=f"{subject.name}: {name}")
                try:
                    measured.append(
                        measure(
                            subject,
                            name,
                            sizes,
                            kind.value if kind else None,
                            seed=seed,
                            powers="half" if half else "whole",
                        )
                    )
                except SdeflowError as error:
                    if len(names) == 1:
                        raise
                    failures.append((name, str(error)))
                except KeyboardInterrupt:
                    rest = names[done:]
                    break
        _show(console, measured, failures)
        if out is not None:
            _write(out, subject.name, measured, failures)
        if rest:
            kept = f" and in {out}" if out is not None else ""
            console.print(
                f"Interrupted: {len(names) - len(rest)} of {len(names)} methods are above{escape(kept)}. "
                f"The rest: --methods {','.join(rest)}",
                highlight=False,
                soft_wrap=True,
            )
            raise typer.Exit(INTERRUPTED)
    except (SdeflowError, OSError) as error:
        console.print(f"[red]sdeflow order:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Interrupted.")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        torch.set_num_threads(threads)


def _show(console: Console, measured: list[Order], failures: list[tuple[str, str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("method", "order", "95 % interval", "claim", "step sizes of the fit", "remark"):
        table.add_column(name, no_wrap=name in ("method", "95 % interval"))
    for m in measured:
        first, stop = m.fit.used
        remarks = ["not yet asymptotic: take smaller steps"] if m.fit.bent else []
        if m.claim is not None and m.interval[1] < m.claim - 0.25:
            remarks.append("below its claim")
        table.add_row(
            escape(m.method),
            f"{m.slope:.2f}",
            f"{m.interval[0]:.2f} to {m.interval[1]:.2f}",
            "" if m.claim is None else f"{m.claim:g}",
            f"{stop - first} of {len(m.fit.dts)}",
            "; ".join(remarks),
        )
    for name, why in failures:
        table.add_row(escape(name), "", "", "", "", escape(why))
    console.print(table)


def _write(out: Path, problem: str, measured: list[Order], failures: list[tuple[str, str]]) -> None:
    from sdeflow.extras import MissingExtraError

    out.mkdir(parents=True, exist_ok=True)
    write_orders(out, problem, measured, dict(failures))
    try:
        for m in measured:
            m.plot().savefig(out / f"order-{problem}-{m.method.replace(':', '-')}.png")
    except MissingExtraError:
        pass  # pictures are a bonus
