"""Langevin dynamics: SDEs that sample from a density known up to its normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import check_field
from sdeflow.processes.parameters import like, parameter
from sdeflow.processes.sde import SDE
from sdeflow.types import Time

__all__ = ["Langevin", "UnderdampedLangevin"]


class Langevin(SDE, precise_time=True):
    r"""Overdamped Langevin dynamics :math:`dx = \nabla\log\pi(x)\,dt + \sqrt{2\tau}\,dW`.

    Its stationary law is π^{1/τ}: π itself at temperature τ = 1.

    Arguments:
        grad_log_density: ∇log π, a function of x alone, with the shape of x.
        temperature: τ > 0.
        interval: (t0, t1).

    References:
        Exponential Convergence of Langevin Distributions and Their Discrete Approximations (Roberts & Tweedie, 1996),
        https://doi.org/10.2307/3318418

    Example:
        >>> normal = sf.processes.Langevin(lambda x: -x)
        >>> normal.drift(0.0, torch.ones(1, 2))
        tensor([[-1., -1.]])
    """

    temperature: Any

    def __init__(
        self,
        grad_log_density: Callable[[Tensor], Tensor],
        temperature: float | Tensor = 1.0,
        *,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(noise="diagonal", additive=True, interval=interval)
        self.grad_log_density = _function(grad_log_density)
        parameter(self, "temperature", temperature, positive=True)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        return check_field("grad_log_density", self.grad_log_density(x), x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return torch.as_tensor(2 * self.temperature, dtype=x.dtype, device=x.device).sqrt()


class UnderdampedLangevin(SDE, precise_time=True):
    r"""Underdamped (kinetic) Langevin dynamics.

    .. math:: dq = p\,dt, \qquad dp = (\nabla\log\pi(q) - \gamma p)\,dt + \sqrt{2\gamma\tau}\,dW.

    The state has shape ``(B, 2, *event)``: x[:, 0] is the position q, x[:, 1] the momentum p. The stationary law is
    π^{1/τ}(q) N(p; 0, τ). The noise reaches the momentum only: Σ is singular, and two such processes determine no score.

    Arguments:
        grad_log_density: ∇log π, a function of the position alone, with its shape.
        friction: γ > 0, per unit of time: a number, or a tensor that broadcasts against the momentum.
        temperature: τ > 0, likewise.
        interval: (t0, t1).

    References:
        Brownian motion in a field of force and the diffusion model of chemical reactions (Kramers, 1940),
        https://doi.org/10.1016/S0031-8914(40)90098-2

    Example:
        >>> kinetic = sf.processes.UnderdampedLangevin(lambda q: -q, friction=2.0)
        >>> kinetic.drift(0.0, torch.ones(1, 2, 1)).flatten()
        tensor([ 1., -3.])
    """

    friction: Any
    temperature: Any

    def __init__(
        self,
        grad_log_density: Callable[[Tensor], Tensor],
        friction: float | Tensor = 1.0,
        temperature: float | Tensor = 1.0,
        *,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(noise="diagonal", additive=True, interval=interval)
        self.grad_log_density = _function(grad_log_density)
        parameter(self, "friction", friction, positive=True)
        parameter(self, "temperature", temperature, positive=True)

    @staticmethod
    def _phase_space(x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[1] != 2:
            raise ArgumentError(
                f"the state has shape {tuple(x.shape)}; underdamped Langevin dynamics needs (B, 2, *event), "
                f"position and momentum: torch.stack([q, p], dim=1)."
            )
        return x

    def drift(self, t: Time, x: Tensor) -> Tensor:
        q, p = self._phase_space(x).unbind(1)
        force = check_field("grad_log_density", self.grad_log_density(q), q)
        return torch.stack([p, force - self._of_momentum(self.friction, p) * p], dim=1)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        p = self._phase_space(x)[:, 1]
        strength = self._of_momentum(2 * self.friction * self.temperature, p).sqrt()
        return torch.stack([torch.zeros_like(strength), strength], dim=1)

    @staticmethod
    def _of_momentum(value: float | Tensor, p: Tensor) -> Tensor:
        """A parameter with the axes of the momentum, sizes 1 where it is the same."""
        value = torch.as_tensor(like(value, p), dtype=p.dtype, device=p.device)
        value = value.reshape(*[1] * (p.ndim - value.ndim), *value.shape)
        if value.ndim != p.ndim or any(m not in (1, n) for m, n in zip(value.shape, p.shape, strict=True)):
            raise ArgumentError(
                f"friction and temperature have shape {tuple(value.shape)}, which does not broadcast against a momentum of "
                f"shape {tuple(p.shape)}."
            )
        return value


def _function(grad_log_density: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    if not callable(grad_log_density):
        raise ArgumentError(f"grad_log_density is {grad_log_density!r}; give a function of x.")
    return grad_log_density
