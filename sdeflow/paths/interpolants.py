"""Stochastic interpolants: a curve between a base point and a data point, and noise that is gone at both ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError, choose
from sdeflow.paths.gaussian import GaussianPath, slopes_of
from sdeflow.processes.boundary import as_time
from sdeflow.processes.parameters import finite_number
from sdeflow.types import Time

__all__ = ["Interpolant"]

CUT = 1e-4

Curve = Callable[[Tensor], tuple[Tensor, Tensor]]


# Functions with a name of their own, so that a path can be pickled.
def linear(t: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - t, t


def trigonometric(t: Tensor) -> tuple[Tensor, Tensor]:
    return (0.5 * math.pi * t).cos(), (0.5 * math.pi * t).sin()


def none(t: Tensor) -> Tensor:
    return torch.zeros_like(t)


def root(t: Tensor) -> Tensor:
    return (2 * t * (1 - t)).sqrt()


def quadratic(t: Tensor) -> Tensor:
    return t * (1 - t)


def sine(t: Tensor) -> Tensor:
    return (math.pi * t).sin().square()


CURVES: dict[str, Curve] = {"linear": linear, "trigonometric": trigonometric}  # (α, β) of I = α x0 + β x1
NOISES: dict[str, Callable[[Tensor], Tensor]] = {"none": none, "root": root, "quadratic": quadratic, "sine": sine}


class Interpolant(GaussianPath):
    r"""The path :math:`x_t = \alpha(t)\,x_0 + \beta(t)\,x_1 + \gamma(t)\,z`, conditioned on the pair, with z ~ N(0, I).

    Arguments:
        curve: ``"linear"``, (1 − t, t); ``"trigonometric"``, (cos πt/2, sin πt/2); or a function t → (α, β).
        noise: γ: ``"none"``; ``"root"``, √(2t(1 − t)); ``"quadratic"``, t(1 − t); ``"sine"``, sin²πt; or a function of t.
        scale: What γ is multiplied by, > 0.

    Raises:
        ArgumentError: A word is unknown, or the scale is not positive.

    References:
        Stochastic Interpolants: A Unifying Framework for Flows and Diffusions (Albergo et al., 2023),
        https://arxiv.org/abs/2303.08797

    Example:
        >>> path = sf.paths.Interpolant("trigonometric", "root")
        >>> path.std(torch.tensor(0.5), (torch.zeros(1, 1), torch.ones(1, 1)))
        tensor(0.7071)
    """

    def __init__(
        self, curve: str | Curve = "linear", noise: str | Callable[[Tensor], Tensor] = "root", scale: float = 1.0
    ) -> None:
        super().__init__(given="pair", regular=(CUT, 1 - CUT) if noise == "root" else (0.0, 1.0))  # γ̇ is infinite
        self.curve = curve if callable(curve) else CURVES[choose("curve", curve, CURVES)]
        self.noise = noise if callable(noise) else NOISES[choose("noise", noise, NOISES)]
        self.scale = finite_number("scale", scale)
        if self.scale <= 0:
            raise ArgumentError(f"scale={scale!r}: give a number > 0; without noise there is noise='none'.")

    def mean(self, t: Tensor, z: Any) -> Tensor:
        x0, x1 = z
        alpha, beta = self.curve(t)
        mean: Tensor = alpha.to(x1.dtype) * x0 + beta.to(x1.dtype) * x1
        return mean

    def std(self, t: Tensor, z: Any) -> Tensor:
        std: Tensor = (self.scale * self.noise(t)).to(z[0].dtype)
        return std

    def rates(self, t: Time, z: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x0, x1 = z
        time = as_time(t, x1)

        def coefficients(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return *self.curve(s), self.scale * self.noise(s)

        values, slopes = slopes_of(coefficients, time)
        (alpha, beta, gamma), (alpha_dot, beta_dot, gamma_dot) = (
            [value.to(x1.dtype) for value in group] for group in (values, slopes)
        )
        return alpha * x0 + beta * x1, gamma, alpha_dot * x0 + beta_dot * x1, gamma_dot
