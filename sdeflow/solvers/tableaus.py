"""Explicit Runge–Kutta methods as data.

A method is (c, a, b): stage i is k_i = f(t + c_i h, x + h Σ_j a_ij k_j), and the step ends at x + h Σ_i b_i k_i. All
methods here are first-same-as-last: the last stage is the velocity at the end of the step, and the first of the next one.
An error estimate is h Σ_i e_i k_i; dense output is x + h Σ_i b_i(θ) k_i with polynomials b_i(θ) = Σ_m dense[i][m] θ^(m+1), for
which DOP853 has three stages more, evaluated only in steps that are looked into.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

__all__ = ["BOSH3", "DOPRI5", "TSIT5", "Row", "Tableau"]

Row = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method with its error estimates and dense output.

    Attributes:
        name: The name in the registry.
        order: The order of the solution that is carried on.
        error_order: The power of h in the error of one step, as estimated: the controller's exponent is one over it.
        c: The stages' places in the step.
        a: The rows of the stages from the second on.
        b: The weights.
        errors: The weights of the error estimates. With two, e and e′, the error is |e|² / sqrt(|e|² + (|e′|/10)²).
        dense: The polynomials of the dense output, without their constant terms, a row for each stage.
        stability: How far the region of stability goes on the negative real axis.
        paper: Title, year, link.
        extra_c: The places of further stages that only the dense output needs.
        extra_a: Their rows.
    """

    name: str
    order: int
    error_order: int
    c: Row
    a: tuple[Row, ...]
    b: Row
    errors: tuple[Row, ...]
    dense: tuple[Row, ...]
    stability: float
    paper: str
    extra_c: Row = ()
    extra_a: tuple[Row, ...] = ()

    @cached_property
    def table(self) -> tuple[Row, ...]:
        """The rows of all stages after the first, then those of the error estimates, all of one length."""
        rows = (*self.a, *self.extra_a, *self.errors)
        count = len(self.c) + len(self.extra_c)
        return tuple((*row, *[0.0] * (count - len(row))) for row in rows)

    @property
    def first_error(self) -> int:
        """Where in the table the error estimates begin."""
        return len(self.table) - len(self.errors)


BOSH3 = Tableau(
    "bosh3",
    order=3,
    error_order=3,
    c=(0.0, 0.5, 0.75, 1.0),
    a=(
        (0.5,),
        (0.0, 0.75),
        (0.2222222222222222, 0.3333333333333333, 0.4444444444444444),
    ),
    b=(0.2222222222222222, 0.3333333333333333, 0.4444444444444444, 0.0),
    errors=((-0.06944444444444445, 0.08333333333333333, 0.1111111111111111, -0.125),),
    dense=(
        (1.0, -1.3333333333333333, 0.5555555555555556),
        (0.0, 1.0, -0.6666666666666666),
        (0.0, 1.3333333333333333, -0.8888888888888888),
        (0.0, -1.0, 1.0),
    ),
    stability=2.51,
    paper="A 3(2) pair of Runge–Kutta formulas (Bogacki & Shampine, 1989), https://doi.org/10.1016/0893-9659(89)90079-7",
)

DOPRI5 = Tableau(
    "dopri5",
    order=5,
    error_order=5,
    c=(0.0, 0.2, 0.3, 0.8, 0.8888888888888888, 1.0, 1.0),
    a=(
        (0.2,),
        (0.075, 0.225),
        (0.9777777777777777, -3.7333333333333334, 3.5555555555555554),
        (2.9525986892242035, -11.595793324188385, 9.822892851699436, -0.2908093278463649),
        (2.8462752525252526, -10.757575757575758, 8.906422717743473, 0.2784090909090909, -0.2735313036020583),
        (0.09114583333333333, 0.0, 0.44923629829290207, 0.6510416666666666, -0.322376179245283, 0.13095238095238096),
    ),
    b=(0.09114583333333333, 0.0, 0.44923629829290207, 0.6510416666666666, -0.322376179245283, 0.13095238095238096, 0.0),
    errors=(
        (
            0.0012326388888888888,
            -0.0,
            -0.0042527702905061394,
            0.03697916666666667,
            -0.05086379716981132,
            0.0419047619047619,
            -0.025,
        ),
    ),
    dense=(
        (1.0, -2.8535800653862835, 3.0717434641059005, -1.1270175653862835),
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 4.023133379230305, -6.249321565289, 2.675424484351598),
        (0.0, -3.7324019615885042, 10.068970589843675, -5.685526961588504),
        (0.0, 2.5548038301849423, -6.399112377351017, 3.5219323679207912),
        (0.0, -1.3744241142186024, 3.272657752246729, -1.7672812570757455),
        (0.0, 1.3824689317781436, -3.764937863556287, 2.382468931778144),
    ),
    stability=3.31,
    paper="A family of embedded Runge–Kutta formulae (Dormand & Prince, 1980), https://doi.org/10.1016/0771-050X(80)90013-3",
)

TSIT5 = Tableau(
    "tsit5",
    order=5,
    error_order=5,
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    a=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.362295432869581),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    ),
    b=(0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0.0),
    errors=(
        (
            0.0017800110522257773,
            0.0008164344596567463,
            -0.007880878010261994,
            0.1447110071732629,
            -0.5823571654525552,
            0.45808210592918686,
            -0.015151515151515152,
        ),
    ),
    dense=(
        (0.9999999999999998, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.13169999999999998, -0.2234, 0.1017),
        (0.0, 3.930296236894751, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.338188630282318, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479368, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
    stability=3.51,
    paper="Runge–Kutta pairs of order 5(4) satisfying only the first column simplifying assumption (Tsitouras, 2011), https://doi.org/10.1016/j.camwa.2011.06.002",
)
