"""A small U-Net of time and image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sdeflow.errors import ArgumentError
from sdeflow.networks.embedding import ConditionEmbedding, TimeFeatures, as_times
from sdeflow.processes.together import At, together

__all__ = ["UNet"]


class UNet(nn.Module):
    """Two convolutions a level on the way down and up, time and condition added in each, skips between.

    Arguments:
        shape: (channels, height, width), or (height, width) for images of one channel; both divisible by
            2^(levels − 1).
        width: Channels at the first level; each level down has twice as many.
        levels: How many resolutions.
        classes: The number of labels that ``label=`` takes; −1, or no label, is none of them.
        context: The length of the vector that ``context=`` takes.

    Raises:
        ArgumentError: The image cannot be halved that often.

    References:
        U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., 2015),
        https://arxiv.org/abs/1505.04597

    Example:
        >>> net = sf.networks.UNet((8, 8), width=8)
        >>> net(0.5, torch.zeros(2, 8, 8)).shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self, shape: tuple[int, ...], *, width: int = 32, levels: int = 2, classes: int = 0, context: int = 0
    ) -> None:
        super().__init__()
        if len(shape) not in (2, 3):
            raise ArgumentError(f"shape={shape!r}: give (channels, height, width), or (height, width).")
        self.shape = tuple(shape) if len(shape) == 3 else (1, *shape)
        if levels < 1 or any(side % 2 ** (levels - 1) for side in self.shape[1:]):
            raise ArgumentError(f"an image of {self.shape[1:]} cannot be halved {levels - 1} times; take fewer levels.")
        widths = [width * 2**level for level in range(levels)]
        size = 4 * width
        self.features = TimeFeatures(6)
        self.time = nn.Sequential(nn.Linear(self.features.size, size), nn.SiLU(), nn.Linear(size, size))
        self.condition = ConditionEmbedding(size, classes, context)
        self.first = nn.Conv2d(self.shape[0], width, 3, padding=1)
        before = [width, *widths[:-1]]
        self.down = nn.ModuleList(Block(i, o, size) for i, o in zip(before, widths, strict=True))
        self.middle = Block(widths[-1], widths[-1], size)
        self.up = nn.ModuleList(Block(2 * o, i, size) for i, o in reversed(list(zip(before, widths, strict=True))))
        self.last = nn.Conv2d(width, self.shape[0], 3, padding=1)

    def _at_times(self, times: Tensor, like: Tensor, **condition: Any) -> Sequence[At]:
        seen, said = self.time(self.features(times)), self.condition(len(like), **condition)
        return [partial(self._seen, embedding, said) for embedding in seen.split(1)]

    @together(_at_times)
    def forward(
        self, t: Tensor | float, x: Tensor, *, label: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        return self._seen(self.time(self.features(as_times(t, x))), self.condition(len(x), label, context), x)

    def _seen(self, embedding: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
        """The answer at a time that is given by its embedding, of one for all rows or one for each."""
        rows = len(x)
        if condition is not None:
            embedding = embedding + condition
        h = self.first(x.reshape(rows, *self.shape))
        skips = []
        for level, block in enumerate(self.down):
            h = block(nn.functional.avg_pool2d(h, 2) if level else h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for level, block in enumerate(self.up):
            h = nn.functional.interpolate(h, scale_factor=2.0) if level else h
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        out: Tensor = self.last(nn.functional.silu(h))
        return out.reshape(x.shape)


class Block(nn.Module):
    """Two normalised convolutions around the embedding, and a skip over both."""

    def __init__(self, before: int, after: int, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(min(8, n), n) for n in (before, after))
        self.convolutions = nn.ModuleList(nn.Conv2d(n, after, 3, padding=1) for n in (before, after))
        self.embedding = nn.Linear(size, after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.convolutions[0](nn.functional.silu(self.norms[0](x)))
        h = h + self.embedding(nn.functional.silu(embedding))[:, :, None, None]
        out: Tensor = self.convolutions[1](nn.functional.silu(self.norms[1](h))) + self.skip(x)
        return out
