"""ODEs: exact ends, and stored ones that an independent solver made at a tolerance of 1e-13."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdeflow.analysis.problem import Problem
from sdeflow.processes import ODE
from sdeflow.types import Time

__all__ = ["DETERMINISTIC", "STORED"]

HAIRER = "Solving Ordinary Differential Equations I and II (Hairer, Nørsett & Wanner, 1993, 1996), https://doi.org/10.1007/978-3-540-78862-1"

# Ends by scipy.integrate.solve_ivp with rtol = 1e-13 (the stiff ones: Radau, others: DOP853), and how far such runs may be
# off: three times the distance to the same method at 1e-12 or to LSODA, the larger. Tests make them again.
STORED: dict[str, tuple[tuple[float, ...], float]] = {
    "lotka-volterra": ((1.0263447675750283, 0.9096910781362759), 1.3e-11),
    "brusselator": ((0.4986370712683301, 4.5967803494520165), 1.7e-11),
    "lorenz": ((-6.974570472684202, -7.021060890821414, 25.11961649212715), 1.6e-10),
    "van-der-pol-2": ((0.8415536521971474, -1.089047856825048), 2.3e-11),
    "van-der-pol-1000": ((1.706167732170508, -0.0008928097010247703), 5.7e-11),
    "robertson": ((0.715827068719464, 9.185534764559858e-06, 0.284163745745773), 3.2e-12),
}


def state(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def stored(name: str, velocity: Callable[[Time, Tensor], Tensor], x0: Tensor, end: float, **words: object) -> Problem:
    values, accuracy = STORED[name]
    return Problem(
        ODE(velocity, interval=(0.0, end)),
        x0,
        exact=state(*values),
        accuracy=accuracy,
        name=name,
        **words,  # type: ignore[arg-type]
    )


def linear(batch: int) -> Problem:
    """x' = Ax with a rotation and two rates."""
    a = torch.tensor([[-0.5, 2.0, 0.0], [-2.0, -0.5, 0.3], [0.0, 0.0, -1.5]], dtype=torch.float64)
    x0 = state(1.0, 0.0, 2.0)
    return Problem(
        ODE(lambda t, x: x @ a.to(x).mT, interval=(0.0, 2.0)),
        x0,
        exact=x0 @ torch.linalg.matrix_exp(2.0 * a).mT,
        name="linear",
        source=HAIRER,
    )


def logistic(batch: int) -> Problem:
    x0 = state(0.1)
    return Problem(
        ODE(lambda t, x: x * (1 - x), interval=(0.0, 5.0)),
        x0,
        exact=1 / (1 + 9 * torch.exp(torch.full_like(x0, -5.0))),
        name="logistic",
        source="Notice sur la loi que la population suit dans son accroissement (Verhulst, 1838)",
    )


def heat(batch: int) -> Problem:
    """The heat equation on 100 points: high-dimensional and stiff, λ down to −4·101²·0.05."""
    size, diffusivity = 100, 0.05
    modes_at = torch.arange(1, size + 1, dtype=torch.float64)
    rates = -4 * diffusivity * (size + 1) ** 2 * torch.sin(modes_at * math.pi / (2 * (size + 1))) ** 2
    grid = modes_at / (size + 1)
    modes = torch.sin(torch.outer(modes_at, grid) * math.pi)
    x0 = (grid * (1 - grid) + 0.1 * torch.sin(7 * math.pi * grid))[None]

    def velocity(t: Time, x: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, (1, 1))
        return diffusivity * (size + 1) ** 2 * (padded[:, 2:] - 2 * x + padded[:, :-2])

    coefficients = 2 / (size + 1) * x0 @ modes.mT
    return Problem(
        ODE(velocity),
        x0,
        exact=(coefficients * rates.exp()) @ modes,
        name="heat-100",
        tags=("stiff", "high-dimensional"),
        source=HAIRER,
    )


