"""``sdeflow sample``: what a trained model makes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from sdeflow.cli.data_files import write
from sdeflow.cli.trained import Trained, picture, said_in_a_sentence
from sdeflow.errors import SdeflowError
from sdeflow.models import AnnealedLangevin, GenerativeModel
from sdeflow.models.ode import Conditional

__all__ = ["sample"]

# Of annealed Langevin dynamics: steps at a level, and how far they go, in units of its squared noise.
EACH, RATE = 50, 4.0


def sample(
    run: Annotated[Path, typer.Argument(help="The folder of sdeflow train.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many samples.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Where they go: .npy, .pt or .csv.")] = None,
    picture_file: Annotated[Path | None, typer.Option("--picture", help="A picture of them, such as x.png.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    label: Annotated[int | None, typer.Option(min=0, help="Of which class, for a conditional model.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How far towards the label: 1 is the model itself; for one trained with --drop-labels."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="One of sdeflow methods; chosen by the process by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="A number of equal steps.")] = None,
    rtol: Annotated[float | None, typer.Option(help="A tolerance instead, for a flow; 1e-5 by default.")] = None,
    sde: Annotated[bool, typer.Option("--sde", help="By the SDE of the model: of score models the reversal.")] = False,
    epsilon: Annotated[
        float | None, typer.Option(min=0.0, help="Its noise √(2ε), where it is not the usual one.")
    ] = None,
    annealed: Annotated[
        int | None, typer.Option(min=2, help="By annealed Langevin dynamics instead, at so many noise levels.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="With the last weights, not with their average.")] = False,
    own_code: Annotated[
        bool, typer.Option("--own-code", help="Import the modules of your own that the run names; for a run you trust.")
    ] = False,
) -> None:
    """Draw samples from a trained model into a file, a picture, or both."""

    def work(console: Console) -> None:
        if out is None and picture_file is None:
            raise SdeflowError("give --out x.npy (or .pt, .csv), --picture x.png, or both.")
        trained = Trained.of(run, "last" if last else "average", own_code)
        model = trained.model if guidance is None else trained.guided(guidance, label)
        condition = trained.condition(label, n)
        solver: dict[str, Any] = {"method": method, "steps": steps, "rtol": rtol, "atol": rtol}
        solver = {name: value for name, value in solver.items() if value is not None}
        process = model.carrier(**condition)
        if sde or epsilon is not None:
            if (
                epsilon is None
                and inspect.signature(model.sde).parameters["epsilon"].default is inspect.Parameter.empty
            ):
                raise SdeflowError("this model has no usual noise: give --epsilon, such as 0.5.")
            process = model.sde(**condition, **({} if epsilon is None else {"epsilon": epsilon}))
        if annealed is not None:
            if sde or epsilon is not None:
                raise SdeflowError(f"--annealed {annealed} has a noise of its own; leave out --sde and --epsilon.")
            process = annealed_langevin(model, annealed, condition)
            solver = {"steps": EACH * annealed, **solver}
        elif process.noise != "none" and steps is None and rtol is None:
            solver |= trained.noisy
        x = trained.outward(model.sample(n, seed=seed, process=process, solver=solver))
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


def annealed_langevin(model: GenerativeModel, levels: int, condition: dict[str, Any]) -> AnnealedLangevin:
    """Langevin dynamics at times of the model, evenly spaced from the base to the data.

    Raises:
        SdeflowError: The model has no noise levels.
    """
    if model.schedule is None:
        raise SdeflowError(f"--annealed {levels}: this model has no noise levels ({model.no_schedule}).")
    start, end = model.interval_of("score")
    times = torch.linspace(start, end, levels, dtype=torch.float64)
    score = Conditional(model, "score", condition)
    return AnnealedLangevin(score, model.schedule, times if model.data_at == "end" else times.flip(0), rate=RATE)
