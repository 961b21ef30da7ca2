"""How much a flow moves, and how straight."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sdeflow.analysis.metrics.measured import Measured
from sdeflow.errors import ArgumentError
from sdeflow.processes import ODE
from sdeflow.solvers import solve

__all__ = ["path_energy", "straightness"]


def path_energy(ode: ODE, x0: Tensor, t: tuple[float, float] | None = None, *, steps: int = 64) -> Measured:
    r"""The energy :math:`E \int |v(t, x_t)|^2 dt` of a flow, with the standard error over samples.

    It is at least :math:`W_2^2(p_0, p_1)` for a flow over a time of 1, and that for straight optimal paths.

    Arguments:
        ode: The flow.
        x0: Where it starts, with shape ``(B, *event)``, B ≥ 2.
        t: (from, to); the interval by default.
        steps: Of fourth order; the integral is by Simpson's rule on them, so they are even.

    Raises:
        ArgumentError: It is not an ODE, there are fewer than two samples, or steps is odd.

    References:
        A computational fluid mechanics solution to the Monge–Kantorovich mass transfer problem (Benamou & Brenier, 2000),
        https://doi.org/10.1007/s002110050002

    Example:
        >>> shift = sf.ODE(lambda t, x: torch.full_like(x, 3.0))
        >>> print(sf.analysis.metrics.path_energy(shift, torch.randn(8, 2)))  # 2 · 3²
        18 ± 0
    """
    _, velocities, width = _along(ode, x0, t, steps)
    return _integral((v.flatten(1).square().sum(1) for v in velocities), width, steps)


def straightness(ode: ODE, x0: Tensor, t: tuple[float, float] | None = None, *, steps: int = 64) -> Measured:
    r"""The straightness :math:`E \int |(x_1 - x_0) - v(t, x_t)|^2 dt`, 0 for straight paths at constant speed.

    Over a span of length T the chord is (x_T − x_0)/T.

    Arguments:
        ode: The flow.
        x0: Where it starts, with shape ``(B, *event)``, B ≥ 2.
        t: (from, to); the interval by default.
        steps: As in :func:`path_energy`.

    Raises:
        ArgumentError: As :func:`path_energy`.

    References:
        Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu et al., 2023),
        https://arxiv.org/abs/2209.03003

    Example:
        >>> turn = sf.ODE(lambda t, x: x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
        >>> bent = sf.analysis.metrics.straightness(turn, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> print(f"{bent.value:.4f}")  # 1 − |chord|² = 1 − (2 sin ½)²
        0.0806
    """
    x, velocities, width = _along(ode, x0, t, steps)
    chord = (x[-1] - x[0]) / (width * steps)
    return _integral(((chord - v).flatten(1).square().sum(1) for v in velocities), width, steps)


def _along(ode: ODE, x0: Tensor, t: tuple[float, float] | None, steps: int) -> tuple[Tensor, Iterator[Tensor], float]:
    """The states at equally spaced times, the velocities there, and the time between, with the sign of the direction."""
    if not isinstance(ode, ODE):
        raise ArgumentError(f"{type(ode).__name__} has no velocity; give an sf.ODE, such as a probability flow.")
    if not isinstance(x0, Tensor) or x0.ndim < 2 or len(x0) < 2:
        raise ArgumentError("x0 needs the shape (B, *event), and at least two samples for a standard error.")
    if steps < 2 or steps % 2:
        raise ArgumentError(f"steps={steps!r} is not an even number ≥ 2.")
    start, end = t if t is not None else ode.interval[:: ode.direction]
    times = torch.linspace(start, end, steps + 1, dtype=torch.float64)
    with torch.no_grad():
        x = solve(ode, x0, times, method="rk4", steps=steps).x
    velocities = (ode.drift(time, state).detach() for time, state in zip(times.tolist(), x, strict=True))
    return x, velocities, (end - start) / steps


def _integral(values: Iterator[Tensor], width: float, steps: int) -> Measured:
    """Simpson's rule along the first axis; the mean over samples, and its standard error."""
    weights = [1.0, *([4.0, 2.0] * (steps // 2))[:-1], 1.0]
    total = sum(
        (w * v.double() for w, v in zip(weights, values, strict=True)), start=torch.zeros((), dtype=torch.float64)
    )
    assert isinstance(total, Tensor)
    each = total * abs(width) / 3
    return Measured(each.mean().item(), stderr=each.std().item() / len(each) ** 0.5)
