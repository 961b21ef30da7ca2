"""``sdeflow methods``: the registry as a table."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from sdeflow.processes import ODE, SDE, Process
from sdeflow.solvers import methods as registry

__all__ = ["Calculus", "Noise", "Steps", "methods"]

ENGINES = ("native", "torchsde", "torchdiffeq")
PIPED_WIDTH = 200  # columns where the output is not a terminal: one line per method


class Noise(str, Enum):
    """What drives the process that is to be solved."""

    none = "none"
    additive = "additive"
    diagonal = "diagonal"
    scalar = "scalar"
    commutative = "commutative"
    general = "general"


class Calculus(str, Enum):
    """How it is written."""

    ito = "ito"
    stratonovich = "stratonovich"


class Steps(str, Enum):
    """Who chooses the steps."""

    fixed = "fixed"
    adaptive = "adaptive"


def methods(
    process_noise: Annotated[
        Noise | None, typer.Option(help="Only methods that solve a process with this noise; 'none' is an ODE.")
    ] = None,
    calculus: Annotated[
        Calculus | None, typer.Option(help="Only methods that solve an SDE written in this calculus.")
    ] = None,
    steps: Annotated[
        Steps | None, typer.Option(help="Only methods that take steps of given sizes, or that choose them.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help=f"Only methods of one engine: {', '.join(ENGINES)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list with an object for each method.")] = False,
) -> None:
    """List the methods of solve(): orders, noise, calculus, evaluations per step, needs, gradients.

    Orders are given per class of noise where they differ. With --process-noise or --calculus, the table lists what
    solve() would accept for such a process; methods that need more than a plain process has (a schedule and a score)
    are then left out.
    """
    rows = _rows(process_noise, calculus, steps, engine)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    if not rows:
        console.print("No method fits. Leave out a filter: sdeflow methods lists them all.")
        raise typer.Exit(1)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in rows[0]:
        table.add_column(name, no_wrap=name in ("method", "calculus"))
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    console.print(f"{len(rows)} of {len(registry())} methods. Pass a name to solve(…, method=…).", highlight=False)


def _rows(
    noise: Noise | None, calculus: Calculus | None, steps: Steps | None, engine: str | None
) -> list[dict[str, str]]:
    """The rows of the registry that pass the filters."""
    table = registry()
    names = set(table.keys())
    if noise is not None or calculus is not None:
        wanted = [noise] if noise is not None else [n for n in Noise if n is not Noise.none]
        names = {
            name for n in wanted for c in ([calculus] if calculus else Calculus) for name in table.fitting(_plain(n, c))
        }
    if steps is not None:
        names = {name for name in names if (table[name].adaptive if steps is Steps.adaptive else table[name].fixed)}
    if engine is not None:
        if engine not in ENGINES:
            raise typer.BadParameter(
                f"{engine!r} is not an engine; there are: {', '.join(ENGINES)}.", param_hint="--engine"
            )
        names = {name for name in names if _engine(table[name].engine) == engine}
    return [row for row in table.rows() if row["method"] in names]


def _engine(name: str) -> str:
    """A wrapped library, or native: how sdeflow divides its own methods is no matter here."""
    return name if name in ENGINES else ENGINES[0]


def _plain(noise: Noise, calculus: Calculus) -> Process:
    """A process of which only the kind matters."""
    if noise is Noise.none:
        return ODE(lambda t, x: x)
    shape = {Noise.additive: "diagonal", Noise.commutative: "general"}.get(noise, noise.value)
    return SDE(
        lambda t, x: x,
        lambda t, x: x,
        noise=shape,
        additive=noise is Noise.additive,
        commutative=noise is Noise.commutative,
        calculus=calculus.value,
    )
