"""Training mode and evaluation mode of a model, part by part."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

__all__ = ["evaluating", "learning", "uncompiled"]


@contextmanager
def learning(model: nn.Module) -> Iterator[None]:
    """Training mode inside, and evaluation mode afterwards: who has trained a model wants to use it.

    Of a model that is in training mode already, a part that was put in evaluation mode, such as a frozen normalisation,
    stays in it.
    """
    if not model.training:
        model.train()
    try:
        yield
    finally:
        model.eval()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each part has the mode that it had."""
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


def uncompiled() -> AbstractContextManager[Any]:
    """Inside, compiled networks run as they are: for a batch of another size they would be compiled for sizes of all kinds."""
    stance = getattr(torch.compiler, "set_stance", None) if "torch._dynamo" in sys.modules else None  # torch ≥ 2.6
    return nullcontext() if stance is None else stance("force_eager")
