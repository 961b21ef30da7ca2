"""Every method there is, and which one a process gets when none is named."""

from __future__ import annotations

from functools import cache
from typing import Any

from sdeflow.errors import MethodError
from sdeflow.processes.process import Process
from sdeflow.solvers.adaptive import RUNGE_KUTTA_METHODS
from sdeflow.solvers.backends import torchdiffeq_methods, torchsde_methods
from sdeflow.solvers.methods import Method, Methods
from sdeflow.solvers.native import NATIVE_METHODS

__all__ = ["choose_method", "get_method", "methods"]


@cache
def methods() -> Methods:
    """Every method that :func:`sdeflow.solve` knows, with its orders, needs and costs.

    Native methods have plain names; those of the wrapped libraries are ``"torchsde:…"`` and ``"torchdiffeq:…"``, and are
    whatever the installed versions list.

    Example:
        >>> "euler-maruyama" in sf.methods()
        True
    """
    entries = [*NATIVE_METHODS, *RUNGE_KUTTA_METHODS, *torchdiffeq_methods(), *torchsde_methods()]
    return Methods({entry.name: entry for entry in entries})


def get_method(name: object) -> Method:
    """The method of that name, or a MethodError with the nearest."""
    return methods()[name]


def choose_method(name: str | None, process: Process, adaptive: bool, stepping: str, gradient: str) -> Method:
    """The method that was asked for, if it can do this; the default, if none was."""
    chosen = get_method(_default(process, adaptive, gradient) if name is None else name)
    wanted: dict[str, Any] = {"adaptive": adaptive, "stepping": stepping, "gradient": gradient}
    if misfit := chosen.misfit(process, **wanted):
        fitting = methods().fitting(process, **wanted)
        raise MethodError(
            f"method={chosen.name!r} cannot solve this: {misfit}. "
            f"Methods that can{' with adaptive steps' if adaptive else ''}: {', '.join(fitting) or 'none'}."
        )
    return chosen


def _default(process: Process, adaptive: bool, gradient: str) -> str:
    if process.noise == "none":
        native, wrapped = ("tsit5", "torchdiffeq:dopri5") if adaptive else ("rk4", "torchdiffeq:rk4")
        return native if gradient == "backprop" else wrapped
    ito = process.calculus == "ito"
    if adaptive:
        return "torchsde:srk" if ito and (process.additive or process.noise != "general") else "torchsde:midpoint"
    if gradient == "adjoint":
        return "torchsde:euler" if ito else "torchsde:reversible_heun"
    return "euler-maruyama" if ito else "heun"