def kepler(batch: int) -> Problem:
    """Two bodies, eccentricity 0.6, once around: back to where it was."""
    eccentricity = 0.6

    def velocity(t: Time, x: Tensor) -> Tensor:
        place, speed = x[:, :2], x[:, 2:]
        return torch.cat([speed, -place / place.square().sum(1, keepdim=True) ** 1.5], 1)

    x0 = state(1 - eccentricity, 0.0, 0.0, math.sqrt((1 + eccentricity) / (1 - eccentricity)))
    return Problem(
        ODE(velocity, interval=(0.0, 2 * math.pi)),
        x0,
        exact=x0.clone(),
        name="kepler",
        tags=("hamiltonian",),
        source="Geometric Numerical Integration, I.2.3 (Hairer, Lubich & Wanner, 2006), https://doi.org/10.1007/3-540-30666-8",
    )


def jump(batch: int) -> Problem:
    """x' = −x until t = 0.3, then x' = 2 − x."""
    at, level = 0.3, 2.0
    x0 = state(1.0)
    return Problem(
        ODE(lambda t, x: torch.where(t < at, 0.0, level) - x),
        x0,
        exact=level + (x0 * math.exp(-at) - level) * math.exp(at - 1.0),
        breakpoints=(at,),
        name="jump-ode",
        tags=("jump",),
        source="linear decay on two intervals",
    )


def lotka_volterra(batch: int) -> Problem:
    def velocity(t: Time, x: Tensor) -> Tensor:
        prey, predator = x.unbind(-1)
        return torch.stack([1.5 * prey - prey * predator, prey * predator - 3 * predator], -1)

    return stored(
        "lotka-volterra",
        velocity,
        state(1.0, 1.0),
        10.0,
        source="prob_ode_lotkavolterra of ODEProblemLibrary.jl (SciML), https://docs.sciml.ai/DiffEqProblemLibrary",
    )


def lorenz(batch: int) -> Problem:
    def velocity(t: Time, x: Tensor) -> Tensor:
        a, b, c = x.unbind(-1)
        return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)

    return stored(
        "lorenz",
        velocity,
        state(1.0, 0.0, 0.0),
        5.0,
        tags=("chaotic",),
        source="Deterministic nonperiodic flow (Lorenz, 1963), https://doi.org/10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2",
    )


def van_der_pol(strength: float, end: float, name: str, tags: tuple[str, ...] = ()) -> Callable[[int], Problem]:
    def velocity(t: Time, x: Tensor) -> Tensor:
        place, speed = x.unbind(-1)
        return torch.stack([speed, strength * (1 - place * place) * speed - place], -1)

    return lambda batch: stored(name, velocity, state(2.0, 0.0), end, tags=tags, source=HAIRER)


def robertson(batch: int) -> Problem:
    def velocity(t: Time, x: Tensor) -> Tensor:
        a, b, c = x.unbind(-1)
        slow, fast, quick = 0.04 * a, 1e4 * b * c, 3e7 * b * b
        return torch.stack([fast - slow, slow - fast - quick, quick], -1)

    return stored(
        "robertson",
        velocity,
        state(1.0, 0.0, 0.0),
        40.0,
        tags=("stiff",),
        source="The solution of a set of reaction rate equations (Robertson, 1966), in Numerical Analysis: An Introduction",
    )


def brusselator(batch: int) -> Problem:
    def velocity(t: Time, x: Tensor) -> Tensor:
        a, b = x.unbind(-1)
        return torch.stack([1 + a * a * b - 4 * a, 3 * a - a * a * b], -1)

    return stored("brusselator", velocity, state(1.5, 3.0), 20.0, source=f"II.4 of {HAIRER}")


DETERMINISTIC: dict[str, Callable[[int], Problem]] = {
    "linear": linear,
    "logistic": logistic,
    "heat-100": heat,
    "kepler": kepler,
    "jump-ode": jump,
    "lotka-volterra": lotka_volterra,
    "brusselator": brusselator,
    "lorenz": lorenz,
    "van-der-pol-2": van_der_pol(2.0, 10.0, "van-der-pol-2"),
    "van-der-pol-1000": van_der_pol(1000.0, 2000.0, "van-der-pol-1000", ("stiff",)),
    "robertson": robertson,
}
