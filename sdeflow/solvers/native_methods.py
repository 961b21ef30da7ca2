"""The native methods of fixed steps: what each can do, and what steps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdeflow.solvers import stochastic_tableaus as tableaus
from sdeflow.solvers.exponential import EXPONENTIAL_METHODS, EXPONENTIAL_STEPPERS
from sdeflow.solvers.implicit import ImplicitEuler
from sdeflow.solvers.methods import Limit, Method
from sdeflow.solvers.milstein import DerivativeFreeMilstein, Milstein
from sdeflow.solvers.rossler import Rossler
from sdeflow.solvers.rungekutta import RungeKutta
from sdeflow.solvers.terms import Stepper

__all__ = ["NATIVE_METHODS", "STEPPERS"]

STEPPERS: Mapping[str, Stepper] = {
    "euler": RungeKutta(tableaus.EULER),
    "euler-maruyama": RungeKutta(tableaus.EULER),
    "milstein": Milstein(),
    "milstein-derivative-free": DerivativeFreeMilstein(),
    "euler-heun": RungeKutta(tableaus.EULER_HEUN),
    "heun": RungeKutta(tableaus.HEUN),
    "midpoint": RungeKutta(tableaus.MIDPOINT),
    "rk4": RungeKutta(tableaus.RK4),
    "sea": RungeKutta(tableaus.SEA),
    "shark": RungeKutta(tableaus.SHARK),
    "sra1": RungeKutta(tableaus.SRA1),
    "sosra": RungeKutta(tableaus.SOSRA),
    "sriw1": Rossler(tableaus.SRIW1),
    "sosri": Rossler(tableaus.SOSRI),
    "slowrk": RungeKutta(tableaus.SLOWRK),
    "spark": RungeKutta(tableaus.SPARK),
    "general-shark": RungeKutta(tableaus.GENERAL_SHARK),
    "implicit-euler-maruyama": ImplicitEuler(),
    **EXPONENTIAL_STEPPERS,
}

# "Diagonal" means that coordinate i of the diffusion depends on coordinate i only, and "commutative" that the columns of
# a general one commute. Where a method has no order for general noise, solve() looks whether that is so.
_COMMUTING = ("additive", "diagonal", "scalar", "commutative")
_ALL = (*_COMMUTING, "general")
_ITO = ("diagonal", "scalar")

_KLOEDEN = "Numerical Solution of Stochastic Differential Equations (Kloeden & Platen, 1992), https://doi.org/10.1007/978-3-662-12616-5"
_MARUYAMA = "Continuous Markov processes and stochastic equations (Maruyama, 1955), https://doi.org/10.1007/BF02846028"
_ROSSLER = (
    "Runge–Kutta methods for the strong approximation of solutions of stochastic differential equations "
    "(Rößler, 2010), https://doi.org/10.1137/09076636X"
)
_RACKAUCKAS = (
    "Stability-optimized high order methods and stiffness detection for pathwise stiff stochastic differential "
    "equations (Rackauckas & Nie, 2018), https://arxiv.org/abs/1804.04344"
)
_FOSTER = (
    "High order splitting methods for SDEs satisfying a commutativity condition "
    "(Foster, dos Reis & Strange, 2022), https://arxiv.org/abs/2210.17543"
)
_SPARK = (
    "On the convergence of adaptive approximations for stochastic differential equations "
    "(Foster & Jelinčič, 2023), https://arxiv.org/abs/2311.14201"
)


def _orders(kinds: tuple[str, ...], order: float, **others: float) -> dict[str, float]:
    return {**dict.fromkeys(kinds, order), **others}


_ODE_STEPS = Limit(
    "its steps adapt to noise, and without noise 'tsit5' and its like are better at it", noise=("none",), adaptive=True
)


def _method(name: str, drift: int | None, diffusion: int, paper: str, **known: Any) -> Method:
    adaptive = bool(diffusion) and STEPPERS[name].error_order is not None
    return Method(
        name,
        "native",
        drift_evaluations=drift,
        diffusion_evaluations=diffusion or None,
        adaptive=adaptive,
        stepping=("shared", "per-sample") if adaptive else ("shared",),
        limits=(_ODE_STEPS,) if adaptive else (),
        paper=paper,
        **{"needs": ("W",) if diffusion else (), "gradients": ("backprop", "checkpoint"), **known},
    )


_ADDITIVE: dict[str, Any] = {
    "strong_order": {"additive": 1.5},
    "weak_order": {"additive": 2.0},
    "needs": ("W", "H"),
}

NATIVE_METHODS = (
    _method(
        "euler-maruyama",
        1,
        1,
        _MARUYAMA,
        strong_order=_orders(_ALL, 0.5, additive=1.0),
        weak_order=_orders(_ALL, 1.0),
        calculus="ito",
    ),
    _method(
        "milstein",
        1,
        1,
        "Approximate integration of stochastic differential equations (Milstein, 1974), https://doi.org/10.1137/1119062",
        strong_order=_orders(_COMMUTING, 1.0),
        weak_order=_orders(_COMMUTING, 1.0),
    ),
    _method(
        "milstein-derivative-free",
        1,
        2,
        _KLOEDEN,
        strong_order=_orders(_ITO, 1.0),
        weak_order=_orders(_ITO, 1.0),
        calculus="ito",
    ),
    _method(
        "implicit-euler-maruyama",
        None,
        1,
        _KLOEDEN,
        strong_order=_orders(_ALL, 0.5, additive=1.0),
        weak_order=_orders(_ALL, 1.0),
        calculus="ito",
    ),
    _method(
        "euler-heun",
        1,
        2,
        _KLOEDEN,
        strong_order=_orders(_ALL, 1.0, general=0.5),
        weak_order=_orders(_ALL, 1.0),
        calculus="stratonovich",
    ),
    _method(
        "heun",
        2,
        2,
        _KLOEDEN,
        ode_order=2,
        strong_order=_orders(_ALL, 1.0, general=0.5),
        weak_order=_orders(_ALL, 1.0, additive=2.0),
        calculus="stratonovich",
    ),
    _method(
        "midpoint",
        2,
        2,
        _KLOEDEN,
        ode_order=2,
        strong_order=_orders(_ALL, 1.0, general=0.5),
        weak_order=_orders(_ALL, 1.0),
        calculus="stratonovich",
    ),
    _method("sea", 1, 1, _FOSTER, strong_order={"additive": 1.0}, weak_order={"additive": 1.0}, needs=("W", "H")),
    _method("shark", 2, 1, _FOSTER, **_ADDITIVE),
    _method("sra1", 2, 1, _ROSSLER, **_ADDITIVE),
    _method("sosra", 3, 2, _RACKAUCKAS, **_ADDITIVE),
    _method(
        "sriw1",
        2,
        4,
        _ROSSLER,
        strong_order=_orders(_ITO, 1.5),
        weak_order=_orders(_ITO, 1.5),
        calculus="ito",
        needs=("W", "H"),
    ),
    _method(
        "sosri",
        4,
        4,
        _RACKAUCKAS,
        strong_order=_orders(_ITO, 1.5),
        weak_order=_orders(_ITO, 1.5),
        calculus="ito",
        needs=("W", "H"),
    ),
    _method(
        "slowrk",
        2,
        5,
        _FOSTER,
        strong_order=_orders(_COMMUTING, 1.5),
        weak_order=_orders(_COMMUTING, 2.0),
        calculus="stratonovich",
        needs=("W", "H"),
    ),
    _method(
        "spark",
        3,
        3,
        _SPARK,
        strong_order=_orders(_ALL, 1.0, additive=1.5, general=0.5),
        weak_order=_orders(_ALL, 1.0, additive=2.0),
        calculus="stratonovich",
        needs=("W", "H"),
    ),
    _method(
        "general-shark",
        2,
        3,
        _FOSTER,
        strong_order=_orders(_ALL, 1.0, additive=1.5, general=0.5),
        weak_order=_orders(_ALL, 1.0, additive=2.0),
        calculus="stratonovich",
        needs=("W", "H"),
    ),
    _method("euler", 1, 0, "Institutionum calculi integralis, vol. 1 (Euler, 1768)", ode_order=1),
    _method(
        "rk4",
        4,
        0,
        "Beitrag zur näherungsweisen Integration totaler Differentialgleichungen (Kutta, 1901)",
        ode_order=4,
    ),
    *EXPONENTIAL_METHODS,
)
