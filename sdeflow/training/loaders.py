"""An epoch of a ``torch.utils.data.DataLoader`` from any of its batches on, the same each time it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sdeflow.training.randomness import Purpose, isolated, key, seed_everything

__all__ = ["epoch", "generators_of"]

CPU = torch.device("cpu")


class Keyed(Dataset[Any]):
    """A data set whose own random numbers depend on the batch alone, and not on what was loaded before, or by which worker.

    Its indices are (index in the original, key of the batch).
    """

    def __init__(self, original: Any) -> None:
        self.original = original

    def __getitems__(self, pairs: Sequence[tuple[Any, int]]) -> list[Any]:
        with isolated(CPU):
            seed_everything(pairs[0][1])
            indices = [index for index, _ in pairs]
            if hasattr(self.original, "__getitems__"):
                items: list[Any] = self.original.__getitems__(indices)
                return items
            return [self.original[index] for index in indices]

    def __getitem__(self, pair: tuple[Any, int]) -> Any:
        return self.__getitems__([pair])[0]


def generators_of(loader: Any) -> list[torch.Generator]:
    """Those that a loader and its samplers draw from; of what is no loader, none."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = [getattr(part, "generator", None) for part in parts]
    return [value for value in found if isinstance(value, torch.Generator)]


def epoch(loader: DataLoader[Any], seed: int, number: int, first: int) -> Iterator[Any]:
    """The batches of an epoch from number ``first`` on.

    The order is the loader's: its sampler draws from generators that are seeded with (seed, epoch).
    """
    value = key(seed, Purpose.ORDER, number)
    sampler: Any = loader.sampler
    for generator in generators_of(loader):
        generator.manual_seed(value)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(number)
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        # There are no indices to skip by, so what was seen before is loaded and left.
        yield from islice(replayed(loader, seed, value), first, None)
        return
    with isolated(CPU):
        seed_everything(value)
        indices = list(loader.batch_sampler)
    keys = (key(seed, Purpose.ITEMS, number * len(indices) + place) for place in range(len(indices)))
    keyed = [[(index, name) for index in batch] for batch, name in zip(indices, keys, strict=True)]
    options = {"worker_init_fn": loader.worker_init_fn, "multiprocessing_context": loader.multiprocessing_context}
    yield from DataLoader(
        Keyed(loader.dataset),
        batch_sampler=keyed[first:],
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        prefetch_factor=loader.prefetch_factor,
        **(options if loader.num_workers else {}),
    )


def replayed(loader: DataLoader[Any], seed: int, value: int) -> Iterator[Any]:
    """The batches of a loader, the generators seeded before each."""
    with isolated(CPU):
        seed_everything(value)
        batches = iter(loader)
    for place in count():
        with isolated(CPU):
            seed_everything(key(seed, Purpose.ITEMS, value + place))
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
