r"""Flow matching: regress on the velocity of a conditional path, and learn that of the marginal one.

.. math:: L(\theta) = E\,\big\|v_\theta(t, x_t) - u_t(x_t \mid z)\big\|^2, \quad z \sim \pi,\; x_t \sim p_t(\cdot \mid z)

has the gradient of :math:`E\|v_\theta - u_t(x_t)\|^2` and the minimum :math:`u_t(x) = E[u_t(x \mid z) \mid x_t = x]`,
whose flow carries the base to the data. ‖·‖² is a sum over the event.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from sdeflow.errors import ArgumentError
from sdeflow.models.model import GenerativeModel, squared_error
from sdeflow.models.times import TimeLaw, as_time_law
from sdeflow.paths import Coupling, Draws, GaussianPath, Given, LinearPath, as_coupling
from sdeflow.processes.schedule import Schedule

__all__ = ["FlowMatching"]


class FlowMatching(GenerativeModel):
    r"""Flow matching from any base to the data, along any Gaussian path, with any coupling.

    With :class:`~sdeflow.paths.PairPath` it is conditional flow matching; with ``coupling="optimal-transport"`` OT-CFM; with
    :class:`~sdeflow.paths.BridgePath` and an entropic coupling Schrödinger-bridge CFM. On a path with a schedule, from its
    normal base and independent of the data, the velocity has a score, so the model has an SDE and samples by
    ``model.sample(n, process=model.sde(epsilon))``.

    Arguments:
        net: v(t, x) and the conditions, with the shape of x; t runs from the base at 0 to the data at 1.
        base: The law at t = 0.
        path: A :class:`~sdeflow.paths.GaussianPath`; the straight line by default.
        coupling: ``"independent"``, ``"optimal-transport"``, ``"entropic"``, ``"given"``, or a
            :class:`~sdeflow.paths.Coupling`.
        time: ``"uniform"``, ``"logit-normal"``, ``"lognormal"``, or a law of :mod:`sdeflow.models.times`.

    Raises:
        ArgumentError: The path needs a normal base and the base is another, or an argument is of the wrong kind.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), https://arxiv.org/abs/2210.02747;
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport (Tong et al., 2024),
        https://arxiv.org/abs/2302.00482

    Example:
        >>> base = sf.paths.LinearPath().base((2,))
        >>> model = sf.models.FlowMatching(sf.networks.MLP(2), base)
        >>> optimiser = torch.optim.Adam(model.parameters())
        >>> model.loss(sf.data.moons(256, seed=0), seed=0).backward()
        >>> optimiser.step()
        >>> model.sample(10, seed=0, solver={"steps": 8, "method": "heun"}).shape
        torch.Size([10, 2])
    """

    def __init__(
        self,
        net: Any,
        base: Distribution,
        *,
        path: GaussianPath | None = None,
        coupling: str | Coupling = "independent",
        time: str | TimeLaw = "uniform",
    ) -> None:
        path = LinearPath() if path is None else path
        if not isinstance(path, GaussianPath):
            raise ArgumentError(
                f"the path is {type(path).__name__}; give an sf.paths.GaussianPath, such as LinearPath()."
            )
        coupling = as_coupling(coupling)
        super().__init__(net, base, interval=path.interval, schedule=marginal_schedule(path, base, coupling))
        self.path, self.coupling, self.time = path, coupling, as_time_law(time)

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        if x0 is None and isinstance(self.coupling, Given):
            raise ArgumentError("coupling='given' learns from pairs: give x0=, the base point of each row of x.")
        x0, x = self.coupling(self.base_points(x, x0, draws), x, draws)
        t, weight = self.time.draw(x, draws, self.path.regular, self.path.schedule)
        noise, z = self.path.split(x0, x, draws)
        state, velocity = self.path.at(t, noise, z)
        error = self.prediction(self.time.seen(t, x), state, **condition) - velocity
        return squared_error(weight, error)


def marginal_schedule(path: GaussianPath, base: Distribution, coupling: Coupling) -> Schedule | str:
    """a(t) and s(t) of the marginals, or the sentence that says why there are none."""
    normal = is_normal(base, path.base_deviation)
    if path.given == "data" and path.schedule is None and not is_normal(base, 1.0):
        raise ArgumentError(
            f"the path's noise is the base point, ε ~ N(0, I), but the base is {base}; "
            f"take that base, or a path between pairs: sf.paths.PairPath()."
        )
    if path.schedule is None:
        return f"the path, {type(path).__name__}, is not a(t)·data + s(t)·noise"
    if not normal:
        return f"the base, {base}, is not N(0, {path.base_deviation:g}² I)"
    if not coupling.independent:
        return f"the coupling, {coupling}, makes the base depend on the data"
    return path.schedule


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
