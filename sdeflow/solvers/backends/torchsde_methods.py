"""What torchsde's methods can do: an entry for each name in the installed version's own table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchsde.settings import METHODS

from sdeflow.solvers.methods import Limit, Method

__all__ = ["torchsde_methods"]

_ALL = ("additive", "diagonal", "scalar", "general")
_COMMUTING = ("additive", "diagonal", "scalar")
_KLOEDEN = "Numerical Solution of Stochastic Differential Equations (Kloeden & Platen, 1992), https://doi.org/10.1007/978-3-662-12616-5"
_BURRAGE = (
    "Numerical methods for strong solutions of stochastic differential equations: an overview "
    "(Burrage, Burrage & Tian, 2004), https://doi.org/10.1098/rspa.2003.1247"
)
_REVERSIBLE = "Efficient and accurate gradients for neural SDEs (Kidger, Foster, Li & Lyons, 2021), https://arxiv.org/abs/2105.13493"

_EULER_BACKWARD = Limit(
    "its backward pass would be Euler–Maruyama with adaptive steps, which does not converge for this noise "
    "(take fixed steps, or gradient='backprop')",
    noise=("scalar",),
    calculus="ito",
    adaptive=True,
    gradient="adjoint",
)


def _orders(kinds: tuple[str, ...], order: float, **others: float) -> dict[str, float]:
    return {**dict.fromkeys(kinds, order), **others}


def _method(name: str, evaluations: tuple[int, int], **known: Any) -> Method:
    return Method(
        f"torchsde:{name}",
        "torchsde",
        drift_evaluations=evaluations[0],
        diffusion_evaluations=evaluations[1],
        **{
            "needs": ("W",),
            "adaptive": True,
            "gradients": ("backprop", "adjoint"),
            "options": {"method": name},
            **known,
        },
    )


# "Diagonal" in the orders means that coordinate i of the diffusion depends on coordinate i only (commutative noise).
_KNOWN: Mapping[str, Method] = {
    "euler": _method(
        "euler",
        (1, 1),
        strong_order=_orders(_ALL, 0.5, additive=1.0),
        weak_order=_orders(_ALL, 1.0),
        calculus="ito",
        limits=(
            Limit(
                "adaptive steps with it do not converge unless the noise is additive",
                noise=("diagonal", "scalar", "general"),
                adaptive=True,
            ),
        ),
        paper="Continuous Markov processes and stochastic equations (Maruyama, 1955), https://doi.org/10.1007/BF02846028",
    ),
    "milstein": _method(
        "milstein",
        (1, 1),
        strong_order=_orders(_COMMUTING, 1.0),
        weak_order=_orders(_COMMUTING, 1.0),
        limits=(_EULER_BACKWARD,),
        paper="Approximate integration of stochastic differential equations (Milstein, 1974), https://doi.org/10.1137/1119062",
    ),
    "srk": _method(
        "srk",
        (10, 10),
        strong_order=_orders(_COMMUTING, 1.5),
        weak_order=_orders(_COMMUTING, 1.5, additive=2.0),
        calculus="ito",
        needs=("W", "H"),
        limits=(_EULER_BACKWARD,),
        paper="Runge–Kutta methods for the strong approximation of solutions of stochastic differential equations "
        "(Rößler, 2010), https://doi.org/10.1137/09076636X",
    ),
    "euler_heun": _method(
        "euler_heun",
        (1, 2),
        strong_order=_orders(_ALL, 1.0, general=0.5),
        weak_order=_orders(_ALL, 1.0),
        calculus="stratonovich",
        paper=_KLOEDEN,
    ),
    "heun": _method(
        "heun",
        (2, 2),
        strong_order=_orders(_ALL, 1.0, general=0.5),
        weak_order=_orders(_ALL, 1.0, additive=2.0),
        calculus="stratonovich",
        paper=_BURRAGE,
    ),
    "midpoint": _method(
        "midpoint",
        (2, 2),
        strong_order=_orders(_ALL, 1.0, general=0.5),
        weak_order=_orders(_ALL, 1.0),
        calculus="stratonovich",
        paper=_KLOEDEN,
    ),
    "log_ode": _method(
        "log_ode",
        (2, 2),
        strong_order=_orders(_ALL, 1.0, general=0.5),
        weak_order=_orders(_COMMUTING, 1.0),  # with general noise it is not measured
        calculus="stratonovich",
        needs=("W", "H", "A"),
        paper="An optimal polynomial approximation of Brownian motion (Foster, Lyons & Oberhauser, 2020), https://arxiv.org/abs/1904.06998",
    ),
    "reversible_heun": _method(
        "reversible_heun",
        (1, 1),
        strong_order=_orders(_ALL, 0.5, additive=1.0),
        weak_order=_orders(_ALL, 1.0, additive=2.0),
        calculus="stratonovich",
        limits=(
            Limit(
                "its backward pass retraces equal steps, and torchsde does not keep adaptive ones, so that gradients "
                "are wrong by up to 3 % (take fixed steps, or gradient='backprop')",
                noise=_ALL,
                adaptive=True,
                gradient="adjoint",
            ),
        ),
        paper=_REVERSIBLE,
    ),
    "adjoint_reversible_heun": Method(
        "torchsde:adjoint_reversible_heun",
        "torchsde",
        options={"method": "adjoint_reversible_heun"},
        refusal="it is the backward pass of method='torchsde:reversible_heun' with gradient='adjoint', "
        "not a method of its own",
        paper=_REVERSIBLE,
    ),
}

_GRADIENT_FREE = _method(
    "milstein-grad-free",
    (1, 2),
    strong_order=_orders(_COMMUTING, 1.0),
    weak_order=_orders(_COMMUTING, 1.0),
    calculus="ito",
    options={"method": "milstein", "options": {"grad_free": True}},
    limits=(
        Limit(
            "in Stratonovich form its one-sided difference leaves a mean error of g''g²dt^1.5/4 in every step, and its "
            "strong order is 0.5 instead of 1 (to_ito() converts the process)",
            noise=("diagonal", "scalar"),
            calculus="stratonovich",
        ),
        _EULER_BACKWARD,
    ),
    paper=_KLOEDEN,
)


def torchsde_methods() -> tuple[Method, ...]:
    """An entry for each method of the installed torchsde, and for Milstein's method without derivatives.

    A method that a later torchsde adds is listed, and refused until its orders are known here.

    Evaluations are those of a step of fixed size. Three entries vary by the noise: ``srk`` evaluates each coefficient 3
    times where additive noise has columns (scalar or general), ``milstein-grad-free`` the diffusion once there, and
    ``log_ode`` the diffusion 3 times for general noise.
    """
    entries = []
    for name in METHODS.all():
        unknown = Method(
            f"torchsde:{name}",
            "torchsde",
            options={"method": name},
            refusal="sdeflow does not know what this method of the installed torchsde is for",
        )
        entries.append(_KNOWN.get(name, unknown))
        if name == "milstein":
            entries.append(_GRADIENT_FREE)
    return tuple(entries)
