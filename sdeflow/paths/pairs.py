"""Paths between a base point and a data point: any base to any data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.paths.draws import Draws
from sdeflow.paths.gaussian import GaussianPath
from sdeflow.processes.boundary import as_time
from sdeflow.processes.parameters import finite_number
from sdeflow.processes.schedules import LinearSchedule
from sdeflow.types import Time

__all__ = ["BridgePath", "PairPath"]

CUT = 1e-3


class PairPath(GaussianPath):
    r"""The line between two points with a tube around it: N((1 − t) x0 + t x1, σ²), z = (x0, x1), u = x1 − x0.

    Arguments:
        sigma: σ ≥ 0. With σ > 0 the flow starts and ends in the laws smoothed by σ: its end is not the data itself.

    Raises:
        ArgumentError: σ is negative.

    References:
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport (Tong et al., 2024),
        https://arxiv.org/abs/2302.00482

    Example:
        >>> path = sf.paths.PairPath()
        >>> path.at(0.25, torch.zeros(1, 1), (torch.zeros(1, 1), torch.ones(1, 1)))
        (tensor([[0.2500]]), tensor([[1.]]))
    """

    def __init__(self, sigma: float = 0.0) -> None:
        super().__init__(given="pair")
        self.sigma = finite_number("sigma", sigma)
        if self.sigma < 0:
            raise ArgumentError(f"sigma={sigma!r}: give σ ≥ 0.")
        if self.sigma == 0:  # from a normal base that is independent of the data it is the linear path
            self.schedule = LinearSchedule()

    def mean(self, t: Tensor, z: Any) -> Tensor:
        x0, x1 = z
        return torch.lerp(x0, x1, t.to(x1.dtype))

    def std(self, t: Tensor, z: Any) -> Tensor:
        return torch.full_like(t, self.sigma, dtype=z[0].dtype)

    def rates(self, t: Time, z: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x0, x1 = z
        time = as_time(t, x1)
        std = self.std(time, z)
        return self.mean(time, z), std, x1 - x0, torch.zeros_like(std)

    def at(self, t: Time, noise: Tensor, z: Any) -> tuple[Tensor, Tensor]:
        x0, x1 = z
        line = self.mean(as_time(t, x1), z)
        return (line + self.sigma * noise if self.sigma else line), x1 - x0

    def split(self, x0: Tensor, x1: Tensor, draws: Draws) -> tuple[Tensor, Any]:
        if self.sigma == 0:
            return torch.zeros_like(x1), (x0, x1)
        return super().split(x0, x1, draws)


class BridgePath(GaussianPath):
    r"""The Brownian bridge between two points: N((1 − t) x0 + t x1, σ² t(1 − t)), z = (x0, x1).

    .. math:: u_t(x \mid z) = \frac{1 - 2t}{2t(1 - t)}(x - \mu_t) + x_1 - x_0

    It is infinite at both ends, so training draws its times a thousandth away from them.

    Arguments:
        sigma: σ > 0, the diffusion of the Brownian motion, per square root of time.

    Raises:
        ArgumentError: σ is not positive.

    References:
        Simulation-Free Schrödinger Bridges via Score and Flow Matching (Tong et al., 2024),
        https://arxiv.org/abs/2307.03672
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__(given="pair", regular=(CUT, 1 - CUT))
        self.sigma = finite_number("sigma", sigma)
        if self.sigma <= 0:
            raise ArgumentError(f"sigma={sigma!r}: give σ > 0; without noise the bridge is PairPath().")

    def mean(self, t: Tensor, z: Any) -> Tensor:
        x0, x1 = z
        return torch.lerp(x0, x1, t.to(x1.dtype))

    def std(self, t: Tensor, z: Any) -> Tensor:
        return (self.sigma * (t * (1 - t)).sqrt()).to(z[0].dtype)

    def rates(self, t: Time, z: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x0, x1 = z
        time = as_time(t, x1)
        spread = (time * (1 - time)).sqrt()
        std_dot = self.sigma * (1 - 2 * time) / (2 * spread)
        return self.mean(time, z), (self.sigma * spread).to(x1.dtype), x1 - x0, std_dot.to(x1.dtype)
