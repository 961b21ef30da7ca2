"""The order of a method, measured: errors at several step sizes on one path, and the slope that they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdeflow.analysis.fit import KINDS, OrderFit, fit_order
from sdeflow.analysis.given import GivenIncrement, normal_quadrature
from sdeflow.analysis.problem import Moment, Problem
from sdeflow.brownian import Driver
from sdeflow.errors import ArgumentError, SolveError, choose
from sdeflow.solvers.methods import noise_class
from sdeflow.solvers.noise import noise_shape
from sdeflow.solvers.registry import get_method

__all__ = ["Order", "order"]

Functional = Callable[[Tensor], Tensor]

MOST_ROWS = 2**20  # of a quadrature


@dataclass(frozen=True)
class Order:
    """The measured order of a method.

    Attributes:
        problem: Its name.
        method: Its name.
        kind: ``"strong"``, ``"weak"`` or ``"ode"``.
        noise: The class of the problem's noise; ``"none"`` for an ODE.
        fit: Slope, interval, points, floor and range of the fit. Local weak errors, by quadrature, are divided by the step,
            so that the slope is the order here too.
        claim: What the registry says of the method on this class of noise, or None.
        failed: Step sizes at which the solve failed, and why.
    """

    problem: str
    method: str
    kind: str
    noise: str
    fit: OrderFit
    claim: float | None
    failed: dict[float, str]

    @property
    def slope(self) -> float:
        return self.fit.slope

    @property
    def interval(self) -> tuple[float, float]:
        return self.fit.low, self.fit.high

    def __str__(self) -> str:
        claim = "no claim" if self.claim is None else f"claim {self.claim:g}"
        failed = f"; failed at {', '.join(f'{dt:.3g}' for dt in self.failed)}" if self.failed else ""
        return f"{self.method} on {self.problem}: {self.kind} {self.fit} ({claim}){failed}"

    def plot(self) -> Any:
        """Errors, slope and floor, a matplotlib figure (extra ``plot``)."""
        from sdeflow.plotting import convergence

        return convergence(
            self.fit.dts,
            [abs(error) for error in self.fit.errors],
            stderr=self.fit.stderr,
            floor=self.fit.floor,
            used=self.fit.used,
            slope=self.slope,
            interval=self.interval,
            claim=self.claim,
            title=f"{self.method}, {self.problem}",
            y_label=f"{self.kind} error",
        )


def order(
    problem: Problem,
    method: str,
    dts: Sequence[float],
    kind: str | None = None,
    *,
    function: str | Functional | None = None,
    quadrature: int | None = None,
    powers: str = "whole",
    seed: int = 0,
    level: float = 0.95,
) -> Order:
    r"""Measure the order of a method on a problem, with an interval.

    - ``"strong"``: root-mean-square distance to the truth at the end, over paths. All step sizes and the truth are driven by
      one Brownian path, whose cells are the finest grid.
    - ``"weak"``: :math:`E\varphi(x_h) - E\varphi(x)`. Where the truth is known pathwise, the mean is of the difference on
      one path, whose spread falls with the step (common random numbers); for a known moment it is of φ(x_h) minus the moment,
      all step sizes on one path. With ``quadrature``, the error of *one* step of each size from the first row of x0, by
      Gauss–Hermite quadrature over (W, H), divided by the step: no Monte Carlo at all.
    - ``"ode"``: root-mean-square distance to the truth at the end, over samples and coordinates.

    Which points enter the fit, and how its interval comes about: :func:`fit_order`. The floor of strong and ode errors is the
    accuracy of the truth; for a reference solution, its distance to one with half the steps.

    Arguments:
        problem: What to solve, and what is right. For an SDE, the batch of x0 are the paths.
        method: A name of :func:`sdeflow.methods` with fixed steps.
        dts: Step sizes, each of which divides the span into a whole number of steps (for quadrature: any).
        kind: What is measured; by default ``"ode"`` for an ODE and ``"strong"`` for an SDE.
        function: φ of weak errors: the name of one of the problem's moments, or a function from states to ``(B,)``; by default
            the first moment that is known, else the mean square of the coordinates.
        quadrature: Nodes in each dimension of the noise of a step; it needs a moment.
        powers: ``"half"`` for methods with √h in their stages, as stochastic Runge–Kutta methods; see :func:`fit_order`.
        seed: Of the path.
        level: The probability of the interval.

    Raises:
        ArgumentError: An argument does not fit, or fewer than 3 errors are above the floor.
        MethodError: The method is not known, or cannot solve the problem.

    References:
        Strong and weak convergence: Numerical Solution of Stochastic Differential Equations (Kloeden & Platen, 1992),
        https://doi.org/10.1007/978-3-662-12616-5; coupled paths: An algorithmic introduction to numerical simulation of
        stochastic differential equations (Higham, 2001), https://doi.org/10.1137/S0036144500378302

    Example:
        >>> gbm = sf.analysis.problems.build("gbm", batch=400)
        >>> measured = sf.analysis.order(gbm, "euler-maruyama", [2.0**-k for k in range(3, 8)])
        >>> measured.interval[0] < 0.5 < measured.interval[1]
        True
    """
    kind = choose("kind", kind or ("strong" if problem.is_stochastic else "ode"), KINDS)
    if (kind == "ode") == problem.is_stochastic:
        raise ArgumentError(f"kind={kind!r} is not for {'an SDE' if problem.is_stochastic else 'an ODE'}.")
    if (function is not None or quadrature is not None) and kind != "weak":
        raise ArgumentError(f"function= and quadrature= are for kind='weak', and this is kind={kind!r}.")
    entry = get_method(method)
    if not entry.fixed:
        raise ArgumentError(f"method={method!r} chooses its steps, and an order is of steps that are given.")
    sizes = _sizes(problem, dts, quadrature is not None)
    claims = {"strong": entry.strong_order, "weak": entry.weak_order}
    claim = entry.ode_order if kind == "ode" else claims[kind].get(noise_class(problem.process))
    if quadrature is not None:
        return _local(problem, method, sizes, _moment(problem, function), quadrature, claim, powers=powers, level=level)
    path = _path(problem, method, sizes, seed)
    ends, failed = _ends(problem, method, sizes, path)
    if kind == "weak":
        errors, floor = _weak(problem, ends, path, function), 0.0
    else:
        truth, floor = problem.truth(path), problem.doubt(path)
        apart = torch.stack([(x - truth).flatten(1).square().mean(1) for x in ends.values()], 1)
        errors = apart.mean(0).sqrt() if kind == "ode" else apart.sqrt()
    fit = fit_order(list(ends), errors, kind=kind, floor=floor, powers=powers, level=level)
    return Order(problem.name, method, kind, noise_class(problem.process), fit, claim, failed)


def _sizes(problem: Problem, dts: Sequence[float], one_step: bool) -> list[float]:
    sizes = sorted({float(dt) for dt in dts}, reverse=True)
    if len(sizes) < 3 or not sizes[-1] > 0 or sizes[0] > problem.length * (1 + 1e-9):
        raise ArgumentError(f"dts={list(dts)!r}: give at least three positive step sizes, at most the span.")
    uneven = [dt for dt in sizes if abs(problem.length / dt - round(problem.length / dt)) > 1e-6]
    if uneven and not one_step:
        raise ArgumentError(
            f"dt={uneven[0]:g} does not divide the span of {problem.length:g} into a whole number of steps; "
            f"dt={problem.length / round(problem.length / uneven[0]):g} does."
        )
    return sizes


def _path(problem: Problem, method: str, sizes: Sequence[float], seed: int) -> Driver | None:
    cells = round(problem.length / sizes[-1])
    if problem.reference is not None and isinstance(problem.reference.get("steps"), int):
        cells = max(cells, problem.reference["steps"])
    return problem.path(cells, seed=seed, levy=problem.needs_levy([method]))


def _ends(
    problem: Problem, method: str, sizes: Sequence[float], path: Driver | None
) -> tuple[dict[float, Tensor], dict[float, str]]:
    """The end state at each step size; where a solve fails, why."""
    noise = {} if path is None else {"brownian": path}
    ends, failed = dict[float, Tensor](), dict[float, str]()
    for dt in sizes:
        try:
            ends[dt] = problem.solve(method=method, steps=round(problem.length / dt), **noise).final
        except SolveError as error:
            failed[dt] = str(error)
    if len(ends) < 3:
        raise ArgumentError(
            f"method={method!r} fails on {problem.name!r} at {len(failed)} of {len(sizes)} step sizes; give smaller ones. "
            f"The first failure: {next(iter(failed.values()))}"
        )
    return ends, failed


def _moment(problem: Problem, function: str | Functional | None) -> Moment | None:
    """The moment that is meant, where one is."""
    if callable(function) or (function is None and not problem.moments):
        return None
    return problem.moments[choose("function", function or next(iter(problem.moments)), problem.moments)]


def _mean_square(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1)


def _weak(
    problem: Problem, ends: dict[float, Tensor], path: Driver | None, function: str | Functional | None
) -> Tensor:
    moment = _moment(problem, function)
    phi = moment.function if moment is not None else function if callable(function) else _mean_square
    if problem.truth_is in ("exact", "stored", "reference"):
        target: Tensor | float = phi(problem.truth(path))
    elif moment is not None:
        target = moment.value(problem.span[1])
    else:
        raise ArgumentError(
            f"of {problem.name!r} only the moments {', '.join(map(repr, problem.moments))} are known; name one as function=."
        )
    return torch.stack([phi(x) - target for x in ends.values()], 1)


def _local(
    problem: Problem,
    method: str,
    sizes: Sequence[float],
    moment: Moment | None,
    nodes: int,
    claim: float | None,
    **fitting: Any,
) -> Order:
    """One step of each size from the first row of x0, by quadrature over its noise."""
    if moment is None:
        raise ArgumentError(f"quadrature= compares with a known moment, and {problem.name!r} was not asked for one.")
    if not bool((problem.x0 == problem.x0[:1]).all()):
        raise ArgumentError(f"quadrature= is from one state, and the rows of x0 of {problem.name!r} differ.")
    start, end = problem.span
    if end < start:
        raise ArgumentError("quadrature= is for processes that run forward; flip() makes this one so.")
    process, first = problem.process, problem.x0[:1].double()
    _, *event = noise_shape(process, start, first)  # type: ignore[arg-type]
    levy = problem.needs_levy([method])
    size = 1
    for axis in event:
        size *= axis
    dimensions = size * (2 if levy else 1)
    if nodes**dimensions > MOST_ROWS:
        raise ArgumentError(
            f"quadrature={nodes} in {dimensions} dimensions of noise are {nodes}^{dimensions} nodes; give fewer, or paths."
        )
    z, weights = normal_quadrature(nodes, dimensions)
    errors = []
    for dt in sizes:
        W = (z[:, :size] * dt**0.5).reshape(-1, *event)
        H = (z[:, size:] * (dt / 12) ** 0.5).reshape(-1, *event) if levy else None
        step = Problem(process, first.expand(len(z), *first.shape[1:]), (start, start + dt), moments=problem.moments)
        after = step.solve(method=method, steps=1, brownian=GivenIncrement(W, H, start, start + dt)).final
        errors.append((weights @ moment.function(after) - moment.value(start + dt)) / dt)
    rounding = 8 * torch.finfo(torch.float64).eps * abs(moment.value(start)) / sizes[-1]
    fit = fit_order(sizes, torch.stack(errors), kind="ode", floor=float(rounding), **fitting)
    return Order(problem.name, method, "weak", noise_class(process), fit, claim, {})
