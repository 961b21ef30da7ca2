"""Whether a base is the law that a path begins with."""

from __future__ import annotations

import torch
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from sdeflow.errors import ArgumentError
from sdeflow.paths import GaussianPath

__all__ = ["check_start", "is_normal"]

ROUNDING = 1e-12  # of cos(π/2), which is 6e-17


def check_start(path: GaussianPath, base: Distribution) -> None:
    """Refuse a base whose draws are not what the path begins with.

    A path between pairs begins in the base, whatever it is. Else the base points are its noise, and its first state is that
    noise where a = 0. Where a > 0 there is some of the data in it, and only beside its own base, N(0, base_deviation²), is that
    small.
    """
    if path.given == "pair" or is_normal(base, path.base_deviation):
        return
    if path.schedule is None:
        raise ArgumentError(
            f"the path's noise is the base point, ε ~ N(0, I), but the base is {base}; "
            f"take that base, or a path between pairs: sf.paths.PairPath()."
        )
    a = float(path.schedule.a(torch.tensor(path.interval[0], dtype=torch.float64)))
    if a > ROUNDING:
        raise ArgumentError(
            f"the base is {base}, but {type(path).__name__} begins with {a:.2g} of the data and noise of deviation "
            f"{path.base_deviation:g}, so samples that began with this base would not end in the data; take its own, "
            f"path.base({tuple(base.event_shape)}), or a path between pairs: sf.paths.PairPath()."
        )


def is_normal(base: Distribution, deviation: float) -> bool:
    """Whether a law is N(0, deviation² I), as independent coordinates or with a covariance."""
    if isinstance(base, MultivariateNormal):
        identity = torch.eye(base.loc.shape[-1], dtype=base.loc.dtype, device=base.loc.device)
        close = (base.covariance_matrix / deviation**2 - identity).abs().max() < 1e-5
        return bool((base.loc == 0).all()) and bool(close)
    inner = base.base_dist if isinstance(base, Independent) else None
    if not isinstance(inner, Normal):
        return False
    close = abs(inner.scale / deviation - 1).max() < 1e-5
    return bool((inner.loc == 0).all()) and bool(close)
