"""The command ``sdeflow demo``: arguments in, tables out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from sdeflow.errors import SdeflowError
from sdeflow.extras import require

if TYPE_CHECKING:
    from sdeflow.cli.demo.section import Section

__all__ = ["demo"]

INTERRUPTED = 130
MOST_WIDTH = 118


def demo(
    out: Annotated[
        Path, typer.Option(help="The folder for the pictures, results.json and index.html; made if need be.")
    ] = Path("demo"),
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="Every draw is a function of it: same seed, same figures.")
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer digits and steps: a look at everything in some ten seconds.")
    ] = False,
) -> None:
    """Take real digits to noise and back, compute their likelihoods, and race the methods: under a minute.

    The data are scikit-learn's handwritten digits, of which 297 are held out. The law is a kernel density around the
    others: a real data set whose score is known exactly, so all that is measured is the solvers. Open index.html in
    the folder afterwards.
    """
    console = Console(stderr=False)
    console = console if console.width <= MOST_WIDTH else Console(width=MOST_WIDTH)
    try:
        require("matplotlib", extra="demo", purpose="the demo")
        require("sklearn", extra="demo", purpose="the demo")
        _make_folder(out)
        _run(console, out, seed, quick)
    except SdeflowError as error:
        console.print(f"[red]sdeflow demo:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _make_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SdeflowError(f"{out} is a file; give a folder with --out, or the name of one to be made.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SdeflowError(f"{out} cannot be made: {error.strerror}. Give another folder with --out.") from None


def _run(console: Console, out: Path, seed: int, quick: bool) -> None:
    """The demo, on one thread: its matrices are small, and on shared cores two threads took three times as long."""
    from sdeflow.cli.demo.run import EXPECTED, Record, run
    from sdeflow.cli.demo.setting import FULL, QUICK
    from sdeflow.cli.demo.stages import Stages

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = QUICK if quick else FULL
    stages = Stages(console, {name: value * sizes.pace for name, value in EXPECTED.items()})
    record = Record(out, sizes, seed, stages.seconds)
    try:
        with stages:
            run(sizes, seed, record, stages)
    except KeyboardInterrupt:
        kept = ", ".join(section.title.lower() for section in record.sections)
        console.print(
            f"Interrupted after {stages.elapsed:.0f} s. "
            + (f"In {out} is what was done: {kept}." if kept else "Nothing was done yet.")
        )
        raise typer.Exit(INTERRUPTED) from None
    finally:
        torch.set_num_threads(threads)
    _report(console, record.sections)
    console.print(
        f"\n{stages.elapsed:.0f} s. The pictures are in [bold]{escape(str(out / 'index.html'))}[/bold].",
        highlight=False,
    )


def _report(console: Console, sections: Sequence[Section]) -> None:
    for section in sections:
        for table in section.tables:
            shown = Table(
                title=escape(table.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
            )
            for k, name in enumerate(table.columns):
                shown.add_column(escape(name), justify="left" if k == 0 else "right", overflow="fold", no_wrap=k == 0)
            for row in table.rows:
                shown.add_row(*map(escape, row))
            console.print(shown)
            if table.note:
                console.print(Padding(f"[dim]{escape(table.note)}[/dim]", (0, 0, 1, 1)), highlight=False)
