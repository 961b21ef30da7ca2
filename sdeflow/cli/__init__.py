"""The command line: ``sdeflow``, which is ``python -m sdeflow``."""

from __future__ import annotations

import sys

from sdeflow.extras import MissingExtraError, require

__all__ = ["main"]


def main() -> None:
    """Run the program on the arguments of the command line, and exit."""
    try:
        require("typer", extra="demo", purpose="the command line")
        require("rich", extra="demo", purpose="the command line")
    except MissingExtraError as error:
        print(f"sdeflow: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    from sdeflow.cli.app import app

    app(prog_name="sdeflow")
