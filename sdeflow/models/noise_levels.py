r"""What a network predicts of a noised point, how its errors compare, and how a loss weighs them.

At a state :math:`x = a x_1 + s\varepsilon` the data x₁ and the noise ε determine one another, so an error e₀ in the noise is an
error −(s/a)e₀ in the data, and every prediction u x₁ + wε has the error (w − us/a)e₀. All losses of denoising are therefore

.. math:: w(t)\,\|\hat\varepsilon - \varepsilon\|^2 = \lambda(t)\,\|\hat s - \nabla\log p(x_t \mid x_1)\|^2, \; w = \lambda/s^2,

whatever is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

from sdeflow.errors import ArgumentError, choose
from sdeflow.processes.schedule import Schedule

__all__ = ["PREDICTIONS", "WEIGHTINGS", "Weighting", "as_weighting", "target_of"]

Weighting = Callable[[Schedule, Tensor], "Tensor | float"]
"""w(t), the weight on the squared error of the noise."""

PREDICTIONS = ("noise", "score", "data", "v")


def target_of(predicts: str, a: Tensor, s: Tensor, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | float]:
    """(u x₁ + wε, w − us/a): what the network is to predict, and its error as a multiple of that in the noise."""
    if predicts == "noise":
        return noise, 1.0
    if predicts == "data":
        return x, -s / a
    if predicts == "score":
        return (-1 / s).to(x.dtype) * noise, -1 / s
    return a.to(x.dtype) * noise - s.to(x.dtype) * x, a + s * s / a


def variance(schedule: Schedule, t: Tensor) -> float:
    """λ = s²: the plain squared error of the noise (Ho et al., 2020)."""
    return 1.0


def likelihood(schedule: Schedule, t: Tensor) -> Tensor:
    """λ = g²/2, of the noising clock, whose integral over t bounds −log p up to a constant (Song et al., 2021).

    Times the length of the interval, since a loss is a mean over t.
    """
    start, end = schedule.interval
    return (end - start) * schedule.squared_diffusion(t) / (2 * schedule.variance(t))


def data(schedule: Schedule, t: Tensor) -> Tensor:
    """The plain squared error of the data, λ = s⁴/a²."""
    return (-schedule.log_snr(t)).exp()


def edm(schedule: Schedule, t: Tensor, data_deviation: float = 0.5) -> Tensor:
    """(σ² + σ_d²)/(σσ_d)² on the error of the data, σ = s/a (Karras et al., 2022)."""
    return (-schedule.log_snr(t)).exp() / data_deviation**2 + 1


def min_snr(schedule: Schedule, t: Tensor, largest: float = 5.0) -> Tensor:
    """min(SNR, 5) on the error of the data, so that nearly clean points do not take over (Hang et al., 2023)."""
    snr = schedule.log_snr(t)
    return (snr.clamp_max(math.log(largest)) - snr).exp()


def on_the_score(weight: Callable[[Tensor], Tensor], schedule: Schedule, t: Tensor) -> Tensor:
    """λ(t) as it is given, on the squared error of the score."""
    return weight(t) / schedule.variance(t)


WEIGHTINGS: dict[str, Weighting] = {
    "variance": variance,
    "likelihood": likelihood,
    "data": data,
    "edm": edm,
    "min-snr": min_snr,
}


def as_weighting(weighting: str | Callable[[Tensor], Tensor]) -> Weighting:
    """A weighting by its name; a function λ(t) is a weight on the squared error of the score."""
    if callable(weighting):
        return partial(on_the_score, weighting)
    if not isinstance(weighting, str):
        raise ArgumentError(f"weighting={weighting!r} is neither a name nor a function of t.")
    return WEIGHTINGS[choose("weighting", weighting, WEIGHTINGS)]
