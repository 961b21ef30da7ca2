r"""Bridge matching: a diffusion that ends in the data, learned from Brownian bridges.

Between pairs (x0, x1) a Brownian motion of diffusion σ that is to end in x1 has the drift :math:`(x_1 - x)/(1 - t)`, Doob's
:math:`\sigma^2\nabla\log h`. Its mean given x_t alone, :math:`(E[x_1 \mid x_t] - x)/(1 - t)`, gives a diffusion
with the same marginals: from one starting point it is the Doob transform that ends in the law of the data.
"""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor
from torch.distributions import Distribution

from sdeflow.errors import ArgumentError
from sdeflow.models.model import GenerativeModel, check_condition, squared_error
from sdeflow.models.ode import Conditional
from sdeflow.models.times import TimeLaw, as_time_law
from sdeflow.paths import BridgePath, Coupling, Draws, as_coupling
from sdeflow.processes.boundary import as_time
from sdeflow.processes.linear import BrownianMotion
from sdeflow.processes.sde import SDE
from sdeflow.types import Field, Time

__all__ = ["BridgeMatching"]

CUT = 1e-3


class BridgeMatching(GenerativeModel):
    r"""The diffusion :math:`dx = \frac{D(t, x) - x}{1 - t}dt + \sigma\,dW` from the base at 0 to the data at 1.

    The network is D(t, x) = E[x1 | x_t = x], the loss ‖D − x1‖² on Brownian bridges between pairs. The drift is infinite
    at 1, so the process stops a thousandth before. Paired data, ``coupling="given"`` and ``loss(x1, x0=x0)``, make a
    translation from one to the other.

    Arguments:
        net: D(t, x) and the conditions, with the shape of x.
        base: The law of the starting points, of any kind.
        sigma: σ > 0.
        coupling: As in :class:`FlowMatching`.
        time: As in :class:`FlowMatching`.

    References:
        Non-Denoising Forward-Time Diffusions (Peluchetti, 2021), https://arxiv.org/abs/2312.14589;
        Diffusion Schrödinger Bridge Matching (Shi et al., 2023), https://arxiv.org/abs/2303.16852

    Example:
        >>> model = sf.models.BridgeMatching(sf.networks.MLP(2), sf.data.eight_gaussians(), sigma=0.5)
        >>> model.loss(sf.data.moons(64, seed=0), seed=0).backward()
        >>> model.sample(5, seed=0, solver={"steps": 20}).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        net: Any,
        base: Distribution,
        *,
        sigma: float = 1.0,
        coupling: str | Coupling = "independent",
        time: str | TimeLaw = "uniform",
    ) -> None:
        path = BridgePath(sigma)
        super().__init__(net, base, predicts="data", schedule="a bridge is a diffusion whose score is not learned")
        self.path, self.sigma = path, path.sigma
        self.coupling, self.time = as_coupling(coupling), as_time_law(time)

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        x0, x = self.coupling(self.base_points(x, x0, draws), x, draws)
        t, weight = self.time.draw(x, draws, self.path.regular)
        noise, z = self.path.split(x0, x, draws)
        state = self.path.mean(t, z) + self.path.std(t, z) * noise
        error = self.prediction(t, state, **condition) - x
        return squared_error(weight, error)

    def grad_log_h(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        """∇log h = (D − x)/(σ²(1 − t)), which makes the Brownian motion this diffusion."""
        remaining = (self.sigma**2 * (1 - as_time(t, x))).to(x.dtype)
        return (self.prediction(t, x, **condition) - x) / remaining

    def ode(self, **condition: Any) -> NoReturn:
        """Refused: its score is not learned, so it has no flow."""
        raise ArgumentError(
            "a bridge is a diffusion without a score, so it has no flow and no likelihood; sample it, or use "
            "SchrodingerBridge, which learns both."
        )

    def sde(self, epsilon: Time | Field | None = None, **condition: Any) -> SDE:
        """The diffusion: Brownian motion under Doob's transform by :meth:`grad_log_h`."""
        if epsilon is not None:
            raise ArgumentError(
                "the noise of a bridge is its sigma; another ε needs a score, as SchrodingerBridge has."
            )
        free = BrownianMotion(self.sigma, interval=(0.0, 1.0 - CUT))
        return free.condition(Conditional(self, "grad_log_h", condition))

    def carrier(self, **condition: Any) -> SDE:
        """The diffusion; so ``sample`` wants a step in ``solver``, as in ``{"steps": 100}``."""
        return self.sde(**condition)

    def transport(self, x0: Tensor, *, solver: dict[str, Any] | None = None, **condition: Any) -> Tensor:
        """The ends of paths from given points, with the shape of x0; random, by the ``seed`` in ``solver``."""
        from sdeflow.solvers import solve

        self.check_events("x0", x0)
        check_condition(condition, len(x0))
        return solve(self.sde(**condition), x0, **(solver or {})).final
