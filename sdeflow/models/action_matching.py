r"""Action matching: learn the potential of the flow from samples of its marginals alone.

.. math:: L(s) = E\,s(0, x_0) - E\,s(1, x_1) + \int_0^1 E\big[\tfrac12\|\nabla s\|^2 + \partial_t s\big](t, x_t)\,dt

differs from :math:`\tfrac12\int E\|\nabla s - u_t\|^2 dt` by a constant, for any velocity u of the marginals: no u is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.calculus import gradient
from sdeflow.errors import ArgumentError
from sdeflow.models.model import GenerativeModel
from sdeflow.models.path_bases import check_start
from sdeflow.models.times import TimeLaw, as_time_law
from sdeflow.networks import Gradient
from sdeflow.paths import Coupling, Draws, GaussianPath, PairPath, as_coupling
from sdeflow.processes.boundary import state_time

__all__ = ["ActionMatching"]


class ActionMatching(GenerativeModel):
    r"""The flow v = ∇s of a learned action s(t, x), the one of least kinetic energy with the marginals of a path.

    Arguments:
        action: s(t, x) and the conditions, with shape ``(B,)``, differentiable in t as well; such as
            ``sf.networks.MLP(2, scalar=True)``.
        base: The law at t = 0, as in :class:`FlowMatching`; the data are at t = 1.
        path: Where samples of the marginals between come from; the line between independent pairs by default.
        coupling: As in :class:`FlowMatching`.
        time: ``"uniform"``, or :class:`~sdeflow.models.times.Importance`, whose weight undoes its density: the loss is an
            integral over all times, and with another weight on them its minimum is elsewhere.

    Raises:
        ArgumentError: The path begins with a base of its own and the base is another, the law of times is another loss, or
            an argument is of the wrong kind.

    References:
        Action Matching: Learning Stochastic Dynamics from Samples (Neklyudov et al., 2023),
        https://arxiv.org/abs/2210.06662

    Example:
        >>> model = sf.models.ActionMatching(sf.networks.MLP(2, scalar=True), sf.paths.LinearPath().base((2,)))
        >>> model.loss(sf.data.moons(64, seed=0), seed=0).backward()
        >>> model.sample(5, seed=0, solver={"steps": 10}).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        action: Any,
        base: Distribution,
        *,
        path: GaussianPath | None = None,
        coupling: str | Coupling = "independent",
        time: str | TimeLaw = "uniform",
    ) -> None:
        path = PairPath() if path is None else path
        if not isinstance(path, GaussianPath):
            raise ArgumentError(
                f"the path is {type(path).__name__}; give an sf.paths.GaussianPath, such as PairPath()."
            )
        check_start(path, base)
        law = as_time_law(time)
        if not law.unbiased:
            raise ArgumentError(
                f"time={time!r} has no weight that undoes its density, and the action is an integral over all times, whose "
                f"minimum another density moves; give 'uniform', or sf.models.times.Importance(density)."
            )
        super().__init__(
            Gradient(action), base, interval=path.interval, schedule="it learns a flow of its own for the marginals"
        )
        self.path, self.coupling, self.time = path, as_coupling(coupling), law

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        x0, x = self.coupling(self.base_points(x, x0, draws), x, draws)
        t, weight = self.time.draw(x, draws, self.interval)
        noise, z = self.path.split(x0, x, draws)
        start, end = (torch.full_like(t, value) for value in self.interval)
        (first, state, last) = (self.path.at(time, noise, z)[0] for time in (start, t, end))
        time = state_time(t, x, self.interval).expand(len(x), *[1] * (x.ndim - 1))

        def action(joined: Tensor) -> Tensor:
            value: Tensor = self.net.energy(
                joined[:, :1].reshape(time.shape), joined[:, 1:].reshape(x.shape), **condition
            )
            return value

        slope = gradient(action, torch.cat([time.flatten(1), state.flatten(1)], dim=1))[1]
        inside = slope[:, 0] + 0.5 * slope[:, 1:].square().sum(1)
        length = self.interval[1] - self.interval[0]
        ends = [
            self.net.energy(state_time(s, x, self.interval), y, **condition) for s, y in ((start, first), (end, last))
        ]
        inside = length * inside * torch.as_tensor(weight, device=x.device).to(x.dtype).flatten()
        action_loss: Tensor = ends[0] - ends[1] + inside
        return action_loss
