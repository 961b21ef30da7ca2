"""``sdeflow train``: a model of one's data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape

from sdeflow.cli.data_files import SETS, Samples, read
from sdeflow.cli.recipe import network_of, recipe_of
from sdeflow.cli.trained import Trained, in_its_words, picture, said_in_a_sentence, shown, units_of
from sdeflow.data import LevelImages
from sdeflow.errors import ArgumentError, SdeflowError, TrainingError
from sdeflow.extras import MissingExtraError
from sdeflow.models import GenerativeModel
from sdeflow.training import Run, build, completed, fit
from sdeflow.training.recipes import KINDS, PARTS

__all__ = ["train"]

INTERRUPTED = 130
WATCHED = 500  # rows of the held-out data that are looked at while training
EXACT = 16  # dimensions up to which the likelihood is watched, and the loss beyond: each costs a product a look


def _names(part: str) -> str:
    return ", ".join(PARTS[part])


def train(
    data: Annotated[str, typer.Argument(help=f"A .npy, .npz, .pt or .csv file of rows, or one of {', '.join(SETS)}.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; made if need be.")] = Path("run"),
    kind: Annotated[str, typer.Option(help=f"Of model: {', '.join(KINDS)}.")] = "flow-matching",
    path: Annotated[str | None, typer.Option(help=f"Of flow-matching: {_names('path')}.")] = None,
    process: Annotated[
        str | None,
        typer.Option(
            help=f"Of score, edm and learned-reversal: {_names('process')}, or your own as MODULE:NAME. That of a "
            "learned reversal moves the rows in their own units."
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(help=f"Where samples start: {_names('base')}, or MODULE:NAME.")] = None,
    network: Annotated[
        str | None, typer.Option(help=f"{_names('network')}, or MODULE:NAME; a unet for images by default.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Of the network.")] = None,
    depth: Annotated[int | None, typer.Option(help="Its hidden layers, or the levels of a unet.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the model, such as coupling=optimal-transport or weighting=edm; of a part of it, such as "
            "process.sigma=0.5 or base.deviation=2."
        ),
    ] = None,
    conditional: Annotated[bool, typer.Option("--conditional", help="Learn the law for each label.")] = False,
    drop_labels: Annotated[
        float | None, typer.Option(help="The part of the rows without their label in a step: for --guidance of sample.")
    ] = None,
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
            raise SdeflowError(
                f"--conditional: {data} has no labels: a .pt or .npz file may have 'x' and 'label', a .csv file a column "
                f"'label'."
            )
        if drop_labels is not None and not conditional:
            raise SdeflowError(f"--drop-labels {drop_labels}: there are labels to drop with --conditional only.")
        event = list(samples.x.shape[1:])
        rows = int(held_out * len(samples.x))
        learned, watched = samples.split(rows, seed) if rows else (samples, None)
        plain = raw or samples.levels > 0  # levels lie on [−1, 1] already
        net = network_of(network, event, width, depth)
        if label is not None:
            net["classes"] = int(label.max()) + 1
        parts = {"network": net, "path": path, "process": process, "base": base}
        recipe = recipe_of(kind, event, parts, option or [])
        recipe["data"] = {
            "source": data,
            "seed": seed,
            "held_out": rows,
            "levels": samples.levels,
            "columns": samples.columns,
            "classes": net.get("classes", 0),
            "drop_labels": drop_labels or 0.0,
            **({"shift": 0.0, "scale": 1.0} if plain else units_of(learned.x)),
        }
        recipe = completed(recipe, learned.x, seed=seed)
        model = build(recipe, seed=seed)
        trained = Trained(model, recipe)
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
                drop_labels=drop_labels,
                folder=out,
                save_every=save_every,
                resume=resume,
                recipe=recipe,
                progress=sys.stderr.isatty(),
            )
        except KeyboardInterrupt as interrupt:
            console.print(escape(in_its_words(interrupt)), highlight=False, soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None
        except SystemExit:  # SIGTERM: fit has said what it has written
            console.print("The same command with --resume goes on from there.", highlight=False)
            raise
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
    count = min(len(few), 40) if few[0].numel() > EXACT else len(few)
    made = trained.look(count, seed, **trained.each_label(count))
    picture(out / "samples.png", {"data": few, "model": made}, trained.data["columns"])
    return True
