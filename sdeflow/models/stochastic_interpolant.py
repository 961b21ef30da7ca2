r"""Stochastic interpolants: one velocity, one score, and every amount of noise between them.

With :math:`x_t = I(t, x_0, x_1) + \gamma(t)z` the two regressions

.. math:: b = E[\partial_t I + \dot\gamma z \mid x_t], \qquad \eta = E[z \mid x_t], \qquad \nabla\log p_t = -\eta/\gamma

give the flow b, the forward drift b + ε∇log p_t and the backward one b − ε∇log p_t, all with the marginals of x_t, between any
two laws.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.errors import ArgumentError, choose
from sdeflow.models.model import GenerativeModel
from sdeflow.models.times import TimeLaw, as_time_law
from sdeflow.paths import Coupling, Draws, GaussianPath, Interpolant, Purpose, as_coupling
from sdeflow.processes.boundary import as_time, check_field, state_time
from sdeflow.processes.sde import SDE
from sdeflow.types import Field, Time

__all__ = ["StochasticInterpolant"]

CUT = 1e-4
SECOND = ("noise", "score")
PAIRS, INSIDE = 8, (0.2, 0.5, 0.7)  # at which the deviation of a path is looked at
ROUNDING = 1e-4


class StochasticInterpolant(GenerativeModel):
    r"""A velocity and a score between any base and the data, on a path between pairs.

    The backward SDE, from the data to the base, is ``model.sde(epsilon).reverse(score, clock="backward")``.

    Arguments:
        net: b(t, x) and the conditions, with the shape of x; base at t = 0, data at t = 1.
        base: Any law.
        score_net: The second network, of the same form; None where only the flow is wanted.
        path: A path between pairs, an :class:`~sdeflow.paths.Interpolant` by default. For a score its deviation is a function
            of t alone, and positive between the ends.
        score_predicts: What the second network stands for: ``"noise"``, η, from which the score is −η/γ, infinite at both ends,
            so that SDEs keep 1e-4 away from them; or ``"score"``, finite throughout where the two laws have scores.
        coupling: As in :class:`FlowMatching`.
        time: As in :class:`FlowMatching`.

    Raises:
        ArgumentError: The path is not one between pairs, its deviation is not one from which the score_net can learn a score,
            or a word is unknown.

    References:
        Stochastic Interpolants: A Unifying Framework for Flows and Diffusions (Albergo et al., 2023),
        https://arxiv.org/abs/2303.08797

    Example:
        >>> velocity, noise = sf.networks.MLP(2), sf.networks.MLP(2)
        >>> model = sf.models.StochasticInterpolant(velocity, sf.data.eight_gaussians(), score_net=noise)
        >>> model.loss(sf.data.moons(64, seed=0), seed=0).backward()
        >>> model.sample(5, seed=0, process=model.sde(0.1), solver={"steps": 20}).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        net: Any,
        base: Distribution,
        *,
        score_net: Any = None,
        path: GaussianPath | None = None,
        score_predicts: str = "noise",
        coupling: str | Coupling = "independent",
        time: str | TimeLaw = "uniform",
    ) -> None:
        path = Interpolant() if path is None else path
        if not isinstance(path, GaussianPath) or path.given != "pair":
            raise ArgumentError(
                f"the path is {type(path).__name__}; an interpolant goes between pairs: give an sf.paths.Interpolant, "
                f"PairPath, BridgePath, or a GaussianPath(…, given='pair')."
            )
        super().__init__(net, base, interval=path.interval, schedule="the score has a network of its own, score_net")
        if score_net is not None and not callable(score_net):
            raise ArgumentError(f"the score_net is {type(score_net).__name__}; give a function of (t, x), or None.")
        if score_net is not None:
            check_noise(path, base)
        self.score_net = score_net
        self.path, self.coupling, self.time = path, as_coupling(coupling), as_time_law(time)
        self.score_predicts = choose("score_predicts", score_predicts, SECOND)

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        x0, x = self.coupling(self.base_points(x, x0, draws), x, draws)
        t, weight = self.time.draw(x, draws, self.path.regular)
        noise, z = self.path.split(x0, x, draws)
        state, velocity = self.path.at(t, noise, z)
        error = (self.prediction(t, state, **condition) - velocity).square()
        if self.score_net is not None:
            second = self._second(t, state, condition)
            if self.score_predicts == "score":  # γ² times the squared error of the score
                second = -self.path.std(t, z) * second
            error = error + (second - noise).square()
        return (weight * error).flatten(1).sum(1).to(x.dtype)

    def _second(self, t: Time, x: Tensor, condition: dict[str, Any]) -> Tensor:
        if self.score_net is None:
            raise ArgumentError(f"{type(self).__name__} was made without a score_net, so it has a flow and no score.")
        return check_field("score_net", self.score_net(state_time(t, x, self.interval), x, **condition), x)

    def score(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        value = self._second(t, x, condition)
        if self.score_predicts == "score":
            return value
        time = as_time(t, x)
        return -value / self.path.std(time, (x, x))

    def interval_of(self, *wanted: str) -> tuple[float, float]:
        if "score" not in wanted or self.score_predicts == "score":
            return self.interval
        start, end = self.interval
        return start + CUT, end - CUT

    def sde(self, epsilon: Time | Field, **condition: Any) -> SDE:
        if self.score_net is None:
            raise ArgumentError(f"{type(self).__name__} was made without a score_net, so it has no score and no SDE.")
        return super().sde(epsilon, **condition)


def check_noise(path: GaussianPath, base: Distribution) -> None:
    """Refuse a path of which −η/σ is not the score: E[z/σ | x] is E[z | x]/σ where σ is a function of t alone."""
    x0 = Draws(0).samples(base, PAIRS)
    x1 = Draws(1).normals(Purpose.NOISE, x0)
    start, end = path.interval
    for part in INSIDE:
        t = torch.full(
            (PAIRS, *[1] * (x0.ndim - 1)), start + part * (end - start), dtype=torch.float64, device=x0.device
        )
        std = path.std(t, (x0, x1)).expand_as(x0)
        if not bool((std > 0).all()):
            raise ArgumentError(
                f"{type(path).__name__} has no noise at t={float(t[0]):g}, so there is no score to be learned from it; give a "
                f"path with noise, such as sf.paths.Interpolant(), or no score_net."
            )
        if bool(((std - std[:1]).abs() > ROUNDING * std[:1]).any()):
            raise ArgumentError(
                f"the std of {type(path).__name__} depends on z, so the score does not follow from its noise; give a path "
                f"whose std is a function of t alone, such as sf.paths.Interpolant(), or no score_net."
            )
