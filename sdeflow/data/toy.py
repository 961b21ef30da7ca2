"""Points in the plane: laws whose density is known, and scikit-learn's shapes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.extras import require
from sdeflow.laws import GaussianMixture
from sdeflow.processes.parameters import finite_number

__all__ = ["checkerboard", "eight_gaussians", "moons", "s_curve"]


def eight_gaussians(
    radius: float = 2.0, sd: float = 0.2, *, count: int = 8, dtype: torch.dtype | None = None
) -> GaussianMixture:
    """Normal laws of equal weight around a circle, the first at angle 0: a law, from which ``.draw(n, seed=…)`` samples.

    "8gaussians" names at least three laws in the wild; here they are N((radius cos 2πk/8, radius sin 2πk/8), sd² I), and
    nothing is rescaled afterwards.

    Arguments:
        radius: Of the circle, to the centres.
        sd: The standard deviation of each coordinate around its centre.
        count: How many there are.
        dtype: Of the samples; torch's default dtype if None.

    Raises:
        ArgumentError: A number is not positive.

    Example:
        >>> law = sf.data.eight_gaussians()
        >>> law.draw(5, seed=0).shape, law.mean.abs().max() < 1e-6
        (torch.Size([5, 2]), tensor(True))
    """
    for name, value in (("radius", radius), ("sd", sd), ("count", count)):
        if finite_number(name, value) <= 0:
            raise ArgumentError(f"{name}={value!r}: give a number > 0.")
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    means = radius * torch.stack([angle.cos(), angle.sin()], dim=1).to(dtype or torch.get_default_dtype())
    return GaussianMixture(torch.ones(count), means, torch.full((count,), float(sd) ** 2))


def moons(n: int, *, noise: float = 0.05, seed: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """n points on two interleaved half-circles of radius 1, with normal noise, ``(n, 2)``.

    Arguments:
        n: How many.
        noise: The standard deviation of the noise.
        seed: Of the points; None draws one from torch's global generator.
        dtype: torch's default dtype if None.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> sf.data.moons(6, seed=0).shape
        torch.Size([6, 2])
    """
    datasets = require("sklearn.datasets", extra="demo", purpose="sdeflow.data.moons()")
    points, _ = datasets.make_moons(_count(n), noise=noise, random_state=_seed(seed))
    return torch.as_tensor(points, dtype=dtype or torch.get_default_dtype())


def s_curve(n: int, *, noise: float = 0.05, seed: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """n points on the profile of scikit-learn's S curve, ``(n, 2)``: its first and its last coordinate.

    Arguments and errors as in :func:`moons`.

    Example:
        >>> sf.data.s_curve(6, seed=0).shape
        torch.Size([6, 2])
    """
    datasets = require("sklearn.datasets", extra="demo", purpose="sdeflow.data.s_curve()")
    points, _ = datasets.make_s_curve(_count(n), noise=noise, random_state=_seed(seed))
    return torch.as_tensor(points[:, [0, 2]], dtype=dtype or torch.get_default_dtype())


def checkerboard(n: int, *, seed: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """n points uniform on the dark squares of a 4 × 4 board on [−2, 2]², ``(n, 2)``: density 1/8 there, 0 elsewhere.

    Arguments:
        n: How many.
        seed: Of the points; None draws from torch's global generator.
        dtype: torch's default dtype if None.

    Example:
        >>> x = sf.data.checkerboard(1000, seed=0)
        >>> bool(((x.floor().sum(1) % 2) == 0).all())
        True
    """
    generator = torch.Generator().manual_seed(_seed(seed))
    inside = torch.rand(_count(n), 2, generator=generator, dtype=torch.float64)
    column = torch.randint(4, (n,), generator=generator)
    row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
    corner = torch.stack([column, row], dim=1) - 2
    return (inside + corner).to(dtype or torch.get_default_dtype())


def _count(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(f"n={n!r} is not a whole number ≥ 1.")
    return n


def _seed(seed: int | None) -> int:
    """A seed of 32 bits, which scikit-learn takes; a fresh one for None."""
    if seed is None:
        return int(torch.randint(2**32 - 1, (), dtype=torch.int64))
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ArgumentError(f"seed={seed!r} is not a whole number from 0 to below 2^32.")
    return seed
