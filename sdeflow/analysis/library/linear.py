"""Linear SDEs: those with pathwise solutions, and those with moments."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdeflow.analysis.problem import Moment, Problem
from sdeflow.brownian import Driver
from sdeflow.processes import SDE, UnderdampedLangevin
from sdeflow.types import Time

__all__ = ["LINEAR"]

KLOEDEN_PLATEN = "Numerical Solution of Stochastic Differential Equations (Kloeden & Platen, 1992), https://doi.org/10.1007/978-3-662-12616-5"
SCIML = "SDEProblemLibrary.jl (SciML), https://docs.sciml.ai/DiffEqProblemLibrary"


def row(*values: float, batch: int) -> Tensor:
    """The same float64 state for every path, ``(batch, len(values))``."""
    return torch.tensor(values, dtype=torch.float64).repeat(batch, 1)


def gbm(batch: int, *, size: int = 1, name: str = "gbm", tags: tuple[str, ...] = ()) -> Problem:
    mu, sigma, start = 0.5, 0.6, 0.5
    x0 = torch.full((batch, size), start, dtype=torch.float64)
    return Problem(
        SDE(lambda t, x: mu * x, lambda t, x: sigma * x),
        x0,
        exact=lambda path: x0 * torch.exp((mu - sigma**2 / 2) + sigma * path(0.0, 1.0)),
        moments={
            "mean": Moment(lambda x: x[:, 0], lambda t: start * math.exp(mu * t)),
            "square": Moment(lambda x: x[:, 0] ** 2, lambda t: start**2 * math.exp((2 * mu + sigma**2) * t)),
        },
        name=name,
        tags=tags,
        source=f"Eq. 4.4.2 of {KLOEDEN_PLATEN}",
    )


def stratonovich_gbm(batch: int) -> Problem:
    mu, sigma = 0.3, 0.6
    x0 = row(1.0, batch=batch)
    return Problem(
        SDE(lambda t, x: mu * x, lambda t, x: sigma * x, calculus="stratonovich"),
        x0,
        exact=lambda path: x0 * torch.exp(mu + sigma * path(0.0, 1.0)),
        moments={"mean": Moment(lambda x: x[:, 0], lambda t: math.exp((mu + sigma**2 / 2) * t))},
        name="stratonovich-gbm",
        source=f"Sec. 4.9 of {KLOEDEN_PLATEN}",
    )


def scalar_gbm(batch: int) -> Problem:
    """One Brownian motion moves all coordinates."""
    mu = torch.tensor([0.5, -0.4, 0.1], dtype=torch.float64)
    sigma = torch.tensor([0.6, -0.3, 0.2], dtype=torch.float64)
    x0 = row(1.0, 2.0, -1.0, batch=batch)
    return Problem(
        SDE(lambda t, x: mu.to(x) * x, lambda t, x: sigma.to(x) * x, noise="scalar"),
        x0,
        exact=lambda path: x0 * torch.exp((mu - sigma**2 / 2) + sigma * path(0.0, 1.0)),
        name="scalar-gbm",
        tags=("commuting",),
        source=f"Eq. 4.8.7 of {KLOEDEN_PLATEN}",
    )


def commuting(batch: int) -> Problem:
    """dX = AX dt + Σ_k B_k X dW_k where all of A, B_1, B_2 are polynomials of one matrix."""
    base = torch.tensor([[0.2, 1.0], [-0.5, 0.1]], dtype=torch.float64)
    one = torch.eye(2, dtype=torch.float64)
    a, b = -0.5 * one + 0.6 * base, torch.stack([0.4 * base, 0.3 * one - 0.2 * base])
    x0 = row(1.0, 0.5, batch=batch)

    def exact(path: Driver) -> Tensor:
        exponent = (a - (b @ b).sum(0) / 2) + torch.einsum("nk,kij->nij", path(0.0, 1.0), b)
        return torch.einsum("nij,nj->ni", torch.linalg.matrix_exp(exponent), x0)

    return Problem(
        SDE(lambda t, x: x @ a.to(x).mT, lambda t, x: torch.einsum("kij,nj->nik", b.to(x), x), noise="general"),
        x0,
        exact=exact,
        name="commuting",
        tags=("commuting",),
        source=f"Eq. 4.8.2 of {KLOEDEN_PLATEN}",
    )


def non_commuting(batch: int) -> Problem:
    """dX = (dW₁, dW₂, X₁ dW₂): the third coordinate is the iterated integral that no method has from W alone."""

    def diffusion(t: Time, x: Tensor) -> Tensor:
        zero, one = torch.zeros_like(x[:, 0]), torch.ones_like(x[:, 0])
        return torch.stack([one, zero, zero, one, zero, x[:, 0]], 1).reshape(-1, 3, 2)

    return Problem(
        SDE(lambda t, x: torch.zeros_like(x), diffusion, noise="general"),
        row(0.0, 0.0, 0.0, batch=batch),
        reference={"method": "euler-maruyama", "steps": 4096},
        moments={"square of the integral": Moment(lambda x: x[:, 2] ** 2, lambda t: t * t / 2)},
        name="non-commuting",
        tags=("non-commuting",),
        source="The maximum rate of convergence of discrete approximations for SDEs (Clark & Cameron, 1980), https://doi.org/10.1007/BFb0004007",
    )


def ornstein_uhlenbeck(batch: int) -> Problem:
    theta, mean, sigma, start = 1.5, 0.5, 0.8, 2.0

    def centre(t: float) -> float:
        return mean + (start - mean) * math.exp(-theta * t)

    return Problem(
        SDE(lambda t, x: theta * (mean - x), lambda t, x: torch.full_like(x, sigma), additive=True),
        row(start, batch=batch),
        moments={
            "square": Moment(
                lambda x: x[:, 0] ** 2,
                lambda t: centre(t) ** 2 - sigma**2 * math.expm1(-2 * theta * t) / (2 * theta),
            ),
            "mean": Moment(lambda x: x[:, 0], centre),
        },
        name="ornstein-uhlenbeck",
        source="On the theory of the Brownian motion (Uhlenbeck & Ornstein, 1930), https://doi.org/10.1103/PhysRev.36.823",
    )


def time_dependent(batch: int) -> Problem:
    """Additive noise with coefficients of t; (x₀ + β(t + αW))/√(1 + t)."""
    alpha, beta = 0.4, 0.5
    x0 = row(1.0, batch=batch)
    return Problem(
        SDE(
            lambda t, x: beta / (1 + t) ** 0.5 - x / (2 * (1 + t)),
            lambda t, x: alpha * beta / (1 + t) ** 0.5,
            additive=True,
        ),
        x0,
        exact=lambda path: (x0 + beta * (1 + alpha * path(0.0, 1.0))) / 2**0.5,
        moments={"mean": Moment(lambda x: x[:, 0], lambda t: (1 + beta * t) / (1 + t) ** 0.5)},
        name="additive",
        source=f"prob_sde_additive of {SCIML}",
    )


def jump(batch: int) -> Problem:
    """A geometric Brownian motion of which both coefficients jump at t = 0.4."""
    at, before, after = 0.4, (0.8, 0.3), (-0.4, 0.7)
    x0 = row(1.0, batch=batch)

    def pick(k: int) -> Callable[[Time, Tensor], Tensor]:
        return lambda t, x: torch.where(t < at, before[k], after[k]) * x

    def exact(path: Driver) -> Tensor:
        (mu, sigma), (nu, rho) = before, after
        first = (mu - sigma**2 / 2) * at + sigma * path(0.0, at)
        return x0 * torch.exp(first + (nu - rho**2 / 2) * (1 - at) + rho * path(at, 1.0))

    return Problem(
        SDE(pick(0), pick(1)),
        x0,
        exact=exact,
        breakpoints=(at,),
        name="jump",
        tags=("jump",),
        source="geometric Brownian motion on two intervals",
    )


def harmonic_langevin(batch: int) -> Problem:
    """Underdamped Langevin dynamics in a harmonic well, from rest at 1: the noise enters by the velocity only."""
    friction, temperature = 1.0, 0.5
    system = torch.tensor([[0.0, 1.0], [-1.0, -friction]], dtype=torch.float64)
    process = UnderdampedLangevin(lambda x: -x, friction, temperature)
    x0 = row(1.0, 0.0, batch=batch)[:, :, None]

    def second(t: float) -> float:
        # d/dt E[xxᵀ] = AM + MAᵀ + Q, whose stationary point is T·I
        flow = torch.linalg.matrix_exp(system * t)
        still = temperature * torch.eye(2, dtype=torch.float64)
        start = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
        return float((still + flow @ (start - still) @ flow.mT)[0, 0])

    return Problem(
        process,
        x0,
        moments={"square of the place": Moment(lambda x: x[:, 0, 0] ** 2, second)},
        name="harmonic-langevin",
        source="Stochastic Processes and Applications, ch. 6 (Pavliotis, 2014), https://doi.org/10.1007/978-1-4939-1323-7",
    )


LINEAR: dict[str, Callable[[int], Problem]] = {
    "gbm": gbm,
    "gbm-256": lambda batch: gbm(batch, size=256, name="gbm-256", tags=("high-dimensional",)),
    "stratonovich-gbm": stratonovich_gbm,
    "scalar-gbm": scalar_gbm,
    "commuting": commuting,
    "non-commuting": non_commuting,
    "ornstein-uhlenbeck": ornstein_uhlenbeck,
    "additive": time_dependent,
    "jump": jump,
    "harmonic-langevin": harmonic_langevin,
}
