"""``sdeflow sample``: what a trained model makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sdeflow.cli.data_files import write
from sdeflow.cli.trained import STEPS, Trained, picture, said_in_a_sentence
from sdeflow.errors import SdeflowError

__all__ = ["sample"]


def sample(
    run: Annotated[Path, typer.Argument(help="The folder of sdeflow train.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many samples.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Where they go: .npy, .pt or .csv.")] = None,
    picture_file: Annotated[Path | None, typer.Option("--picture", help="A picture of them, such as x.png.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    label: Annotated[int | None, typer.Option(min=0, help="Of which class, for a conditional model.")] = None,
    method: Annotated[
        str | None, typer.Option(help="One of sdeflow methods; chosen by the process by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="A number of equal steps.")] = None,
    rtol: Annotated[float | None, typer.Option(help="A tolerance instead, for a flow; 1e-5 by default.")] = None,
    sde: Annotated[bool, typer.Option("--sde", help="By the SDE of the model: of score models the reversal.")] = False,
    epsilon: Annotated[
        float | None, typer.Option(min=0.0, help="Its noise √(2ε), where it is not the usual one.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="With the last weights, not with their average.")] = False,
) -> None:
    """Draw samples from a trained model into a file, a picture, or both."""

    def work(console: Console) -> None:
        if out is None and picture_file is None:
            raise SdeflowError("give --out x.npy (or .pt, .csv), --picture x.png, or both.")
        trained = Trained.of(run, "last" if last else "average")
        condition = trained.condition(label, n)
        solver: dict[str, Any] = {"method": method, "steps": steps, "rtol": rtol, "atol": rtol}
        solver = {name: value for name, value in solver.items() if value is not None}
        process = None
        if sde or epsilon is not None:
            try:
                process = trained.model.sde(**condition, **({} if epsilon is None else {"epsilon": epsilon}))
            except TypeError:
                raise SdeflowError("this model has no usual noise: give --epsilon, such as 0.5.") from None
            condition = {}
        chosen = trained.model.carrier(**condition) if process is None else process
        if chosen.noise != "none" and steps is None and rtol is None:
            solver["steps"] = STEPS
        x = trained.outward(trained.model.sample(n, seed=seed, process=process, solver=solver, **condition))
        made = []
        if out is not None:
            write(out, x, trained.data["columns"])
            made.append(str(out))
        if picture_file is not None:
            picture(picture_file, {f"{n} samples": x}, trained.data["columns"])
            made.append(str(picture_file))
        shape = " × ".join(map(str, x.shape))
        console.print(f"{shape} numbers: {' and '.join(made)}.", highlight=False, soft_wrap=True)

    said_in_a_sentence("sample", work)
