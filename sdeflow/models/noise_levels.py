r"""What a network predicts of a noised point, how its errors compare, and how a loss weighs them.

At a state :math:`x = a x_1 + s\varepsilon` the data x₁ and the noise ε determine one another, so an error e₀ in the noise is an
error −(s/a)e₀ in the data, and every prediction u x₁ + wε has the error (w − us/a)e₀. All losses of denoising are therefore

.. math:: w(t)\,\|\hat\varepsilon - \varepsilon\|^2 = \lambda(t)\,\|\hat s - \nabla\log p(x_t \mid x_1)\|^2, \; w = \lambda/s^2,

whatever is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError, choose
from sdeflow.processes.schedules import Schedule

__all__ = ["PREDICTIONS", "WEIGHTINGS", "Weighting", "as_weighting", "mixture_of"]

Weighting = Callable[[Schedule, Tensor], Tensor]
"""w(t), the weight on the squared error of the noise."""

PREDICTIONS = ("noise", "score", "data", "v")


def mixture_of(predicts: str, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """(u, w) with prediction = u x₁ + w ε."""
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    if predicts == "noise":
        return zero, one
    if predicts == "data":
        return one, zero
    if predicts == "score":
        return zero, -1 / schedule.s(t)
    return -schedule.s(t), schedule.a(t)


def variance(schedule: Schedule, t: Tensor) -> Tensor:
    """λ = s²: the plain squared error of the noise (Ho et al., 2020)."""
    return torch.ones_like(t)


def likelihood(schedule: Schedule, t: Tensor) -> Tensor:
    """λ = g²/2, of the noising clock: its integral over t bounds −log p up to a constant (Song et al., 2021)."""
    return schedule.squared_diffusion(t) / (2 * schedule.variance(t))


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
        given = weighting
        return lambda schedule, t: given(t) * torch.ones_like(t) / schedule.variance(t)
    if not isinstance(weighting, str):
        raise ArgumentError(f"weighting={weighting!r} is neither a name nor a function of t.")
    return WEIGHTINGS[choose("weighting", weighting, WEIGHTINGS)]
