"""torchsde and torchdiffeq, raw: the calls of their documentation, with their own Brownian motion where none is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdeflow.analysis.peers.call import Call, Counted, raw_diffusion, raw_drift
from sdeflow.analysis.problem import Problem
from sdeflow.brownian import Driver

__all__ = ["Torchdiffeq", "Torchsde"]

LEVY = {"srk": "space-time", "log_ode": "foster"}


class Torchsde:
    """``torchsde.sdeint``."""

    name = package = "torchsde"
    METHODS = ("euler", "milstein", "srk", "midpoint", "heun", "euler_heun", "log_ode", "reversible_heun")

    def rules(self, method: str) -> tuple[str, ...]:
        return ("dt", "tolerance") if method in self.METHODS else ()

    def misfit(self, problem: Problem, method: str) -> str:
        process = problem.process
        if not problem.is_stochastic:
            return "torchsde solves SDEs, and this is an ODE"
        if problem.x0.ndim != 2:
            return f"torchsde wants states (B, D), and these are {tuple(problem.x0.shape)}"
        if problem.span[0] > problem.span[1]:
            return "torchsde runs forward only"
        wants = "ito" if method in ("euler", "milstein", "srk") else "stratonovich"
        if process.calculus != wants and method != "milstein":
            return f"{method} of torchsde is for {wants} SDEs"
        if process.noise == "general" and method in ("milstein", "srk"):
            return f"{method} of torchsde is not for general noise"
        return ""

    def prepare(self, problem: Problem, method: str, rule: str, value: float, path: Driver | None, count: bool) -> Call:
        import torchsde

        process, x0 = problem.process, problem.x0
        f, g = _coefficients(problem, count)
        sde = _RawSDE(f, g, process.noise, process.calculus)
        times = torch.tensor(problem.span, dtype=x0.dtype)
        steps = {"dt": value} if rule == "dt" else {"adaptive": True, "rtol": value, "atol": value, "dt": 1e-2}

        def solve() -> Tensor:
            noise: Any = path
            if path is None and method in LEVY:
                size = (len(x0), 1) if process.noise == "scalar" else tuple(x0.shape)
                noise = torchsde.BrownianInterval(
                    *problem.span, size, dtype=x0.dtype, device=x0.device, levy_area_approximation=LEVY[method]
                )
            with torch.no_grad():
                return torchsde.sdeint(sde, x0, times, bm=noise, method=method, **steps)[-1]  # type: ignore[no-any-return]

        return Call(solve, lambda: (f.calls, g.calls) if count else (0, 0))


class _RawSDE(torch.nn.Module):
    """Coefficients as torchsde wants them; of scalar noise with a column axis, of a constant broadcast."""

    def __init__(self, f: Any, g: Any, noise: str, calculus: str) -> None:
        super().__init__()
        self.noise_type, self.sde_type = noise, calculus
        self.f, self._g = f, g

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        value: Tensor = torch.as_tensor(self._g(t, y), dtype=y.dtype)
        if self.noise_type == "general":
            return value
        value = value.expand_as(y)
        return value[..., None] if self.noise_type == "scalar" else value


class Torchdiffeq:
    """``torchdiffeq.odeint``."""

    name = package = "torchdiffeq"
    FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams")
    ADAPTIVE = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun")

    def rules(self, method: str) -> tuple[str, ...]:
        return ("dt",) if method in self.FIXED else ("tolerance",) if method in self.ADAPTIVE else ()

    def misfit(self, problem: Problem, method: str) -> str:
        return "torchdiffeq solves ODEs, and this is an SDE" if problem.is_stochastic else ""

    def prepare(self, problem: Problem, method: str, rule: str, value: float, path: Driver | None, count: bool) -> Call:
        import torchdiffeq

        f, _ = _coefficients(problem, count)
        times = torch.tensor(problem.span, dtype=problem.x0.dtype)
        steps = {"options": {"step_size": value}} if rule == "dt" else {"rtol": value, "atol": value}

        def solve() -> Tensor:
            with torch.no_grad():
                return torchdiffeq.odeint(f, problem.x0, times, method=method, **steps)[-1]  # type: ignore[no-any-return]

        return Call(solve, lambda: (f.calls, 0) if count else (0, 0))


def _coefficients(problem: Problem, count: bool) -> tuple[Any, Any]:
    f: Any = raw_drift(problem.process)
    g: Any = raw_diffusion(problem.process) if problem.is_stochastic else None
    return (Counted(f), Counted(g) if g is not None else None) if count else (f, g)
