"""The Schrödinger bridge without simulation: score and flow of Brownian bridges between entropic pairs."""

from __future__ import annotations

from typing import Any

from torch.distributions import Distribution

from sdeflow.models.stochastic_interpolant import StochasticInterpolant
from sdeflow.models.times import TimeLaw
from sdeflow.paths import BridgePath, Coupling, Entropic
from sdeflow.processes.sde import SDE
from sdeflow.types import Field, Time

__all__ = ["SchrodingerBridge"]


class SchrodingerBridge(StochasticInterpolant):
    r"""The diffusion nearest to σ times a Brownian motion that goes from the base at 0 to the data at 1.

    It is a mixture of Brownian bridges between pairs of the entropic plan of regularisation 2σ². The flow is learned as in flow
    matching, :math:`u = \frac{1-2t}{2t(1-t)}(x - \mu_t) + x_1 - x_0`, the score besides; with them
    :math:`dx = (v + \tfrac{\sigma^2}2\nabla\log p_t)\,dt + \sigma\,dW` is the bridge itself. Minibatches approximate the plan.

    Arguments:
        net: v(t, x) and the conditions, with the shape of x.
        score_net: ∇log p_t, of the same form.
        base: Any law.
        sigma: σ > 0.
        coupling: The entropic plan of each batch by default.
        time: As in :class:`FlowMatching`.

    References:
        Simulation-Free Schrödinger Bridges via Score and Flow Matching (Tong et al., 2024),
        https://arxiv.org/abs/2307.03672

    Example:
        >>> model = sf.models.SchrodingerBridge(
        ...     sf.networks.MLP(2), sf.networks.MLP(2), sf.data.eight_gaussians(), sigma=0.5
        ... )
        >>> model.loss(sf.data.moons(64, seed=0), seed=0).backward()
        >>> model.sample(5, seed=0, process=model.sde(), solver={"steps": 20}).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        net: Any,
        score_net: Any,
        base: Distribution,
        *,
        sigma: float = 1.0,
        coupling: str | Coupling | None = None,
        time: str | TimeLaw = "uniform",
    ) -> None:
        path = BridgePath(sigma)
        super().__init__(
            net,
            base,
            score_net=score_net,
            path=path,
            score_predicts="score",
            coupling=Entropic(2 * path.sigma**2) if coupling is None else coupling,
            time=time,
        )
        self.sigma = path.sigma

    def sde(self, epsilon: Time | Field | None = None, **condition: Any) -> SDE:
        """The bridge, ε = σ²/2; with another ε an SDE that has its marginals and not its paths."""
        return super().sde(0.5 * self.sigma**2 if epsilon is None else epsilon, **condition)
