r"""Score matching without noise: the score of the data themselves, from which Langevin dynamics samples.

.. math:: E\big[\tfrac12\|s\|^2 + \nabla\cdot s\big] = \tfrac12 E\|s - \nabla\log p\|^2 - \tfrac12 E\|\nabla\log p\|^2

(Hyvärinen), with the divergence exact or by random slices :math:`e^\top(\nabla s)e`.
"""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor, nn
from torch.distributions import Distribution

from sdeflow.brownian import Stream, fresh_seed, normals, signs
from sdeflow.calculus import divergence, hutchinson
from sdeflow.errors import ArgumentError, choose
from sdeflow.models.model import GenerativeModel
from sdeflow.paths import Draws
from sdeflow.processes.langevin import Langevin
from sdeflow.processes.parameters import finite_number
from sdeflow.processes.sde import SDE
from sdeflow.types import Time

__all__ = ["ScoreMatching"]


class Still(nn.Module):
    """The score of a model as a function of x alone; its parameters are those of the model."""

    def __init__(self, model: GenerativeModel, condition: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.condition = model, condition

    def forward(self, x: Tensor) -> Tensor:
        return self.model.score(0.0, x, **self.condition)


METHODS = ("implicit", "sliced")


class ScoreMatching(GenerativeModel):
    """A score of the data by implicit or sliced score matching, and Langevin dynamics that sample from it.

    It has one law and no time: the network is called with t = 0. It has no flow and no likelihood. Where data are
    scarce the score is not learned, and Langevin dynamics hardly cross from mode to mode:
    :class:`DenoisingScoreMatching` is the remedy.

    Arguments:
        net: s(t, x) and the conditions, with the shape of x; ``sf.networks.Gradient(energy, -1.0)`` makes it a gradient.
        base: Where the Langevin dynamics start.
        method: ``"implicit"``: the exact divergence, D products with the Jacobian; ``"sliced"``: one, with a random slice.
        slices: Of the sliced method, ``"rademacher"`` or ``"gaussian"``.
        time: How long the dynamics run, in the units of the squared length scale of the data.

    References:
        Estimation of Non-Normalized Statistical Models by Score Matching (Hyvärinen, 2005),
        https://jmlr.org/papers/v6/hyvarinen05a.html;
        Sliced Score Matching: A Scalable Approach to Density and Score Estimation (Song et al., 2019),
        https://arxiv.org/abs/1905.07088

    Example:
        >>> model = sf.models.ScoreMatching(sf.networks.MLP(2), sf.paths.LinearPath().base((2,)), time=2.0)
        >>> model.loss(sf.data.moons(64, seed=0), seed=0).backward()
        >>> model.sample(5, seed=0, solver={"steps": 20}).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        net: Any,
        base: Distribution,
        *,
        method: str = "implicit",
        slices: str = "rademacher",
        time: float = 10.0,
    ) -> None:
        length = finite_number("time", time)
        if length <= 0:
            raise ArgumentError(f"time={time!r}: give a length of time > 0.")
        super().__init__(
            net,
            base,
            interval=(0.0, length),
            predicts="score",
            schedule="its law is that of the data and does not move",
        )
        self.method = choose("method", method, METHODS)
        self.slices = choose("slices", slices, ("rademacher", "gaussian"))

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        if x0 is not None:
            raise ArgumentError("score matching looks at the data alone, so there is no use for x0.")

        def score(y: Tensor) -> Tensor:
            return self.prediction(0.0, y, **condition)

        if self.method == "implicit":
            value, trace = divergence(score, x)
        else:
            draw = signs if self.slices == "rademacher" else normals
            seed, shape = fresh_seed(draws.seed), (len(x), *x.shape[1:])
            probes = draw(seed, Stream.PROBES, (0, 0, 2), shape, dtype=x.dtype, device=x.device)[None]
            value, estimates = hutchinson(score, x, probes)
            trace = estimates[0]
        return 0.5 * value.flatten(1).square().sum(1) + trace

    def score(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        """∇log p(x) of the data, the same at every t."""
        return self.prediction(0.0, x, **condition)

    def ode(self, **condition: Any) -> NoReturn:
        """Refused: its law does not move, so no flow carries a base to it."""
        raise ArgumentError(
            "score matching learns the score of one law, so there is no flow from a base and no likelihood; it samples by "
            "Langevin dynamics. DenoisingScoreMatching has all three."
        )

    def sde(self, epsilon: Time = 1.0, **condition: Any) -> SDE:
        """Langevin dynamics of temperature ε, whose stationary law at ε = 1 is that of the data."""
        return Langevin(Still(self, condition), epsilon, interval=self.interval)

    def carrier(self, **condition: Any) -> SDE:
        """Langevin dynamics; so ``sample`` wants a step in ``solver``, as in ``{"dt": 0.01}``."""
        return self.sde(**condition)
