r"""A process and a law in other units: z = (x − shift)/scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import AffineTransform, Distribution, TransformedDistribution

from sdeflow.processes.parameters import like
from sdeflow.processes.sde import SDE
from sdeflow.types import Time

__all__ = ["Rescaled", "rescaled_law"]


class Rescaled(SDE, precise_time=True):
    r"""The process of :math:`z = (x - m)/s` where x is another one, with m and s for each coordinate.

    .. math:: dz = \frac{f(t, m + sz)}{s}\,dt + \frac{\sigma(t, m + sz)}{s}\,dW,

    in both calculi, since the map is affine.

    Arguments:
        original: The SDE of x.
        shift: m, which broadcasts against an event: a number, a tensor, or a list of numbers.
        scale: s > 0, likewise.

    Example:
        >>> from sdeflow.training.rescaled import Rescaled
        >>> celsius = sf.processes.OrnsteinUhlenbeck(mean=20.0, sigma=5.0)
        >>> kelvin = Rescaled(celsius, shift=-273.15, scale=1.0)
        >>> kelvin.drift(0.0, torch.tensor([[293.15]]))
        tensor([[0.]])
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, original: SDE, shift: Any = 0.0, scale: Any = 1.0) -> None:
        super().__init__(
            noise=original.noise,
            additive=original.additive,
            commutative=original.commutative,
            calculus=original.calculus,
            interval=original.interval,
        )
        self.original, self.confined = original, original.confined
        self.register_buffer("shift", torch.as_tensor(shift), persistent=False)
        self.register_buffer("scale", torch.as_tensor(scale), persistent=False)

    @property
    def title(self) -> str:
        return self.original.title

    def _outward(self, z: Tensor) -> Tensor:
        x: Tensor = like(self.shift, z) + like(self.scale, z) * z
        return x

    def drift(self, t: Time, x: Tensor) -> Tensor:
        return self.original.drift(t, self._outward(x)) / like(self.scale, x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        sigma = self.original.diffusion(t, self._outward(x))
        scale: Tensor = like(self.scale, x)
        return sigma / (scale.expand(x.shape[1:]).reshape(-1, 1) if self.noise == "general" else scale)

    def diffusion_divergence(self, t: Time, x: Tensor) -> Tensor:
        return self.original.diffusion_divergence(t, self._outward(x)) / like(self.scale, x)

    def ito_correction(self, t: Time, x: Tensor) -> Tensor:
        return self.original.ito_correction(t, self._outward(x)) / like(self.scale, x)


def rescaled_law(law: Distribution, shift: Any = 0.0, scale: Any = 1.0) -> Distribution:
    """The law of (x − shift)/scale."""
    m, s = torch.as_tensor(shift), torch.as_tensor(scale)
    inward = AffineTransform(-m / s, 1 / s, event_dim=len(law.event_shape))
    return TransformedDistribution(law, inward, validate_args=False)
