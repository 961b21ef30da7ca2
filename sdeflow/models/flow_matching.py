r"""Flow matching: regress on the velocity of a conditional path, and learn that of the marginal one.

.. math:: L(\theta) = E\,\big\|v_\theta(t, x_t) - u_t(x_t \mid z)\big\|^2, \quad z \sim \pi,\; x_t \sim p_t(\cdot \mid z)

has the gradient of :math:`E\|v_\theta - u_t(x_t)\|^2` and the minimum :math:`u_t(x) = E[u_t(x \mid z) \mid x_t = x]`,
whose flow carries the base to the data. ‖·‖² is a sum over the event.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from sdeflow.errors import ArgumentError
from sdeflow.models.model import GenerativeModel, squared_error
from sdeflow.models.path_bases import check_start, is_normal
from sdeflow.models.times import TimeLaw, as_time_law
from sdeflow.paths import Coupling, Draws, GaussianPath, LinearPath, as_coupling
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
        base: The law at t = 0: any on a path between pairs, or where the path begins without the data, as the straight line
            and the cosine do; else the path's own, ``path.base(event)``, as N(0, 80² I) of :class:`~sdeflow.paths.EDMPath`.
        path: A :class:`~sdeflow.paths.GaussianPath`; the straight line by default.
        coupling: ``"independent"``, ``"optimal-transport"``, ``"entropic"``, ``"given"``, or a
            :class:`~sdeflow.paths.Coupling`.
        time: ``"uniform"``, ``"logit-normal"``, ``"lognormal"``, or a law of :mod:`sdeflow.models.times`.

    Raises:
        ArgumentError: The path begins with a base of its own and the base is another, or an argument is of the wrong kind.

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
        check_start(path, base)
        coupling = as_coupling(coupling)
        super().__init__(net, base, interval=path.interval, schedule=marginal_schedule(path, base, coupling))
        self.path, self.coupling, self.time = path, coupling, as_time_law(time)

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        x0, x = self.coupling(self.base_points(x, x0, draws), x, draws)
        t, weight = self.time.draw(x, draws, self.path.regular, self.path.schedule)
        noise, z = self.path.split(x0, x, draws)
        state, velocity = self.path.at(t, noise, z)
        error = self.prediction(self.time.seen(t, x), state, **condition) - velocity
        return squared_error(weight, error)


def marginal_schedule(path: GaussianPath, base: Distribution, coupling: Coupling) -> Schedule | str:
    """a(t) and s(t) of the marginals, or the sentence that says why there are none."""
    if path.schedule is None:
        return f"the path, {type(path).__name__}, is not a(t)·data + s(t)·noise"
    if not is_normal(base, path.base_deviation):
        return f"the base, {base}, is not N(0, {path.base_deviation:g}² I)"
    if not coupling.independent:
        return f"the coupling, {coupling}, makes the base depend on the data"
    return path.schedule
