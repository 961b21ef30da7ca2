"""A checkpoint: one safetensors file with a record in JSON, written at once or not at all, and checked when it is read."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.extras import require

__all__ = ["FILE", "Checkpoint", "read", "write", "write_text"]

FILE = "checkpoint.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        tensors: By name: ``model.…``, ``average.…``, ``optimiser.…``, ``losses``, and ``best.…`` where there is one.
        record: The rest: settings, step, place in the data, versions; whatever JSON can say.
    """

    tensors: dict[str, Tensor]
    record: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors whose names begin with it, without that beginning."""
        start = name + "."
        return {key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)}


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint beside the file and put it in its place: at no moment is there half of one.

    Raises:
        ArgumentError: The record is not JSON.
    """
    safetensors = require("safetensors.torch", extra="train", purpose="a checkpoint")
    tensors = apart(checkpoint.tensors)
    try:
        record = json.dumps(checkpoint.record)
    except TypeError as error:
        raise ArgumentError(f"the run cannot be written: {error}. Options are numbers, words and lists.") from None
    metadata = {"sdeflow": record, "format": str(FORMAT), "checksum": str(checksum(tensors, record))}
    partial = path.with_name(path.name + ".partial")
    safetensors.save_file(tensors, str(partial), metadata=metadata)
    put_in_place(partial, path)


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, each in memory of its own, as the format wants them: a view of another one is written out."""
    found: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in tensors.items():
        value = value.detach().contiguous()
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if place in places else value
        places.add(place)
    return found


def write_text(path: Path, text: str) -> None:
    """The same for a text."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    put_in_place(partial, path)


def put_in_place(partial: Path, path: Path) -> None:
    """Rename, once the bytes are on the disk; the rename is as well, where folders can be opened."""
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint, a file or the folder of a run.

    Raises:
        ArgumentError: There is none, it was not written by ``sf.fit``, or it is damaged.
    """
    safetensors = require("safetensors", extra="train", purpose="a checkpoint")
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ArgumentError(f"there is no checkpoint in {path}: give the folder of a run of sf.fit(…, folder=…).")
    try:
        with safetensors.safe_open(str(file), framework="pt", device=str(device)) as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dictionary)
    except (OSError, safetensors.SafetensorError) as error:
        raise ArgumentError(
            f"{file} cannot be read as safetensors ({error}): it is damaged, or something else."
        ) from None
    if "sdeflow" not in metadata:
        raise ArgumentError(f"{file} was not written by sf.fit: it has tensors, and no record of a run.")
    if metadata.get("format") != str(FORMAT):
        raise ArgumentError(
            f"{file} has the format {metadata.get('format')}; this version of sdeflow reads format {FORMAT}."
        )
    if metadata.get("checksum") != str(checksum(tensors, metadata["sdeflow"])):
        raise ArgumentError(f"{file} is damaged: what is in it has another checksum than what was written.")
    return Checkpoint(tensors, json.loads(metadata["sdeflow"]))


def checksum(tensors: Mapping[str, Tensor], record: str) -> int:
    """CRC-32 of the record, the names and the numbers."""
    total = zlib.crc32(record.encode())
    for name in sorted(tensors):
        value = tensors[name].cpu().reshape(-1)
        total = zlib.crc32(value.view(torch.uint8).numpy().data, zlib.crc32(name.encode(), total))
    return total
