"""What we know of torchdiffeq's methods: data, and nothing else.

The methods themselves are whatever the installed torchdiffeq lists; one that is not known here comes without a claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torchdiffeq._impl.odeint import SOLVERS
from torchdiffeq._impl.solvers import FixedGridODESolver

from sdeflow.solvers.methods import Method

__all__ = ["ADAMS", "SCIPY", "SOLVERS", "stages", "table"]

PREFIX = "torchdiffeq:"
SCIPY = "scipy_solver"
ADAMS = ("explicit_adams", "implicit_adams", "fixed_adams")


@dataclass(frozen=True)
class Known:
    """One method: its order as measured, where in [0, 1] its stages stand (for methods of fixed steps), its source.

    With max_order=k, torchdiffeq's explicit Adams method has order k − 1 and its implicit one order k. Its own default of
    12 diverges (y' = −y to t = 2 in 64 steps: an error of 2.6e5), and is not offered.
    """

    order: float | None
    paper: str
    stages: tuple[float, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


_HAIRER = (
    "Solving Ordinary Differential Equations I (Hairer, Nørsett & Wanner, 1993), "
    "https://doi.org/10.1007/978-3-540-78862-1"
)
_HEUN = (
    "Neue Methoden zur approximativen Integration der Differentialgleichungen einer unabhängigen Veränderlichen "
    "(Heun, 1900)"
)
_IMPLICIT = {"max_order": 4, "max_iters": 20}

KNOWN = {
    "dopri8": Known(
        8,
        "High order embedded Runge–Kutta formulae (Prince & Dormand, 1981), https://doi.org/10.1016/0771-050X(81)90010-3",
    ),
    "dopri5": Known(
        5,
        "A family of embedded Runge–Kutta formulae (Dormand & Prince, 1980), https://doi.org/10.1016/0771-050X(80)90013-3",
    ),
    "bosh3": Known(
        3,
        "A 3(2) pair of Runge–Kutta formulas (Bogacki & Shampine, 1989), https://doi.org/10.1016/0893-9659(89)90079-7",
    ),
    "fehlberg2": Known(  # its estimate of the error is h²x''/512, so that it exceeds tolerances by some 500 times
        2,
        "Low-order classical Runge–Kutta formulas with stepsize control (Fehlberg, 1969), "
        "https://ntrs.nasa.gov/citations/19690021375",
    ),
    "adaptive_heun": Known(2, _HEUN),
    "euler": Known(1, "Institutionum calculi integralis, vol. 1 (Euler, 1768)", (0.0,)),
    "midpoint": Known(
        2,
        "Ueber die numerische Auflösung von Differentialgleichungen (Runge, 1895), https://doi.org/10.1007/BF01446807",
        (0.0, 1 / 2),
    ),
    "heun2": Known(2, _HEUN, (0.0, 1.0)),
    "heun3": Known(3, _HEUN, (0.0, 1 / 3, 2 / 3)),
    "rk4": Known(
        4,
        "Beitrag zur näherungsweisen Integration totaler Differentialgleichungen (Kutta, 1901)",
        (0.0, 1 / 3, 2 / 3, 1.0),
    ),
    "explicit_adams": Known(3, _HAIRER, options={"max_order": 4}),
    "implicit_adams": Known(4, _HAIRER, options=_IMPLICIT),
    "fixed_adams": Known(4, _HAIRER, options=_IMPLICIT),
    "scipy_solver": Known(
        None,
        "Automatic Selection of Methods for Solving Stiff and Nonstiff Systems of Ordinary Differential Equations "
        "(Petzold, 1983), https://doi.org/10.1137/0904010",
        # LSODA, torchdiffeq's own default. Its error norm is a maximum, so it hides no sample.
    ),
}

DEFECTS = {
    "gl4": "torchdiffeq's gl4 is of first order only where the velocity depends on t (an abscissa is entered twice)",
}

_NOTHING = Known(None, "")


def table() -> tuple[Method, ...]:
    """An entry for each method that the installed torchdiffeq lists."""
    return tuple(_entry(name, solver) for name, solver in SOLVERS.items())


def _entry(name: str, solver: type) -> Method:
    known = KNOWN.get(name, _NOTHING)
    fixed = issubclass(solver, FixedGridODESolver)
    return Method(
        PREFIX + name,
        "torchdiffeq",
        ode_order=known.order,
        drift_evaluations=len(known.stages) or None,
        fixed=fixed,
        adaptive=not fixed,
        gradients=() if name == SCIPY else ("backprop", "adjoint"),
        paper=known.paper,
        options=known.options,
        refusal=DEFECTS.get(name, ""),
    )


def stages(name: str) -> tuple[float, ...]:
    """Where in a step, in [0, 1], the velocity is evaluated, in the order of evaluation; () where that is not known.

    The first stage of an adaptive method is not among them: it is the last velocity of the step before.
    """
    tableau = getattr(SOLVERS[name], "tableau", None)
    return KNOWN.get(name, _NOTHING).stages if tableau is None else tuple(tableau.alpha.tolist())
