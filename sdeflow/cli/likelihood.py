"""``sdeflow likelihood``: how likely data are under a trained model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track

from sdeflow.cli.data_files import Samples, read, write
from sdeflow.cli.trained import Trained, said_in_a_sentence
from sdeflow.data import LevelImages
from sdeflow.errors import SdeflowError
from sdeflow.likelihood import bits_per_dim

__all__ = ["likelihood"]

EXACT = 16  # dimensions up to which the divergence is exact by default: beyond, its products take too long a wait
CHUNK = 250


def likelihood(
    run: Annotated[Path, typer.Argument(help="The folder of sdeflow train.")],
    data: Annotated[
        str | None, typer.Argument(help="A file or a data set, as for train; by default what training held out.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Only so many rows, the first ones.")] = None,
    conditional: Annotated[bool, typer.Option("--conditional", help="Of each row given its label.")] = False,
    rtol: Annotated[float, typer.Option(help="The tolerance of the solver.")] = 1e-4,
    divergence: Annotated[str | None, typer.Option(help="exact or hutchinson; exact up to 16 dimensions.")] = None,
    probes: Annotated[int, typer.Option(min=1, help="Of hutchinson, per row.")] = 4,
    levels: Annotated[
        int | None, typer.Option(min=2, help="Of the pixels of a file, on [−1, 1]; for bits per dimension.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the probes, and of the dequantisation.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Where log p of each row goes: .npy, .pt or .csv.")] = None,
    picture_file: Annotated[
        Path | None, typer.Option("--picture", help="A histogram of log p over the rows, such as p.png.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="With the last weights, not with their average.")] = False,
    own_code: Annotated[
        bool, typer.Option("--own-code", help="Import the modules of your own that the run names; for a run you trust.")
    ] = False,
) -> None:
    """The mean log-likelihood of data in nats, with its errors, and in bits per dimension where data have levels."""

    def work(console: Console) -> None:
        trained = Trained.of(run, "last" if last else "average", own_code)
        trained.model.flow(solver={"divergence": "hutchinson"})  # refused in a sentence where there is none
        samples = _samples(trained, data, rows)
        count = levels or samples.levels
        x = samples.x
        if count:
            width = 2 / (count - 1)
            if not bool(((x + 1) / width - ((x + 1) / width).round()).abs().max() < 1e-3 and x.abs().max() <= 1.001):
                raise SdeflowError(
                    f"the data are not {count} levels on [−1, 1]; bring them there, or leave out --levels."
                )
            x = LevelImages(x, torch.zeros(len(x)), count).dequantised(seed=seed).images
        z, dims = trained.inward(x), x[0].numel()
        if conditional and samples.label is None:
            raise SdeflowError("--conditional: the data have no labels.")
        label = samples.label if conditional else None
        if label is None and not trained.knows_no_label:
            raise SdeflowError(
                "this model was trained with labels only: say --conditional, for log p of each row given its label, or "
                "train it with --drop-labels 0.1 besides."
            )
        how = divergence or ("exact" if dims <= EXACT else "hutchinson")
        solver: dict[str, Any] = {"rtol": rtol, "atol": rtol, "divergence": how, "seed": seed}
        if how == "hutchinson":
            solver["probes"] = probes
        values, probing, solving = [], [], []
        chunks = range(0, len(z), CHUNK)
        for start in track(chunks, "log p", console=console, transient=True, disable=not console.is_terminal):
            part = slice(start, start + CHUNK)
            condition = {} if label is None else {"label": label[part]}
            with torch.no_grad():
                found = trained.model.flow(solver=solver, **condition).log_prob_with_error(z[part])
            values.append(found.value.double() - trained.log_volume())
            probing.append(found.stderr.double())
            solving.append(found.solver_error.double())
        value, stderr, error = (torch.cat(parts) for parts in (values, probing, solving))
        spread = float(value.std()) / math.sqrt(len(value))
        report = [
            f"{len(value)} rows of {' × '.join(map(str, x.shape[1:]))} under the model in {run}",
            f"mean log p      {value.mean():.4f} ± {spread:.4f} nats (standard error over the rows)",
            f"of which solver {error.mean():.1e} per row at most"
            + (f", probes {stderr.square().mean().sqrt():.1e} per row" if how == "hutchinson" and probes > 1 else ""),
        ]
        if count:
            span = (-1 - 1 / (count - 1), 1 + 1 / (count - 1))
            bits = bits_per_dim(value, dims, count, span)
            report.append(f"bits per dim    {bits.mean():.4f} ± {float(bits.std()) / math.sqrt(len(bits)):.4f}")
        if out is not None:
            write(out, value[:, None], ["log_prob"])
            report.append(f"log p of each row is in {out}")
        if picture_file is not None:
            from sdeflow import plotting

            picture_file.parent.mkdir(parents=True, exist_ok=True)
            drawn = {f"{len(value)} rows, mean {value.mean():.3f} ± {spread:.3f}": value[:, None]}
            plotting.points(drawn, labels=("log p [nats]", ""), width=5.0).savefig(picture_file)
            report.append(f"their histogram is in {picture_file}")
        for line in report:
            console.print(line, highlight=False, soft_wrap=True)

    said_in_a_sentence("likelihood", work)


def _samples(trained: Trained, data: str | None, rows: int | None) -> Samples:
    """The data that were asked for; by default the ones that were not learned from."""
    known = trained.data
    if data is not None:
        samples = read(data, known["seed"])
    elif not known["held_out"]:
        raise SdeflowError("nothing was held out when this model was trained; name the data.")
    else:
        samples = read(known["source"], known["seed"]).split(known["held_out"], known["seed"])[1]
    return samples if rows is None else samples.rows(torch.arange(min(rows, len(samples.x))))
