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
from sdeflow.cli.own_process import own_code
from sdeflow.errors import ArgumentError, SdeflowError
from sdeflow.models import GenerativeModel, classifier_free
from sdeflow.training import load
from sdeflow.training.checkpoint import read
from sdeflow.training.recipes import KINDS

__all__ = ["Trained", "in_its_words", "picture", "said_in_a_sentence", "units_of"]

LOOSE = {"rtol": 1e-3, "atol": 1e-3}  # of a flow that is looked at
ROWS, COLUMNS = 4, 10  # of images


WORDS = {  # of the library, and of the command line
    "the same call with resume=True": "the same command with --resume",
    "resume=True": "--resume",
    "there is sf.models.LearnedReversal": "there is --kind learned-reversal",
    "or use SchrodingerBridge, which": "or use --kind schrodinger-bridge, which",
    "DenoisingScoreMatching has all three": "--kind score has all three",
    "What was computed is in the error's .solution; on_failure='return' returns it.": "Say --steps with a larger number.",
}


def in_its_words(said: BaseException) -> str:
    """A sentence of the library, and the notes on it, in the words of the command line."""
    words = " ".join([str(said), *getattr(said, "__notes__", [])])
    for call, command in WORDS.items():
        words = words.replace(call, command)
    return words


def said_in_a_sentence(command: str, work: Callable[[Console], None]) -> None:
    """Run a command on one thread; errors made on purpose are a line, and the exit code 1."""
    console = Console(emoji=False)  # my_module:x: is no picture of a cross
    try:
        with own_code("own code", option="your"):
            work(console)
    except (SdeflowError, OSError) as error:
        console.print(f"[red]sdeflow {command}:[/red] {escape(in_its_words(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def units_of(x: Tensor) -> dict[str, Any]:
    """The shift and the scale after which data have mean 0 and deviation 1: of each coordinate, of all pixels together."""
    over = (0,) if x.ndim == 2 else tuple(range(x.ndim))
    shift, scale = x.mean(over), x.std(over)
    return {"shift": shift.tolist(), "scale": torch.where(scale > 0, scale, 1.0).tolist()}


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, and how it and its data were made.

    Attributes:
        model: With its weights.
        recipe: As ``sdeflow train`` has written it. Its ``"data"`` has ``source``, ``seed``, ``held_out``, ``levels``,
            ``columns``, ``classes``, ``drop_labels``, and ``shift`` and ``scale``, by which x = shift + scale·z.
    """

    model: GenerativeModel
    recipe: Mapping[str, Any]

    @staticmethod
    def of(folder: Path, which: str = "average", own_code: bool = False) -> Trained:
        """What ``sdeflow train`` has left in a folder.

        Raises:
            SdeflowError: Nothing, or something else.
        """
        recipe = read(folder).record["recipe"]
        if not recipe or "data" not in recipe:
            raise ArgumentError(
                f"{folder} was not written by sdeflow train: it does not say what the model and its data are."
            )
        model = load(folder, which=which, own_code=own_code)
        assert isinstance(model, GenerativeModel)
        return Trained(model.eval(), recipe)

    @property
    def data(self) -> Mapping[str, Any]:
        """What the recipe says of the data."""
        found: Mapping[str, Any] = self.recipe["data"]
        return found

    @property
    def event(self) -> tuple[int, ...]:
        return tuple(self.model.base.event_shape)

    @property
    def knows_no_label(self) -> bool:
        """Whether it has seen rows without their label, or knows no labels at all."""
        return not self.data["classes"] or self.data.get("drop_labels", 0.0) > 0

    def each_label(self, rows: int) -> dict[str, Any]:
        """The labels in turn."""
        classes = self.data["classes"]
        return {"label": torch.arange(rows) % classes} if classes else {}

    def condition(self, label: int | None, rows: int) -> dict[str, Any]:
        """The label as the model takes it. None is no label in particular: all in turn where it has not learned without."""
        classes = self.data["classes"]
        if label is None:
            return {} if self.knows_no_label else self.each_label(rows)
        if not 0 <= label < classes:
            known = f"labels from 0 to {classes - 1}" if classes else "no labels: train it with --conditional"
            raise SdeflowError(f"--label {label}: this model knows {known}.")
        return {"label": torch.full((rows,), label)}

    def guided(self, scale: float, label: int | None) -> GenerativeModel:
        """The model with classifier-free guidance towards a label.

        Raises:
            SdeflowError: It has not learned without labels, or there is no label.
        """
        if not self.data["classes"] or not self.knows_no_label:
            raise SdeflowError(
                f"--guidance {scale:g}: this model was not trained for guidance, which takes it with labels and without; "
                f"train it with --conditional --drop-labels 0.1."
            )
        if label is None:
            raise SdeflowError(f"--guidance {scale:g}: say towards which label, such as --label 0.")
        return classifier_free(self.model, scale, {"label": torch.tensor(-1)})

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

    @property
    def noisy(self) -> dict[str, Any]:
        """How a process with noise is solved where nothing is said."""
        return dict(KINDS[self.recipe["kind"]].noisy)

    def look(self, n: int, seed: int, **condition: Any) -> Tensor:
        """n samples to look at."""
        solver = LOOSE if self.model.carrier(**condition).noise == "none" else self.noisy
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
