"""Nonlinear SDEs: with solutions that are functions of W, with moments, and with neither."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdeflow.analysis.library.linear import KLOEDEN_PLATEN, SCIML, row
from sdeflow.analysis.problem import Moment, Problem
from sdeflow.brownian import Driver
from sdeflow.processes import SDE, Langevin
from sdeflow.types import Time

__all__ = ["NONLINEAR"]

PROTHERO_ROBINSON = (
    "On the stability and accuracy of one-step methods for solving stiff systems of ordinary differential equations "
    "(Prothero & Robinson, 1974), https://doi.org/10.1090/S0025-5718-1974-0331793-2"
)


def trigonometric(batch: int) -> Problem:
    a = 0.5
    x0 = row(0.3, batch=batch)
    return Problem(
        SDE(lambda t, x: -(a**2) * x.sin() * x.cos() ** 3, lambda t, x: a * x.cos() ** 2),
        x0,
        exact=lambda path: torch.atan(a * path(0.0, 1.0) + x0.tan()),
        name="trigonometric",
        source=f"Eq. 4.4.28 of {KLOEDEN_PLATEN}",
    )


def trigonometric_small(batch: int) -> Problem:
    x0 = row(1.0, batch=batch)
    return Problem(
        SDE(lambda t, x: -0.01 * x.sin() * x.cos() ** 3, lambda t, x: 0.1 * x.cos() ** 2),
        x0,
        exact=lambda path: torch.atan(0.1 * path(0.0, 1.0) + x0.tan()),
        name="trigonometric-small-noise",
        source=f"prob_sde_cubic of {SCIML}",
    )


def hyperbolic(batch: int) -> Problem:
    x0 = row(0.5, batch=batch)
    return Problem(
        SDE(lambda t, x: x / 2 + (x * x + 1).sqrt(), lambda t, x: (x * x + 1).sqrt()),
        x0,
        exact=lambda path: torch.sinh(1 + path(0.0, 1.0) + x0.asinh()),
        name="hyperbolic",
        source=f"Eq. 4.4.34 of {KLOEDEN_PLATEN}",
    )


def rational(batch: int) -> Problem:
    """dX = −(α + β²X)(1 − X²) dt + β(1 − X²) dW, confined to (−1, 1)."""
    alpha, beta = 0.5, 0.7
    x0 = row(0.2, batch=batch)

    def exact(path: Driver) -> Tensor:
        e = (1 + x0) * torch.exp(-2 * alpha + 2 * beta * path(0.0, 1.0))
        return (e + x0 - 1) / (e + 1 - x0)

    return Problem(
        SDE(lambda t, x: -(alpha + beta**2 * x) * (1 - x * x), lambda t, x: beta * (1 - x * x)),
        x0,
        exact=exact,
        name="rational",
        source=f"Eq. 4.4.40 of {KLOEDEN_PLATEN}",
    )


def stratonovich_sine(batch: int) -> Problem:
    """dX = sin X ∘ dW: tan(X/2) = tan(x₀/2) e^W."""
    x0 = row(1.0, batch=batch)
    return Problem(
        SDE(lambda t, x: torch.zeros_like(x), lambda t, x: x.sin(), calculus="stratonovich"),
        x0,
        exact=lambda path: 2 * torch.atan((x0 / 2).tan() * path(0.0, 1.0).exp()),
        name="stratonovich-sine",
        source=f"Sec. 4.9 of {KLOEDEN_PLATEN}, by the chain rule",
    )


def square_root(batch: int) -> Problem:
    """Cox–Ingersoll–Ross, with the diffusion √|x|, which is not Lipschitz at 0."""
    speed, level, sigma, start = 2.0, 0.5, 0.5, 1.0

    def mean(t: float) -> float:
        return level + (start - level) * math.exp(-speed * t)

    def square(t: float) -> float:
        decay = math.exp(-speed * t)
        variance = start * sigma**2 / speed * (decay - decay**2) + level * sigma**2 / (2 * speed) * (1 - decay) ** 2
        return mean(t) ** 2 + variance

    return Problem(
        SDE(lambda t, x: speed * (level - x), lambda t, x: sigma * x.abs().sqrt()),
        row(start, batch=batch),
        moments={"mean": Moment(lambda x: x[:, 0], mean), "square": Moment(lambda x: x[:, 0] ** 2, square)},
        name="cox-ingersoll-ross",
        source="A theory of the term structure of interest rates (Cox, Ingersoll & Ross, 1985), https://doi.org/10.2307/1911242",
    )


def double_well(batch: int) -> Problem:
    return Problem(
        Langevin(lambda x: x - x**3, 0.5, interval=(0.0, 2.0)),
        row(0.5, batch=batch),
        reference={"method": "sra1", "steps": 4096},
        name="double-well",
        tags=("bistable",),
        source="Stochastic Processes and Applications, ch. 7 (Pavliotis, 2014), https://doi.org/10.1007/978-1-4939-1323-7",
    )


def fitzhugh_nagumo(batch: int) -> Problem:
    def drift(t: Time, x: Tensor) -> Tensor:
        v, w = x.unbind(-1)
        return torch.stack([v - v**3 / 3 - w + 0.5, 0.08 * (v + 0.7 - 0.8 * w)], -1)

    return Problem(
        SDE(drift, lambda t, x: 0.1 * torch.ones_like(x), additive=True, interval=(0.0, 8.0)),
        row(-1.0, -0.5, batch=batch),
        reference={"method": "sra1", "steps": 4096},
        name="fitzhugh-nagumo",
        source="Impulses and physiological states in theoretical models of nerve membrane (FitzHugh, 1961), https://doi.org/10.1016/S0006-3495(61)86902-6",
    )


def stochastic_lorenz(batch: int) -> Problem:
    def drift(t: Time, x: Tensor) -> Tensor:
        a, b, c = x.unbind(-1)
        return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)

    return Problem(
        SDE(drift, lambda t, x: 3.0 * torch.ones_like(x), additive=True),
        row(1.0, 0.0, 0.0, batch=batch),
        reference={"method": "sra1", "steps": 8192},
        name="stochastic-lorenz",
        tags=("chaotic",),
        source=f"prob_sde_lorenz of {SCIML}",
    )


def stiff_relaxation(batch: int) -> Problem:
    """dX = −λ(X − cos t) dt + σX dW with λ = 200: explicit steps above 0.01 blow up."""
    rate, sigma = 200.0, 0.5
    return Problem(
        SDE(lambda t, x: -rate * (x - torch.cos(t)), lambda t, x: sigma * x),
        row(0.0, batch=batch),
        moments={
            # m' = −λ(m − cos t), m(0) = 0
            "mean": Moment(
                lambda x: x[:, 0],
                lambda t: rate * (rate * math.cos(t) + math.sin(t) - rate * math.exp(-rate * t)) / (rate**2 + 1),
            )
        },
        name="stiff-relaxation",
        tags=("stiff",),
        source=f"{PROTHERO_ROBINSON}, with noise",
    )


NONLINEAR: dict[str, Callable[[int], Problem]] = {
    "trigonometric": trigonometric,
    "trigonometric-small-noise": trigonometric_small,
    "hyperbolic": hyperbolic,
    "rational": rational,
    "stratonovich-sine": stratonovich_sine,
    "cox-ingersoll-ross": square_root,
    "double-well": double_well,
    "fitzhugh-nagumo": fitzhugh_nagumo,
    "stochastic-lorenz": stochastic_lorenz,
    "stiff-relaxation": stiff_relaxation,
}
