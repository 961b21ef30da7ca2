"""The program and its commands."""

from __future__ import annotations

from typing import Annotated

import typer

import sdeflow
from sdeflow.cli.bench import bench
from sdeflow.cli.demo.command import demo
from sdeflow.cli.likelihood import likelihood
from sdeflow.cli.methods import methods
from sdeflow.cli.order import order
from sdeflow.cli.sample import sample
from sdeflow.cli.train import train

__all__ = ["app"]

app = typer.Typer(
    name="sdeflow",
    help="Solve, reverse and compare stochastic and ordinary differential equations in PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)
app.command()(demo)
app.command()(methods)
app.command()(bench)
app.command()(order)
app.command()(train)
app.command()(sample)
app.command()(likelihood)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sdeflow {sdeflow.__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Solve, reverse and compare stochastic and ordinary differential equations in PyTorch."""
