"""The random numbers of a training run: each step has a key of its own, and the caller's generators get their state back."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch

from sdeflow.brownian.philox import words

__all__ = ["Purpose", "as_before", "isolated", "key", "seed_everything", "seed_torch"]

STREAM = 32  # of keyed draws: none of the library's own
WORD32, GOLDEN = 2**32, 0x9E3779B1


class Purpose(IntEnum):
    """What numbers are for: two purposes share none."""

    STEP = 0  # times, noise, dropout and whatever else the loss of a step draws
    DATA = 1  # what the batch of a step draws: the samples of a law, the dequantisation of images
    ORDER = 2  # of the data in an epoch
    ITEMS = 3  # what a data set draws when it is read, as augmentation does
    HELD_OUT = 4


def key(seed: int, purpose: Purpose, number: int) -> int:
    """32 bits for (seed, purpose, number): no two numbers below 2^32 of one purpose have the same."""
    return (first_key(seed, purpose) + GOLDEN * number) % WORD32  # generators of the CPU keep no more bits of a seed


@lru_cache
def first_key(seed: int, purpose: Purpose) -> int:
    return int(words(seed, STREAM, (int(purpose), 0, 0), 0, 1)[0])


def seed_torch(value: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of a device; ``torch.manual_seed`` takes 100 times as long as the former."""
    torch.default_generator.manual_seed(value)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(value)


def seed_everything(value: int) -> None:
    """Seed the generators that the code of a data set may use: torch's on the CPU, numpy's and Python's."""
    torch.default_generator.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Whatever is seeded or drawn inside, the global generators are as before afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def as_before(generators: Iterable[torch.Generator]) -> Iterator[None]:
    """Whatever is seeded or drawn inside, these generators are as before afterwards."""
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
