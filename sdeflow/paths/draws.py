"""The random numbers of one call: keyed by a seed, or from torch's global generators."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from sdeflow.brownian import Stream, fresh_seed, normals
from sdeflow.errors import ArgumentError

__all__ = ["Draws", "Purpose"]


NORMALS, UNIFORMS = 1, 2  # the last number of a key; those of starting points themselves end in 0


class Purpose(IntEnum):
    """What numbers are drawn for: draws for different purposes share none."""

    BASE = 0
    TIME = 1
    NOISE = 2
    COUPLING = 3
    PROBES = 4
    PATHS = 5
    CHOICE = 6


class Draws:
    """Random numbers: with a seed a pure function of it, and the global generators are neither read nor changed.

    Arguments:
        seed: An integer in [0, 2^64), or None to draw from torch's global generator, on the device of the data.

    Raises:
        ArgumentError: The seed is not such an integer.

    Example:
        >>> from sdeflow.paths import Draws, Purpose
        >>> x = torch.zeros(2, 3)
        >>> torch.equal(Draws(0).normals(Purpose.NOISE, x), Draws(0).normals(Purpose.NOISE, x))
        True
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = None if seed is None else fresh_seed(seed)

    def normals(self, purpose: int, like: Tensor, index: int = 0) -> Tensor:
        """Standard normals with the shape, dtype and device of a tensor."""
        if self.seed is None:
            return torch.randn_like(like)
        return self._keyed(purpose, like, index, NORMALS)

    def uniforms(self, purpose: int, shape: tuple[int, ...], device: torch.device, index: int = 0) -> Tensor:
        """Uniform numbers in (0, 1), float64."""
        like = torch.empty(shape, dtype=torch.float64, device=device)
        if self.seed is None:
            return torch.rand_like(like)
        # Φ of a normal is uniform, and a row of it does not depend on the size of the batch.
        uniform: Tensor = torch.special.ndtr(self._keyed(purpose, like, index, UNIFORMS))
        return uniform

    def times(self, x: Tensor) -> Tensor:
        """A uniform time in (0, 1) for each row of x: ``(B, 1, …, 1)``, float64."""
        return self.uniforms(Purpose.TIME, (len(x), *[1] * (x.ndim - 1)), x.device)

    def _keyed(self, purpose: int, like: Tensor, index: int, kind: int) -> Tensor:
        assert self.seed is not None
        key = (int(purpose), index, kind)
        return normals(self.seed, Stream.START, key, tuple(like.shape), dtype=like.dtype, device=like.device)

    def samples(self, base: Distribution, n: int) -> Tensor:
        """n samples of a law, ``(n, *event)``, in its own dtype."""
        if len(base.batch_shape):
            raise ArgumentError(
                f"the base has batch_shape {tuple(base.batch_shape)}; make its coordinates one event: "
                f"torch.distributions.Independent(base, {len(base.batch_shape)})."
            )
        with torch.no_grad():
            normal = base.base_dist if isinstance(base, Independent) else None
            if isinstance(normal, Normal):  # without a seed as well: torch.normal takes seven times as long as randn
                like = normal.loc.new_empty((n, *base.event_shape))
                return torch.addcmul(normal.loc, normal.scale, self.normals(Purpose.BASE, like))
            if self.seed is None:
                return base.sample((n,))
            if hasattr(base, "draw"):
                drawn: Tensor = base.draw(n, seed=self.seed)
                return drawn
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                return base.sample((n,))
