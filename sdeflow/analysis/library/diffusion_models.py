"""The processes of diffusion models, with data of which the score is known: a Gaussian mixture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdeflow.analysis.problem import Moment, Problem
from sdeflow.laws import GaussianMixture
from sdeflow.processes import Schedule, VarianceExploding, VariancePreserving

__all__ = ["DIFFUSION_MODELS"]

SONG = "Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), https://arxiv.org/abs/2011.13456"

START = 1e-3  # of the noising clock: at 0 the score of a reversal is that of the data, and methods end there
NOISE_SEED = 0
ROWS = 64  # of the flows


def flat_mixture() -> GaussianMixture:
    """Three components in the plane, one of them narrow."""
    means = torch.tensor([[-1.5, 0.0], [1.0, 1.2], [1.2, -1.0]], dtype=torch.float64)
    return GaussianMixture([0.3, 0.4, 0.3], means, [0.1, 0.2, 0.03])


def line_mixture() -> GaussianMixture:
    means = torch.tensor([[-1.5], [1.0]], dtype=torch.float64)
    return GaussianMixture([0.35, 0.65], means, [0.04, 0.16])


def reversal(batch: int) -> Problem:
    """The reversed diffusion, started from p_T itself, so that its end has the moments of p at the other end exactly."""
    sde, law = VariancePreserving(interval=(START, 1.0)), flat_mixture()
    truth = law.along(sde)
    reverse = sde.reverse(truth.score)
    total = sum(sde.interval)

    def square(t: float) -> float:
        here = truth.at(total - t)
        return float((here.mean[0] ** 2 + here.variance[0]).item())

    return Problem(
        reverse,
        truth.sample(sde.interval[1], batch, seed=NOISE_SEED),
        reference={"method": "sra1", "steps": 4096},
        moments={"square": Moment(lambda x: x[:, 0] ** 2, square)},
        name="mixture-reversal",
        tags=("diffusion-model",),
        source=SONG,
    )


def exploding_reversal(batch: int) -> Problem:
    sde, law = VarianceExploding(0.01, 10.0, interval=(START, 1.0)), flat_mixture()
    truth = law.along(sde)
    return Problem(
        sde.reverse(truth.score),
        truth.sample(sde.interval[1], batch, seed=NOISE_SEED),
        reference={"method": "sra1", "steps": 4096},
        name="exploding-mixture-reversal",
        tags=("diffusion-model",),
        source=SONG,
    )


def flow(batch: int) -> Problem:
    """The probability flow, from noise to data; the reference is an eighth-order method at 1e-12."""
    sde, law = VariancePreserving(interval=(START, 1.0)), flat_mixture()
    truth = law.along(sde)
    return Problem(
        sde.probability_flow(truth.score),
        truth.sample(sde.interval[1], ROWS, seed=NOISE_SEED),
        t=(1.0, START),
        reference={"method": "torchdiffeq:dopri8", "rtol": 1e-12, "atol": 1e-12},
        accuracy=1e-10,
        name="mixture-flow",
        tags=("diffusion-model",),
        source=SONG,
    )


def flow_on_the_line(batch: int) -> Problem:
    """In one dimension the flow keeps quantiles: it takes x to F_s⁻¹(F_t(x))."""
    sde, law = VariancePreserving(interval=(START, 1.0)), line_mixture()
    truth = law.along(sde)
    x0 = truth.sample(1.0, ROWS, seed=NOISE_SEED)
    schedule = sde.schedule
    assert schedule is not None
    levels = _distribution(law, schedule, 1.0, x0)
    return Problem(
        sde.probability_flow(truth.score),
        x0,
        t=(1.0, START),
        exact=_quantile(law, schedule, START, levels),
        name="mixture-flow-1d",
        tags=("diffusion-model",),
        source=f"{SONG}; a flow on the line is monotone, so it keeps the distribution function",
    )


def gaussian_flow(batch: int) -> Problem:
    """Gaussian data: the flow is affine, x(s) = a m + (x(t) − a m) sd(s)/sd(t)."""
    sde = VariancePreserving(interval=(START, 1.0))
    mean, variance = torch.tensor([[0.5, -1.0]], dtype=torch.float64), 0.3
    truth = GaussianMixture([1.0], mean, [variance]).along(sde)
    x0 = truth.sample(1.0, ROWS, seed=NOISE_SEED)
    noisy, clean = truth.at(1.0), truth.at(START)
    exact = clean.mean + (x0 - noisy.mean) * (clean.variance / noisy.variance).sqrt()
    return Problem(
        sde.probability_flow(truth.score),
        x0,
        t=(1.0, START),
        exact=exact,
        name="gaussian-flow",
        tags=("diffusion-model",),
        source=SONG,
    )


def _distribution(law: GaussianMixture, schedule: Schedule, t: float, x: Tensor) -> Tensor:
    """F_t(x), each row's, with shape ``(B, 1)``."""
    time = torch.tensor(t, dtype=torch.float64)
    a, variance = schedule.a(time), schedule.variance(time)
    z = (x - a * law.means.mT) / (a.square() * law.covariances + variance).sqrt()
    levels: Tensor = (torch.special.ndtr(z) * law.weights).sum(1, keepdim=True)
    return levels


def _quantile(law: GaussianMixture, schedule: Schedule, t: float, levels: Tensor) -> Tensor:
    """F_t⁻¹, by bisection down to rounding."""
    low, high = torch.full_like(levels, -20.0), torch.full_like(levels, 20.0)
    for _ in range(70):
        middle = (low + high) / 2
        below = _distribution(law, schedule, t, middle) < levels
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


DIFFUSION_MODELS: dict[str, Callable[[int], Problem]] = {
    "mixture-reversal": reversal,
    "exploding-mixture-reversal": exploding_reversal,
    "mixture-flow": flow,
    "mixture-flow-1d": flow_on_the_line,
    "gaussian-flow": gaussian_flow,
}
