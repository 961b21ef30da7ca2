"""Images whose pixels are integer levels, on the scale that processes like: [−1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError

__all__ = ["LevelImages"]


@dataclass(frozen=True, eq=False)
class LevelImages:
    """Labelled images with pixels on ``levels`` equidistant values from −1 to 1.

    Attributes:
        images: ``(n, height, width)``, floating point.
        labels: ``(n,)``, int64.
        levels: The number of values that a pixel can have.
    """

    images: Tensor
    labels: Tensor
    levels: int

    @property
    def bin_width(self) -> float:
        """The distance between neighbouring levels, 2/(levels − 1)."""
        return 2 / (self.levels - 1)

    @property
    def data_range(self) -> tuple[float, float]:
        """Where the bins of all levels lie, half a bin beyond the outermost levels: what ``sf.bits_per_dim`` wants."""
        return -1 - self.bin_width / 2, 1 + self.bin_width / 2

    def split(self, held_out: int, *, seed: int) -> tuple[LevelImages, LevelImages]:
        """(the rest, ``held_out`` images drawn without replacement); the same seed gives the same split.

        Raises:
            ArgumentError: There are not that many.
        """
        count = len(self.images)
        if not 0 < held_out < count:
            raise ArgumentError(f"held_out={held_out!r} of {count} images; hold out at least 1 and leave at least 1.")
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(self.images.device)
        return self[order[held_out:]], self[order[:held_out]]

    def dequantised(self, *, seed: int) -> LevelImages:
        """Each pixel moved by a uniform amount within its bin: data with a density."""
        shape, width = self.images.shape, self.bin_width
        shift = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
        return LevelImages(self.images + (width * shift).to(self.images), self.labels, self.levels)

    def __getitem__(self, which: Tensor | slice) -> LevelImages:
        return LevelImages(self.images[which], self.labels[which], self.levels)

    def __len__(self) -> int:
        return len(self.images)
