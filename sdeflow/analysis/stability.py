r"""Where a method damps what the equation damps: stability regions, from the method's own steps.

The test equation of SDEs, in the sense of Itô, is :math:`dX = \lambda X\,dt + \mu X\,dW` with real λ and μ. Its mean square
goes to zero where :math:`2\lambda + \mu^2 < 0`; that of a method with step h goes to zero where the amplification
:math:`R = E|X_1 / X_0|^2 < 1`, a function of λh and μ²h alone. For ODEs it is :math:`|X_1 / X_0|^2` of :math:`X' = \lambda X`,
a function of the complex λh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdeflow.analysis.given import GivenIncrement, normal_quadrature
from sdeflow.errors import ArgumentError, MethodError
from sdeflow.processes import ODE, SDE
from sdeflow.solvers import Method, solve
from sdeflow.solvers.registry import get_method

__all__ = ["Stability", "amplification", "stability"]

NODES = 12  # of Gauss–Hermite in each of W and H: exact for steps of degree 11 in the noise


@dataclass(frozen=True, eq=False)
class Stability:
    """The amplification of one step, on a grid.

    Attributes:
        method: Its name.
        stochastic: Whether it is the mean-square region of an SDE's method, or the region of an ODE's.
        drift: λh (SDE), Re λh (ODE), with shape ``(columns,)``.
        other: μ²h (SDE), Im λh (ODE), with shape ``(rows,)``.
        amplification: E|X₁/X₀|², with shape ``(rows, columns)``; the method is stable where it is below 1.
    """

    method: str
    stochastic: bool
    drift: Tensor
    other: Tensor
    amplification: Tensor

    @property
    def stable(self) -> Tensor:
        """Where the method damps, ``(rows, columns)``."""
        return self.amplification < 1

    @property
    def growth(self) -> Tensor:
        """The rate of growth of the equation over a step, of its mean square or its modulus squared, ``(rows, columns)``."""
        return 2 * self.drift + (1.0 if self.stochastic else 0.0) * self.other[:, None]

    @property
    def should_be_stable(self) -> Tensor:
        """Where the equation damps, ``(rows, columns)``."""
        return self.growth < 0

    def plot(self) -> Any:
        """The region, a matplotlib figure (extra ``plot``)."""
        from sdeflow.plotting import stability_region

        axes = ("λh", "μ²h") if self.stochastic else ("Re λh", "Im λh")
        return stability_region(
            self.drift,
            self.other,
            self.amplification,
            self.growth,
            title=self.method,
            labels=axes,
            complex_plane=not self.stochastic,
        )


def amplification(method: str, drift: Any, other: Any) -> Tensor:
    """E|X₁/X₀|² of one step of the method on the test equation, with the shape of the arguments.

    The expectation over W, and over H where the method needs it, is by Gauss–Hermite quadrature, which is exact up to
    rounding for every method that is a polynomial of the noise.

    Arguments:
        method: A name of :func:`sdeflow.methods`.
        drift: λh for an SDE's method, Re λh for an ODE's.
        other: μ²h ≥ 0, or Im λh.

    Raises:
        ArgumentError: μ²h is negative.
        MethodError: The method takes no fixed steps, more than one step at a time, or cannot solve the test equation.

    Example:
        Euler–Maruyama multiplies the mean square by (1 + λh)² + μ²h.

        >>> sf.analysis.amplification("euler-maruyama", -0.5, 0.3)
        tensor(0.5500, dtype=torch.float64)
    """
    entry = get_method(method)
    real, second = torch.broadcast_tensors(
        torch.as_tensor(drift, dtype=torch.float64), torch.as_tensor(other, dtype=torch.float64)
    )
    if not entry.fixed or "adams" in method:
        raise MethodError(
            f"method={method!r} has no amplification of one step: it "
            f"{'uses earlier steps' if entry.fixed else 'chooses its steps'}."
        )
    shape, real, second = real.shape, real.flatten(), second.flatten()
    if not entry.strong_order:
        return _deterministic(method, real, second).reshape(shape)
    if bool((second < 0).any()):
        raise ArgumentError(f"μ²h = {float(second.min()):g} is negative; it is a square times a step.")
    return _mean_square(entry, real, second).reshape(shape)


def stability(
    method: str,
    drift: tuple[float, float] | None = None,
    other: tuple[float, float] | None = None,
    *,
    points: int = 101,
) -> Stability:
    """The stability region of a method: in the mean square for SDEs, of the complex plane for ODEs.

    Arguments:
        method: A name of :func:`sdeflow.methods` with fixed steps.
        drift: The range of λh (ODE: its real part); (−4, 1) by default.
        other: The range of μ²h, (0, 6) by default; of the imaginary part for an ODE, (−4, 4).
        points: Of the grid, along each axis.

    Raises:
        ArgumentError: A range is empty, or of negative μ²h.
        MethodError: As :func:`amplification`.

    References:
        Mean-square and asymptotic stability of the stochastic theta method (Higham, 2000),
        https://doi.org/10.1137/S003614299834736X

    Example:
        >>> region = sf.analysis.stability("euler-maruyama", points=21)
        >>> bool((region.stable & ~region.should_be_stable).any())  # Euler–Maruyama never damps what grows
        False
    """
    stochastic = bool(get_method(method).strong_order)
    columns = _axis("drift", (-4.0, 1.0) if drift is None else drift, points)
    rows = _axis("other", ((0.0, 6.0) if stochastic else (-4.0, 4.0)) if other is None else other, points)
    return Stability(method, stochastic, columns, rows, amplification(method, columns[None, :], rows[:, None]))


def _axis(name: str, ends: tuple[float, float], points: int) -> Tensor:
    if not ends[0] < ends[1]:
        raise ArgumentError(f"{name}={ends!r} is an empty range; give (from, to) with from < to.")
    if points < 2:
        raise ArgumentError(f"points={points!r} make no grid; give at least 2.")
    return torch.linspace(ends[0], ends[1], points, dtype=torch.float64)


def _deterministic(method: str, real: Tensor, imaginary: Tensor) -> Tensor:
    def velocity(t: Tensor, x: Tensor) -> Tensor:
        re, im = x.unbind(-1)
        return torch.stack([real * re - imaginary * im, imaginary * re + real * im], -1)

    start = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(real), 2)
    with torch.no_grad():
        return solve(ODE(velocity), start, method=method, steps=1, on_failure="return").final.square().sum(1)


def _mean_square(entry: Method, drift: Tensor, square: Tensor) -> Tensor:
    levy = bool({"H", "A"} & set(entry.needs))
    nodes, weights = normal_quadrature(NODES, 2 if levy else 1)
    # One row for each point of the grid and node of the noise, on a step of length 1.
    W = nodes[:, :1].repeat(len(drift), 1)
    H = (nodes[:, 1:] / 12**0.5).repeat(len(drift), 1) if levy else None
    calculus = "stratonovich" if entry.calculus == "stratonovich" else "ito"
    ito_drift = drift - square / 2 if calculus == "stratonovich" else drift
    rate = ito_drift.repeat_interleave(len(weights))[:, None]
    noise = square.sqrt().repeat_interleave(len(weights))[:, None]
    process = SDE(lambda t, x: rate * x, lambda t, x: noise * x, calculus=calculus)
    with torch.no_grad():
        solution = solve(
            process,
            torch.ones_like(W),
            method=entry.name,
            steps=1,
            brownian=GivenIncrement(W, H, 0.0, 1.0),
            on_failure="return",
        )
    return solution.final.square().reshape(len(drift), len(weights)) @ weights
