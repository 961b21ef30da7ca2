"""Libraries for ODEs besides torchdiffeq, raw: scipy, torchode, zuko, flow_matching."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from sdeflow.analysis.peers.call import Call, Counted, raw_drift
from sdeflow.analysis.problem import Problem
from sdeflow.brownian import Driver

__all__ = ["FlowMatching", "Scipy", "Torchode", "Zuko"]


class OdeLibrary:
    """What the adapters share: no SDEs, and a count of the velocity alone."""

    name: str
    package: str
    TOLERANCE: tuple[str, ...] = ()
    DT: tuple[str, ...] = ()
    FORWARD_ONLY = False

    def rules(self, method: str) -> tuple[str, ...]:
        return ("dt",) if method in self.DT else ("tolerance",) if method in self.TOLERANCE else ()

    def misfit(self, problem: Problem, method: str) -> str:
        if problem.is_stochastic:
            return f"{self.name} solves ODEs, and this is an SDE"
        if self.FORWARD_ONLY and problem.span[0] > problem.span[1]:
            return f"{self.name} runs forward only"
        return ""

    def prepare(self, problem: Problem, method: str, rule: str, value: float, path: Driver | None, count: bool) -> Call:
        velocity: Any = raw_drift(problem.process)
        velocity = Counted(velocity) if count else velocity
        return Call(self.call(problem, method, value, velocity), lambda: (velocity.calls, 0) if count else (0, 0))

    def call(self, problem: Problem, method: str, value: float, velocity: Any) -> Any:
        raise AttributeError(f"{type(self).__name__} has no call")


class Scipy(OdeLibrary):
    """``scipy.integrate.solve_ivp`` on the whole batch as one system, as one would write it."""

    name = package = "scipy"
    TOLERANCE = ("RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA")

    def call(self, problem: Problem, method: str, value: float, velocity: Any) -> Any:
        integrate, x0 = import_module("scipy.integrate"), problem.x0
        start = x0.flatten().double().cpu().numpy()

        def flat(t: float, y: Any) -> Any:
            state = torch.as_tensor(y, dtype=x0.dtype, device=x0.device).reshape(x0.shape)
            return velocity(torch.as_tensor(t, dtype=x0.dtype), state).flatten().cpu().numpy()

        def solve() -> Tensor:
            with torch.no_grad():
                run = integrate.solve_ivp(flat, problem.span, start, method=method, rtol=value, atol=value)
            if not run.success:
                raise RuntimeError(run.message)
            return torch.as_tensor(run.y[:, -1], dtype=x0.dtype, device=x0.device).reshape(x0.shape)

        return solve


class Torchode(OdeLibrary):
    """torchode's ``AutoDiffAdjoint``: every row of ``(B, D)`` on its own step sizes."""

    name = package = "torchode"
    TOLERANCE = ("dopri5", "tsit5", "heun")

    def misfit(self, problem: Problem, method: str) -> str:
        if problem.x0.ndim != 2:
            return f"torchode wants states (B, D), and these are {tuple(problem.x0.shape)}"
        return super().misfit(problem, method)

    def call(self, problem: Problem, method: str, value: float, velocity: Any) -> Any:
        torchode, x0 = import_module("torchode"), problem.x0
        term = torchode.ODETerm(lambda t, x: velocity(t[:, None], x))
        stepper = getattr(torchode, method.capitalize())(term=term)
        controller = torchode.IntegralController(atol=value, rtol=value, term=term)
        solver = torchode.AutoDiffAdjoint(stepper, controller)
        ends = torch.tensor(problem.span, dtype=x0.dtype, device=x0.device).expand(len(x0), 2)

        def solve() -> Tensor:
            with torch.no_grad():
                solution = solver.solve(torchode.InitialValueProblem(y0=x0, t_start=ends[:, 0], t_end=ends[:, 1]))
            if bool((solution.status != 0).any()):
                raise RuntimeError(f"torchode's status is {solution.status.unique().tolist()}")
            return solution.ys[:, -1]  # type: ignore[no-any-return]

        return solve


class Zuko(OdeLibrary):
    """``zuko.utils.odeint``, the integrator of zuko's continuous flows."""

    name = package = "zuko"
    TOLERANCE = ("dopri45",)

    def call(self, problem: Problem, method: str, value: float, velocity: Any) -> Any:
        odeint = import_module("zuko.utils").odeint
        start, end = (torch.tensor(t, dtype=problem.x0.dtype) for t in problem.span)

        def solve() -> Tensor:
            with torch.no_grad():
                return odeint(velocity, problem.x0, start, end, atol=value, rtol=value)  # type: ignore[no-any-return]

        return solve


class FlowMatching(OdeLibrary):
    """``flow_matching.solver.ODESolver``."""

    name = "flow_matching"
    package = "flow_matching"
    DT = ("euler", "midpoint", "heun2", "rk4")
    TOLERANCE = ("dopri5",)

    def call(self, problem: Problem, method: str, value: float, velocity: Any) -> Any:
        solver = import_module("flow_matching.solver").ODESolver(velocity_model=lambda x, t: velocity(t, x))
        grid = torch.tensor(problem.span, dtype=problem.x0.dtype)
        steps = {"step_size": value} if method in self.DT else {"step_size": None, "rtol": value, "atol": value}

        def solve() -> Tensor:
            return solver.sample(x_init=problem.x0, method=method, time_grid=grid, **steps)  # type: ignore[no-any-return]

        return solve
