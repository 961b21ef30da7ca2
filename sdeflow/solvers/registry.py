"""Every method there is, and which one a process gets when none is named."""

from __future__ import annotations

from functools import cache
from typing import Any

from sdeflow.errors import MethodError
from sdeflow.processes.process import Process
from sdeflow.solvers.adaptive import RUNGE_KUTTA_METHODS
from sdeflow.solvers.backends import torchdiffeq_methods, torchsde_methods
from sdeflow.solvers.methods import Method, Methods, noise_class
from sdeflow.solvers.native_methods import NATIVE_METHODS

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
    """The method for a process when none is named.

    With fixed steps of an SDE, by strong error against evaluations of drift and diffusion, measured on noise of each class that
    depends on time and, but for additive noise, not linearly on the state:

    - additive: ``shark``. Its error is the smallest at every cost from 12 evaluations for a unit of time on (4 steps: .048, for
      Euler–Maruyama's .20; at 96 evaluations .0017 and .024), and it never asks for the drift at the end of a step.
    - Stratonovich, scalar or commutative: ``slowrk``, .019 for Heun's .045 at 56 evaluations, .0007 for .007 at 448.
    - Stratonovich, diagonal or general: ``heun``, which is right for both and has order 1 wherever the noise commutes.
    - Itô otherwise: ``euler-maruyama``. ``sriw1`` is far better at small errors (.01 for about 260 evaluations against more
      than 5,000) and not at large ones (.12 and .15 at 48), but it is for elementwise noise only, and asks for the diffusion at
      x − 5√h g, which a square root in it may not survive. A default does not fail where a plain method would not.

    With adaptive steps, by evaluations for the same error: ``shark``, ``sriw1`` (a stage that fails is a step that is
    rejected), ``slowrk``, and ``spark`` where Stratonovich noise need not commute. Itô noise that is general has no native
    method with an error estimate: in Stratonovich form it has.
    """
    if process.noise == "none":
        native, wrapped = ("tsit5", "torchdiffeq:dopri5") if adaptive else ("rk4", "torchdiffeq:rk4")
        return wrapped if gradient == "adjoint" else native
    ito, kind = process.calculus == "ito", noise_class(process)
    if gradient == "adjoint":
        if adaptive:
            return "torchsde:srk" if ito and kind in ("additive", "diagonal", "scalar") else "torchsde:midpoint"
        return "torchsde:euler" if ito else "torchsde:reversible_heun"
    if kind == "additive":
        return "shark"
    if kind in ("scalar", "commutative") and not ito:
        return "slowrk"
    if adaptive:
        return "sriw1" if ito and kind in ("diagonal", "scalar") else "spark"
    return "euler-maruyama" if ito else "heun"
