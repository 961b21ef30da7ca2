"""The memory that a call takes at its peak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak_bytes"]


class _Watch(TorchDispatchMode):
    """Adds up the storages that operations have made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.foreign: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self.alive:
                self.foreign[storage._cdata] = StorageWeakRef(storage)
        out = func(*args, **kwargs)
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.foreign = {key: ref for key, ref in self.foreign.items() if not ref.expired()}
        for storage in _storages(out):
            if storage._cdata not in self.foreign:
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """The most bytes of tensors, besides those there were, at any time of a call.

    On a GPU by its allocator's own count. Elsewhere by watching every operation, which makes the call several times slower;
    what operations use inside themselves and what is not in tensors (numpy, other libraries) is not seen.

    Example:
        >>> from sdeflow.analysis.memory import peak_bytes
        >>> peak_bytes(lambda: torch.zeros(1000).double().sum(), torch.device("cpu"))  # 4,000 and 8,000, then the sum
        12000
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return int(torch.cuda.max_memory_allocated(device) - before)
    watch = _Watch()
    with watch:
        call()
    return watch.peak
