"""Handwritten digits, from scikit-learn."""

from __future__ import annotations

import torch

from sdeflow.data.levels import LevelImages
from sdeflow.extras import require

__all__ = ["digits"]


def digits(*, dtype: torch.dtype | None = None) -> LevelImages:
    """1797 handwritten digits of 8 × 8 pixels with 17 levels, scaled to [−1, 1]: paper is −1, ink is 1.

    Arguments:
        dtype: The dtype of the images; torch's default dtype if None.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    References:
        Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998), https://doi.org/10.24432/C50P49;
        the part of it that scikit-learn carries.

    Example:
        >>> data = sf.data.digits()
        >>> data.images.shape, data.levels, data.data_range
        (torch.Size([1797, 8, 8]), 17, (-1.0625, 1.0625))
    """
    datasets = require("sklearn.datasets", extra="demo", purpose="sdeflow.data.digits()")
    bunch = datasets.load_digits()
    images = torch.as_tensor(bunch.images, dtype=dtype or torch.get_default_dtype()) / 8 - 1
    return LevelImages(images, torch.as_tensor(bunch.target, dtype=torch.int64), levels=17)
