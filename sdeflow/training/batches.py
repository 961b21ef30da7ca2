"""Data as an endless sequence of batches that can be taken up again anywhere."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from sdeflow.data.levels import LevelImages
from sdeflow.errors import ArgumentError
from sdeflow.training.loaders import epoch
from sdeflow.training.randomness import Purpose, key

__all__ = ["Batches", "Draws", "Loader", "Rows", "as_batches", "as_rows"]

Batch = tuple[Tensor, ...]


class Batches(ABC):
    """An endless sequence of batches; the generators are seeded before each is taken.

    Attributes:
        position: Whole numbers that say which batch is next.
        parts: How many tensors a batch has, where that is known before one is taken.
        description: What the data are, so that a run is not taken up with others.
    """

    position: list[int]
    parts: int | None
    description: dict[str, Any]

    @abstractmethod
    def take(self) -> Batch:
        """The next batch."""


class Rows(Batches):
    """Rows of tensors: each once in an epoch, in an order of its own; a batch may reach into the next epoch.

    Arguments:
        tensors: Tensors with as many rows.
        size: Rows in a batch.
        seed: Of the order.
        width: Of the bins that the first tensor is dequantised in, anew each time; 0 for data that have a density.
    """

    def __init__(self, tensors: Sequence[Tensor], size: int, seed: int, width: float = 0.0) -> None:
        self.tensors, self.size, self.seed, self.width = tuple(tensors), size, seed, width
        self.position, self.parts, self.rows = [0], len(self.tensors), len(self.tensors[0])
        self.description = {
            "rows": self.rows,
            "tensors": [[list(t.shape[1:]), str(t.dtype).removeprefix("torch.")] for t in self.tensors],
            "checksum": checksum(self.tensors),
        }
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def order(self, number: int) -> Tensor:
        """The rows of an epoch."""
        if self._order[0] != number:
            generator = torch.Generator().manual_seed(key(self.seed, Purpose.ORDER, number))
            order = torch.randperm(self.rows, generator=generator)
            self._order = (number, order.to(self.tensors[0].device))
        return self._order[1]

    def take(self) -> Batch:
        first, last = (self.size * number for number in (self.position[0], self.position[0] + 1))
        chosen = []
        while first < last:
            number, start = divmod(first, self.rows)
            stop = min(self.rows, start + last - first)
            chosen.append(self.order(number)[start:stop])
            first += stop - start
        self.position[0] += 1
        index = chosen[0] if len(chosen) == 1 else torch.cat(chosen)
        first_part, *others = (tensor.index_select(0, index) for tensor in self.tensors)
        if self.width:
            first_part = first_part + self.width * (torch.rand_like(first_part) - 0.5)
        return first_part, *others


class Draws(Batches):
    """Fresh draws of a law in each step."""

    def __init__(self, law: Distribution, size: int) -> None:
        self.law, self.size = law, size
        self.position, self.parts = [0], 1
        self.description = {"law": str(law)}

    def take(self) -> Batch:
        self.position[0] += 1
        return (self.law.sample((self.size,)),)


class Loader(Batches):
    """The batches of a ``DataLoader``, epoch after epoch; on being taken up again, past ones are not loaded."""

    def __init__(self, loader: DataLoader[Any], seed: int, names: Sequence[str | None], chosen: bool = True) -> None:
        self.loader, self.seed, self.names, self.chosen = loader, seed, names, chosen
        self.position, self.parts = [0, 0], None
        sized = not isinstance(loader.dataset, IterableDataset)
        self.description = {
            "dataset": type(loader.dataset).__name__,
            "rows": len(loader.dataset) if sized else None,  # type: ignore[arg-type]
            "batch_size": loader.batch_size,
        }
        self._batches: Iterator[Any] | None = None

    def take(self) -> Batch:
        if self._batches is None:
            self._batches = epoch(self.loader, self.seed, *self.position)
        for batch in self._batches:
            self.position[1] += 1
            if not self.chosen and isinstance(batch, Mapping) and set(batch) > set(self.names):
                raise ArgumentError(
                    f"the batches have {', '.join(map(repr, batch))}, and names= does not say which are used: give "
                    f"names={tuple(batch)!r} for all of them, or those to be used; one of them is 'x'."
                )
            return parts_of(batch, self.names)
        if self.position[1] == 0:
            raise ArgumentError(
                "the loader has no batch; with drop_last=True a batch must not be larger than the data."
            )
        self.position[:] = [self.position[0] + 1, 0]
        self._batches = None
        return self.take()


def as_batches(data: Any, size: int, seed: int, names: Sequence[str | None], chosen: bool = True) -> Batches:
    """Whatever training data are given as, as batches.

    Arguments:
        data: The data.
        size: Rows in a batch.
        seed: Of their order.
        names: Of the parts of a batch.
        chosen: Whether somebody said the names, and other parts of dictionaries are left out on purpose.

    Raises:
        ArgumentError: They are of no known kind, or empty.
    """
    if isinstance(data, DataLoader):
        return Loader(data, seed, names, chosen)
    if isinstance(data, Distribution):
        if not data.event_shape or data.batch_shape:
            raise ArgumentError(f"the law of the data, {data}, is not one law of whole events.")
        return Draws(data, size)
    if isinstance(data, Dataset) and not isinstance(data, TensorDataset):
        if isinstance(data, IterableDataset):
            return Loader(DataLoader(data, batch_size=size), seed, names, chosen)
        rows = len(data)  # type: ignore[arg-type]
        if not rows:
            raise ArgumentError("the data set is empty.")
        loader = DataLoader(data, batch_size=min(size, rows), shuffle=True, drop_last=True)
        return Loader(loader, seed, names, chosen)
    width = data.bin_width if isinstance(data, LevelImages) else 0.0
    return Rows(as_rows(data, names), size, seed, width)


def as_rows(data: Any, names: Sequence[str | None]) -> tuple[Tensor, ...]:
    """Data that are in memory, as tensors with as many rows.

    Raises:
        ArgumentError: They are of no known kind, or empty, or their lengths differ.
    """
    if isinstance(data, LevelImages):
        data = (data.images, data.labels)[: len(names)]
    if isinstance(data, TensorDataset):
        data = data.tensors
    tensors = parts_of(data, names)
    lengths = [len(tensor) if tensor.ndim else 0 for tensor in tensors]
    if not min(lengths, default=0) or len(set(lengths)) > 1:
        raise ArgumentError(f"the tensors of the data have {lengths} rows; give as many of each, at least one.")
    return tensors


def parts_of(batch: Any, names: Sequence[str | None]) -> Batch:
    """A batch as tensors, in the order of the names."""
    if isinstance(batch, Mapping):
        missing = [name for name in names if name is not None and name not in batch]
        if missing:
            raise ArgumentError(f"the data have no {missing[0]!r}; there are: {', '.join(map(repr, batch))}.")
        batch = [batch[name] for name in names]
    values = batch if isinstance(batch, (tuple, list)) else (batch,)
    for value in values:
        if not isinstance(value, (Tensor, np.ndarray)):
            raise ArgumentError(
                f"the data are {type(value).__name__}; give a tensor (n, *event), a tuple or a dictionary of tensors, "
                f"a torch.utils.data.Dataset or DataLoader of them, an sf.data.LevelImages, or a Distribution."
            )
    return tuple(torch.as_tensor(value) for value in values)


def checksum(tensors: Sequence[Tensor], most: int = 1024) -> int:
    """Of some rows, evenly spaced."""
    total = 0
    for tensor in tensors:
        some = tensor[:: max(1, len(tensor) // most)].detach().cpu().contiguous()
        total = zlib.crc32(some.view(torch.uint8).numpy().tobytes(), total)
    return total
