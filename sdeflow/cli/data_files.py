"""Data for the command line: the sets that sdeflow ships, by name, and tensors in files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdeflow import data as shipped
from sdeflow.data import LevelImages
from sdeflow.errors import SdeflowError, nearest

__all__ = ["SETS", "Samples", "read", "write"]

POINTS = 10_000  # of a toy law
LABEL = "label"  # the column of a .csv file, and the tensor of others, that says the class of each row


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows of floating-point data, and what is known of them.

    Attributes:
        x: ``(n, *event)``.
        label: ``(n,)``, or None.
        levels: How many values a pixel can have, or 0 where data have a density.
        columns: The names of the coordinates, where a file has any.
        ordered: Whether neighbouring rows are alike: then it is the last ones that are held out.
    """

    x: Tensor
    label: Tensor | None = None
    levels: int = 0
    columns: list[str] = field(default_factory=list)
    ordered: bool = False

    def split(self, held_out: int, seed: int) -> tuple[Samples, Samples]:
        """(the rest, so many rows): drawn without replacement, or the last ones."""
        if not 0 < held_out < len(self.x):
            raise SdeflowError(f"{held_out} of {len(self.x)} rows cannot be held out; leave some for training.")
        shuffled = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        order = torch.arange(len(self.x)).flip(0) if self.ordered else shuffled
        return self.rows(order[held_out:]), self.rows(order[:held_out])

    def rows(self, index: Tensor) -> Samples:
        label = None if self.label is None else self.label[index]
        return Samples(self.x[index], label, self.levels, self.columns, self.ordered)


def images(data: LevelImages) -> Samples:
    return Samples(data.images, data.labels, data.levels)


SETS: dict[str, Callable[[int], Samples]] = {  # by seed
    "moons": lambda seed: Samples(shipped.moons(POINTS, seed=seed)),
    "checkerboard": lambda seed: Samples(shipped.checkerboard(POINTS, seed=seed)),
    "s-curve": lambda seed: Samples(shipped.s_curve(POINTS, seed=seed)),
    "eight-gaussians": lambda seed: Samples(shipped.eight_gaussians().draw(POINTS, seed=seed)),
    "digits": lambda seed: images(shipped.digits()),
    "mnist-5k": lambda seed: images(shipped.mnist_5k()),
    "terrain": lambda seed: Samples(shipped.terrain(), ordered=True),  # line by line, and windows of a line overlap
}


def read(name: str, seed: int = 0) -> Samples:
    """A shipped data set by its name, or a ``.npy``, ``.npz``, ``.pt`` or ``.csv`` file; nothing is unpickled.

    Raises:
        SdeflowError: There is no such thing, or it does not hold numbers.
    """
    if name in SETS:
        return SETS[name](seed)
    path = Path(name)
    if path.suffix not in READERS:
        raise SdeflowError(
            f"{name} is no data set and no file of a known kind ({', '.join(READERS)}). {nearest(name, SETS)}"
        )
    try:
        found = READERS[path.suffix](path)
    except FileNotFoundError:
        raise SdeflowError(f"there is no file {name}.") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SdeflowError(f"{name} cannot be read: {reason}") from None
    x = found.x
    if x.ndim < 1 or not len(x) or x.is_complex():
        raise SdeflowError(f"{name} holds {x.dtype} of shape {tuple(x.shape)}; numbers (n, *event) are needed.")
    x = (x[:, None] if x.ndim == 1 else x).to(torch.get_default_dtype())
    bad = int((~x.flatten(1).isfinite().all(1)).sum())
    if bad:
        raise SdeflowError(f"{name} has {bad} rows with values that are not finite; leave them out.")
    return Samples(x, found.label, 0, found.columns)


def from_npy(path: Path) -> Samples:
    return Samples(torch.as_tensor(np.load(path, allow_pickle=False)))


def from_npz(path: Path) -> Samples:
    with np.load(path, allow_pickle=False) as archive:
        return by_name({name: torch.as_tensor(archive[name]) for name in archive})


def from_pt(path: Path) -> Samples:
    found = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, Tensor):
        return Samples(found)
    if isinstance(found, (tuple, list)) and 1 <= len(found) <= 2:
        found = dict(zip(("x", "label"), found, strict=False))
    if not isinstance(found, dict):
        raise ValueError(f"it holds {type(found).__name__}; a tensor, or a dictionary with 'x' and 'label', is needed.")
    return by_name(found)


def by_name(found: dict[str, Any]) -> Samples:
    if not isinstance(found.get("x"), Tensor):
        raise ValueError(f"it holds {', '.join(map(str, found))}; a tensor 'x' is needed, and 'label' may be there.")
    label = found.get(LABEL)
    if label is not None and label.shape != found["x"].shape[:1]:
        raise ValueError(f"there are labels of shape {tuple(label.shape)} for {len(found['x'])} rows; give one a row.")
    return Samples(found["x"], None if label is None else whole(label))


def from_csv(path: Path) -> Samples:
    with path.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.reader(lines) if any(map(str.strip, row))]
    if not rows:
        raise ValueError("it is empty.")
    columns: list[str] = []
    try:
        [float(word) for word in rows[0]]
    except ValueError:
        columns = [word.strip() for word in rows.pop(0)]
    values = []
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} of data has {len(row)} values, and the first has {len(rows[0])}.")
        try:
            values.append([float(word) for word in row])
        except ValueError as error:
            raise ValueError(f"row {number} of data: {error}.") from None
    x = torch.tensor(values, dtype=torch.float64)
    if LABEL not in columns or len(columns) < 2:
        return Samples(x, columns=columns)
    place = columns.index(LABEL)
    others = [k for k in range(len(columns)) if k != place]
    return Samples(x[:, others], whole(x[:, place]), columns=[columns[k] for k in others])


def whole(label: Tensor) -> Tensor:
    """Labels as they are counted: 0, 1, 2, …"""
    bad = ~((label >= 0) & (label == label.round()) & label.isfinite())
    if bool(bad.any()):
        raise ValueError(f"the label {label[bad][0]:g} is no class; classes are whole numbers from 0 on.")
    return label.long()


READERS: dict[str, Callable[[Path], Samples]] = {
    ".npy": from_npy,
    ".npz": from_npz,
    ".pt": from_pt,
    ".csv": from_csv,
}


def write(path: Path, x: Tensor, columns: Sequence[str] = ()) -> None:
    """Samples into a file, by its ending; a ``.csv`` has one row for each, flattened.

    Raises:
        SdeflowError: The ending is not known.
    """
    if path.suffix not in (".npy", ".pt", ".csv"):
        raise SdeflowError(f"--out {path}: the ending says how it is written; .npy, .pt and .csv are known.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, x.numpy(force=True))
    elif path.suffix == ".pt":
        torch.save(x, path)
    else:
        flat = x.flatten(1)
        names = list(columns) if len(columns) == flat.shape[1] else [f"x{k}" for k in range(flat.shape[1])]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows(flat.tolist())
