"""Rectified flow: flow matching along straight lines, and again along the lines that it has drawn itself."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.errors import ArgumentError
from sdeflow.models.evaluation import evaluating
from sdeflow.models.flow_matching import FlowMatching
from sdeflow.models.model import check_condition
from sdeflow.models.times import TimeLaw
from sdeflow.paths import Coupling, Draws, OptimalTransport, PairPath
from sdeflow.solvers import solve

__all__ = ["RectifiedFlow"]


class RectifiedFlow(FlowMatching):
    r"""The flow of :math:`v = E[x_1 - x_0 \mid x_t]`, :math:`x_t = (1 - t)x_0 + t x_1`, and its reflows.

    A reflow learns from the pairs :math:`(Z_0, Z_1)` that a flow makes, whose lines cross less: each round is straighter, and
    none costs more transport than the one before. Its base and data depend on one another, so it has no score.

    Arguments:
        net: v(t, x) and the conditions; base at t = 0, data at t = 1.
        base: Any law.
        coupling: ``"independent"`` in the first round, ``"given"`` in those of pairs, or as in :class:`FlowMatching`.
        time: As in :class:`FlowMatching`.

    References:
        Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu et al., 2023),
        https://arxiv.org/abs/2209.03003

    Example:
        >>> model = sf.models.RectifiedFlow(sf.networks.MLP(2), sf.paths.LinearPath().base((2,)))
        >>> model.loss(sf.data.moons(64, seed=0), seed=0).backward()
        >>> z0, z1 = model.pairs(32, seed=0, solver={"steps": 8})
        >>> again = model.reflow()  # a copy that learns from pairs
        >>> again.loss(z1, x0=z0, seed=0).backward()
    """

    def __init__(
        self,
        net: Any,
        base: Distribution,
        *,
        coupling: str | Coupling = "independent",
        time: str | TimeLaw = "uniform",
    ) -> None:
        super().__init__(net, base, path=PairPath(), coupling=coupling, time=time)

    def reflow(self) -> RectifiedFlow:
        """The next round: a copy of this model that learns from given pairs, ``loss(z1, x0=z0)``."""
        return RectifiedFlow(deepcopy(self.net), self.base, coupling="given", time=self.time)

    @torch.no_grad()
    def pairs(
        self, n: int, *, seed: int | None = None, solver: dict[str, Any] | None = None, **condition: Any
    ) -> tuple[Tensor, Tensor]:
        """(Z0, Z1): n base points and what the flow carries them to, each ``(n, *event)``, in evaluation mode as samples."""
        check_condition(condition, n)
        z0 = Draws(seed).samples(self.base, n)
        with evaluating(self):
            return z0, self.transport(z0, solver=solver, **condition)

    @torch.no_grad()
    def straightness(
        self, x0: Tensor, *, nodes: int = 8, solver: dict[str, Any] | None = None, **condition: Any
    ) -> Tensor:
        r"""S = ∫E‖(Z₁ − Z₀) − v(t, Z_t)‖² dt over the trajectories from x0, a number; 0 where they are straight lines.

        Arguments:
            x0: Base points, ``(B, *event)``.
            nodes: Of the Gauss–Legendre quadrature in time.
            solver: Options of :func:`sdeflow.solve`.
            condition: What the network is given besides.
        """
        states, velocities, weights = self._along(x0, nodes, solver, condition)
        bend = (states[-1] - states[0] - velocities).flatten(2).square().sum(2).mean(1)
        return (weights.to(bend) * bend).sum()

    @torch.no_grad()
    def path_energy(
        self, x0: Tensor, x1: Tensor, *, nodes: int = 8, solver: dict[str, Any] | None = None, **condition: Any
    ) -> Tensor:
        r"""The normalised path energy :math:`|E\int\|v\|^2dt - W_2^2| / W_2^2`, a number; 0 for optimal transport.

        Arguments:
            x0: Base points, ``(B, *event)``.
            x1: As many data points; W₂² is that of the optimal assignment of the two.
            nodes: Of the Gauss–Legendre quadrature in time.
            solver: Options of :func:`sdeflow.solve`.
            condition: What the network is given besides.
        """
        self.check_events("x1", x1)
        if len(x1) != len(x0):
            raise ArgumentError(f"x0 has {len(x0)} rows and x1 {len(x1)}; give as many of each.")
        _, velocities, weights = self._along(x0, nodes, solver, condition)
        energy = (weights.to(x0) * velocities.flatten(2).square().sum(2).mean(1)).sum()
        nearest, _ = OptimalTransport()(x0, x1)
        least = (nearest - x1).flatten(1).square().sum(1).mean()
        return (energy - least).abs() / least

    def _along(
        self, x0: Tensor, nodes: int, solver: dict[str, Any] | None, condition: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The states at 0, the nodes and 1, the velocities at the nodes, and the weights of the nodes."""
        self.check_events("x0", x0)
        check_condition(condition, len(x0))
        places, weights = np.polynomial.legendre.leggauss(nodes)
        times = [(1 + place) / 2 for place in places.tolist()]
        states = solve(self.ode(**condition), x0, [0.0, *times, 1.0], **(solver or {})).x
        velocities = [self.velocity(t, x, **condition) for t, x in zip(times, states[1:-1], strict=True)]
        return states, torch.stack(velocities), torch.as_tensor(weights / 2)
