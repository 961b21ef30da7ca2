"""``sdeflow train``: a model of one's data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape

from sdeflow.cli.data_files import SETS, Samples, read
from sdeflow.cli.trained import Trained, picture, said_in_a_sentence, shown, units_of
from sdeflow.data import LevelImages
from sdeflow.errors import ArgumentError, SdeflowError, TrainingError
from sdeflow.extras import MissingExtraError
from sdeflow.models import GenerativeModel
from sdeflow.training import Run, build, fit
from sdeflow.training.recipes import KINDS

__all__ = ["train"]

INTERRUPTED = 130
# A perceptron of this size takes half a minute for points in the plane, and is sharp there; its own default is a fast one.
SIZES = {"mlp": {"width": 128, "depth": 4}, "unet": {}}
WATCHED = 500  # rows of the held-out data that are looked at while training
EXACT = 16  # dimensions up to which the likelihood is watched, and the loss beyond: each costs a product a look


def train(
    data: Annotated[str, typer.Argument(help=f"A .npy, .npz, .pt or .csv file of rows, or one of {', '.join(SETS)}.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; made if need be.")] = Path("run"),
    kind: Annotated[str, typer.Option(help=f"Of model: {', '.join(KINDS)}.")] = "flow-matching",
    path: Annotated[
        str | None, typer.Option(help="Of flow-matching: linear, cosine, vp, sub-vp, ve, edm, pair.")
    ] = None,
    process: Annotated[str | None, typer.Option(help="Of score: vp, sub-vp, ve, cosine.")] = None,
    base: Annotated[str | None, typer.Option(help="normal or eight-gaussians.")] = None,
    network: Annotated[str | None, typer.Option(help="mlp or unet; a unet for images by default.")] = None,
    width: Annotated[int | None, typer.Option(help="Of the network.")] = None,
    depth: Annotated[int | None, typer.Option(help="Its hidden layers, or the levels of a unet.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Of the model, such as coupling=optimal-transport or weighting=edm.")
    ] = None,
    conditional: Annotated[bool, typer.Option("--conditional", help="Learn the law for each label.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Of training, those of an interrupted run included.")] = 5000,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 256,
    optimiser: Annotated[str, typer.Option(help="adam or adamw.")] = "adam",
    learning_rate: Annotated[float, typer.Option(help="Its rate.")] = 2e-3,
    warmup: Annotated[int, typer.Option(min=0, help="Steps over which the rate rises.")] = 100,
    schedule: Annotated[str, typer.Option(help="Of the rate after it: constant, linear, cosine.")] = "cosine",
    ema: Annotated[float, typer.Option(help="The decay of the average of the weights.")] = 0.999,
    clip: Annotated[float, typer.Option(help="The largest norm of a gradient.")] = 1.0,
    precision: Annotated[str, typer.Option(help="full, bf16-mixed or 16-mixed.")] = "full",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of everything that is random.")] = 0,
    held_out: Annotated[float, typer.Option(min=0.0, max=0.9, help="The part of the rows that is held out.")] = 0.1,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between two looks at it.")] = 1000,
    patience: Annotated[int | None, typer.Option(min=1, help="Looks without an improvement before it stops.")] = None,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 1000,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Do not bring the columns to mean 0 and deviation 1.")] = False,
    pictures: Annotated[bool, typer.Option(help="Draw the loss and some samples into the folder.")] = True,
) -> None:
    """Train a model of your data, or of a data set that comes along.

    Checkpoints and pictures go to the folder; Ctrl-C ends with a checkpoint, and the same command with --resume goes on.
    Then: sdeflow sample RUN, sdeflow likelihood RUN.
    """

    def work(console: Console) -> None:
        samples = read(data, seed)
        label = samples.label if conditional else None
        if conditional and label is None:
            raise SdeflowError(f"--conditional: {data} has no labels; a .pt or .npz file may have 'x' and 'label'.")
        event = list(samples.x.shape[1:])
        rows = int(held_out * len(samples.x))
        learned, watched = samples.split(rows, seed) if rows else (samples, None)
        plain = raw or samples.levels > 0  # levels lie on [−1, 1] already
        name = network or ("unet" if _is_image(event) else "mlp")
        sizes = {"width": width, "levels" if name == "unet" else "depth": depth}
        sizes = {**SIZES.get(name, {}), **{key: value for key, value in sizes.items() if value is not None}}
        if label is not None:
            sizes["classes"] = int(label.max()) + 1
        parts = {"path": path, "process": process, "base": base}
        recipe: dict[str, Any] = {
            "kind": kind,
            "event": event,
            "network": {"name": name, **sizes},
            **{part: value for part, value in parts.items() if value is not None},
            "options": dict(_option(word) for word in option or []),
            "data": {
                "source": data,
                "seed": seed,
                "held_out": rows,
                "levels": samples.levels,
                "columns": samples.columns,
                "classes": sizes.get("classes") or 0,
                **({"shift": 0.0, "scale": 1.0} if plain else units_of(learned.x)),
            },
        }
        model = build(recipe, seed=seed)
        trained = Trained(model, recipe["data"])
        names = ("x", "label") if conditional else ("x",)
        likely = samples.x[0].numel() <= EXACT and _has_flow(model)
        console.print(f"{escape(_heading(model, learned, watched))}", highlight=False, soft_wrap=True)
        try:
            run = fit(
                model,
                _tensors(trained, learned, conditional),
                steps,
                names=names,
                batch_size=batch_size,
                optimiser=optimiser,
                learning_rate=learning_rate,
                warmup=warmup,
                schedule=schedule,
                ema=ema,
                clip=clip,
                precision=precision,
                seed=seed,
                held_out=None if watched is None else _few(trained, watched, conditional),
                evaluate_every=evaluate_every,
                patience=patience,
                criterion="log_prob" if likely else "loss",
                folder=out,
                save_every=save_every,
                resume=resume,
                recipe=recipe,
                progress=sys.stderr.isatty(),
            )
        except KeyboardInterrupt as interrupt:
            console.print(escape(_as_a_command(interrupt)), highlight=False, soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None
        except SystemExit:  # SIGTERM: fit has said what it has written
            console.print("The same command with --resume goes on from there.", highlight=False)
            raise
        except ArgumentError as error:
            raise SdeflowError(_as_a_command(error)) from None
        except TrainingError as error:
            _draw(out, error.run, likely)
            raise
        console.print(
            escape(f"{str(run)[0].upper()}{str(run)[1:]} ({run.seconds:.0f} s)"), highlight=False, soft_wrap=True
        )
        drawn = pictures and _draw(out, run, likely) and _draw_samples(out, trained, watched or learned, seed)
        console.print(
            f"In {out}: the model{', loss.png, samples.png' if drawn else ''}.", highlight=False, soft_wrap=True
        )

    said_in_a_sentence("train", work)


def _as_a_command(said: BaseException) -> str:
    """A sentence of fit, in the words of the command line."""
    words = str(said).replace("the same call with resume=True", "the same command with --resume")
    return words.replace("resume=True", "--resume")


def _option(word: str) -> tuple[str, Any]:
    """``name=value``; a value is a number, true or false where it reads as one, else a word."""
    name, equals, value = word.partition("=")
    if not (name and equals):
        raise SdeflowError(f"--option {word}: write NAME=VALUE, such as coupling=optimal-transport.")
    try:
        return name.replace("-", "_"), json.loads(value)
    except json.JSONDecodeError:
        return name.replace("-", "_"), value


def _is_image(event: list[int]) -> bool:
    return len(event) in (2, 3) and min(event[-2:]) > 1 and all(side % 2 == 0 for side in event[-2:])


def _has_flow(model: GenerativeModel) -> bool:
    try:
        model.flow()
    except ArgumentError:
        return False
    return True


def _heading(model: GenerativeModel, learned: Samples, watched: Samples | None) -> str:
    count = sum(value.numel() for value in model.parameters())
    held = f", {len(watched.x)} held out" if watched is not None else ""
    shape = " × ".join(map(str, learned.x.shape[1:]))
    return f"{type(model).__name__} with {count} parameters, on {len(learned.x)} rows of {shape}{held}."


def _tensors(trained: Trained, samples: Samples, conditional: bool) -> Any:
    """The data as the model sees them, in the form in which fit takes them."""
    if samples.levels:
        label = samples.label if samples.label is not None else torch.zeros(len(samples.x), dtype=torch.int64)
        return LevelImages(samples.x, label, samples.levels)
    x = trained.inward(samples.x)
    return (x, samples.label) if conditional else x


def _few(trained: Trained, samples: Samples, conditional: bool) -> Any:
    tensors = _tensors(trained, samples.rows(torch.arange(min(WATCHED, len(samples.x)))), conditional)
    return tensors.dequantised(seed=0) if isinstance(tensors, LevelImages) else tensors


def _draw(out: Path, run: Run, likely: bool) -> bool:
    """The loss as a picture; a picture is a bonus where there is no matplotlib."""
    try:
        from sdeflow import plotting
    except MissingExtraError:
        return False
    if run.steps:
        looks = [(look["step"], look["value"], look["stderr"]) for look in run.held_out]
        criterion = "mean log p (of the model's scale)" if likely else "− loss"
        plotting.training_curve(run.losses, held_out=looks, criterion=criterion).savefig(out / "loss.png")
    return True


def _draw_samples(out: Path, trained: Trained, samples: Samples, seed: int) -> bool:
    few = shown(samples)
    condition = {}
    if trained.data["classes"]:
        condition["label"] = torch.arange(len(few)) % trained.data["classes"]
    count = min(len(few), 40) if few[0].numel() > EXACT else len(few)
    condition = {name: value[:count] for name, value in condition.items()}
    made = trained.look(count, seed, **condition)
    picture(out / "samples.png", {"data": few, "model": made}, trained.data["columns"])
    return True
