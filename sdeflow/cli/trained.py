"""A trained model for the command line: with the units of its data, and pictures of what it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from sdeflow.cli.data_files import Samples
from sdeflow.errors import ArgumentError, SdeflowError
from sdeflow.models import GenerativeModel
from sdeflow.training import load
from sdeflow.training.checkpoint import read

__all__ = ["Trained", "picture", "said_in_a_sentence", "units_of"]

LOOSE = {"rtol": 1e-3, "atol": 1e-3}  # of a flow that is looked at
STEPS = 200  # of a process with noise that is looked at
ROWS, COLUMNS = 4, 10  # of images


def said_in_a_sentence(command: str, work: Callable[[Console], None]) -> None:
    """Run a command on one thread; errors made on purpose are a line, and the exit code 1."""
    console = Console()
    try:
        work(console)
    except (SdeflowError, OSError) as error:
        console.print(f"[red]sdeflow {command}:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def units_of(x: Tensor) -> dict[str, Any]:
    """The shift and the scale after which data have mean 0 and deviation 1: of each coordinate, of all pixels together."""
    over = (0,) if x.ndim == 2 else tuple(range(x.ndim))
    shift, scale = x.mean(over), x.std(over)
    return {"shift": shift.tolist(), "scale": torch.where(scale > 0, scale, 1.0).tolist()}


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, and how its data were prepared.

    Attributes:
        model: With its weights.
        data: What the recipe says of the data: ``source``, ``seed``, ``held_out``, ``levels``, ``columns``, and ``shift`` and
            ``scale``, by which x = shift + scale·z.
    """

    model: GenerativeModel
    data: Mapping[str, Any]

    @staticmethod
    def of(folder: Path, which: str = "average") -> Trained:
        """What ``sdeflow train`` has left in a folder.

        Raises:
            SdeflowError: Nothing, or something else.
        """
        recipe = read(folder).record["recipe"]
        if not recipe or "data" not in recipe:
            raise ArgumentError(
                f"{folder} was not written by sdeflow train: it does not say what the model and its data are."
            )
        model = load(folder, which=which)
        assert isinstance(model, GenerativeModel)
        return Trained(model.eval(), recipe["data"])

    @property
    def event(self) -> tuple[int, ...]:
        return tuple(self.model.base.event_shape)

    def condition(self, label: int | None, rows: int) -> dict[str, Any]:
        """The label as the model takes it; None is no label in particular."""
        classes = self.data["classes"]
        if label is None:
            return {}
        if not 0 <= label < classes:
            known = f"labels from 0 to {classes - 1}" if classes else "no labels: train it with --conditional"
            raise SdeflowError(f"--label {label}: this model knows {known}.")
        return {"label": torch.full((rows,), label)}

    def inward(self, x: Tensor) -> Tensor:
        """Data as the model sees them."""
        if tuple(x.shape[1:]) != self.event:
            raise SdeflowError(f"the data have shape {tuple(x.shape)}, and the model is of {(len(x), *self.event)}.")
        return (x - torch.tensor(self.data["shift"])) / torch.tensor(self.data["scale"])

    def outward(self, z: Tensor) -> Tensor:
        """What the model makes, in the units of the data."""
        return z * torch.tensor(self.data["scale"]) + torch.tensor(self.data["shift"])

    def log_volume(self) -> float:
        """Σ ln scale over an event: log p(x) is log p(z) less this."""
        scale: Tensor = torch.tensor(self.data["scale"]).log().expand(self.event)
        return float(scale.sum())

    def look(self, n: int, seed: int, **condition: Any) -> Tensor:
        """n samples to look at."""
        solver = LOOSE if self.model.carrier(**condition).noise == "none" else {"steps": STEPS}
        return self.outward(self.model.sample(n, seed=seed, solver=solver, **condition))


def picture(path: Path, sets: Mapping[str, Tensor], columns: list[str]) -> None:
    """Samples beside each other: images in a grid, curves as lines, the rest as points."""
    from sdeflow import plotting

    first = next(iter(sets.values()))
    event = tuple(first.shape[1:])
    if len(event) > 1 and min(event[-2:]) > 1 and event[:-2] in ((), (1,)):
        rows = [row for x in sets.values() for row in x[: ROWS * COLUMNS].reshape(-1, *event[-2:]).split(COLUMNS)]
        labels = [
            title if not k % ROWS else "" for title in sets for k in range(-(-min(len(sets[title]), 40) // COLUMNS))
        ]
        figure = plotting.image_grid(rows, row_labels=labels, limits=(float(first.min()), float(first.max())))
    elif event[-1] > 16:
        places = torch.arange(event[-1])
        lines = {title: (places, x[:40].reshape(-1, event[-1]).mT) for title, x in sets.items()}
        figure = plotting.trajectories(lines, x_label="place")
    else:
        names = (columns[0], columns[1]) if len(columns) > 1 else ("x₁", "x₂") if event[0] > 1 else ("x", "")
        figure = plotting.points({title: x.flatten(1) for title, x in sets.items()}, labels=names)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def shown(samples: Samples) -> Tensor:
    """As many rows as a picture takes."""
    return samples.x[:2000]
