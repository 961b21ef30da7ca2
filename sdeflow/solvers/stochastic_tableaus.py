r"""The coefficients of stochastic Runge–Kutta methods, as data, in two forms.

Over a step of length h let W be the Brownian increment and H its space-time Lévy area, :math:`H \sim N(0, h/12)` independent
of W; then :math:`\int_0^h W_s\,ds = h(W/2 + H)`.

**A tableau on (W, H)** has the stages

.. math:: z_i = x + h\sum_{j<i} a_{ij} f_j + \sum_{j<i} (a^W_{ij} g_j) W + \sum_{j<i} (a^H_{ij} g_j) H,

with :math:`f_j = f(t + c_j h, z_j)`, :math:`g_j = \sigma(t + c_j h, z_j)`, and ends at
:math:`x + h\sum b_i f_i + \sum (b^W_i g_i) W + \sum (b^H_i g_i) H`. Its error is the same sum with the weights of ``error``.
Rows are as long as their last entry that is not zero. A coefficient that nobody uses is not evaluated; without noise the
first sums are a Runge–Kutta method for ODEs.

**A tableau of Rößler's** for Itô SDEs with diagonal or scalar noise has two kinds of stages, f at one and g at the other,

.. math:: z^0_i = x + h\sum_j A^0_{ij} f_j + \sum_j B^0_{ij} g_j\, I_{10}/h, \qquad
          z^1_i = x + h\sum_j A^1_{ij} f_j + \sum_j B^1_{ij} g_j\, \sqrt h,

and ends at :math:`x + h\sum a_i f_i + \sum (b^1_i W + b^2_i I_{11}/\sqrt h + b^3_i I_{10}/h + b^4_i I_{111}/h)\, g_i` with
:math:`I_{10} = h(W/2 + H)`, :math:`I_{11} = (W^2 - h)/2`, :math:`I_{111} = (W^3 - 3hW)/6`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "EULER",
    "EULER_HEUN",
    "FIRST",
    "GENERAL_SHARK",
    "HEUN",
    "MIDPOINT",
    "RK4",
    "SEA",
    "SHARK",
    "SLOWRK",
    "SOSRA",
    "SOSRI",
    "SPARK",
    "SRA1",
    "SRIW1",
    "RosslerTableau",
    "StochasticTableau",
    "Weights",
]

Row = tuple[float, ...]
Rows = tuple[Row, ...]


@dataclass(frozen=True)
class Weights:
    """The weights of f h, of g W and of g H in a sum over the stages."""

    f: Row = ()
    W: Row = ()
    H: Row = ()


@dataclass(frozen=True)
class StochasticTableau:
    """A tableau on (W, H), see the module.

    Attributes:
        c: The stages' places in the step.
        stages: The weights of each stage on the ones before it.
        b: The weights of the step.
        error: Those of the error estimate, or None.
        error_order: The power of h in the estimate, as measured on noise that commutes.
        additive: Whether it takes g to depend on time only: then a stage may evaluate g before its state is known, and what is
            g at the end of one step is g at the beginning of the next.
    """

    c: Row
    stages: tuple[Weights, ...]
    b: Weights
    error: Weights | None = None
    error_order: float = 1.5
    additive: bool = False


@dataclass(frozen=True)
class RosslerTableau:
    """A tableau of Rößler's form, see the module.

    Attributes:
        c0: Where f is evaluated.
        c1: Where g is evaluated.
        A0: The weights of f h in the stages of f.
        A1: The weights of f h in the stages of g.
        B0: The weights of g I₁₀/h in the stages of f.
        B1: The weights of g √h in the stages of g.
        a: The weights of f h in the step.
        b: Four rows of weights of g: for W, I₁₁/√h, I₁₀/h and I₁₁₁/h.
        error_drift: The weights of f h in the error: those of the step less that of Euler's. (As published they are all
            alike, an error of the order of the step itself, by which a drift that is constant is as bad as one that is not.)
            Those of g are the last two rows of b.
    """

    c0: Row
    c1: Row
    A0: Rows
    A1: Rows
    B0: Rows
    B1: Rows
    a: Row
    b: tuple[Row, Row, Row, Row]
    error_drift: Row


FIRST = Weights()  # a stage at x itself

# --- textbook methods ----------------------------------------------------------------------------------------------------

EULER = StochasticTableau(c=(0.0,), stages=(FIRST,), b=Weights(f=(1.0,), W=(1.0,)))

EULER_HEUN = StochasticTableau(
    c=(0.0, 1.0),
    stages=(FIRST, Weights(W=(1.0,))),
    b=Weights(f=(1.0,), W=(0.5, 0.5)),
)

HEUN = StochasticTableau(  # the error is the difference to Euler's step
    c=(0.0, 1.0),
    stages=(FIRST, Weights(f=(1.0,), W=(1.0,))),
    b=Weights(f=(0.5, 0.5), W=(0.5, 0.5)),
    error=Weights(f=(-0.5, 0.5), W=(-0.5, 0.5)),
    error_order=1.0,
)

MIDPOINT = StochasticTableau(
    c=(0.0, 0.5),
    stages=(FIRST, Weights(f=(0.5,), W=(0.5,))),
    b=Weights(f=(0.0, 1.0), W=(0.0, 1.0)),
    error=Weights(f=(-1.0, 1.0), W=(-1.0, 1.0)),
    error_order=1.0,
)

RK4 = StochasticTableau(
    c=(0.0, 0.5, 0.5, 1.0),
    stages=(FIRST, Weights(f=(0.5,)), Weights(f=(0.0, 0.5)), Weights(f=(0.0, 0.0, 1.0))),
    b=Weights(f=(1 / 6, 1 / 3, 1 / 3, 1 / 6)),
)

# --- additive noise ------------------------------------------------------------------------------------------------------
# g at the two ends of the step comes first. With g₀ and g₁ there, g₀W + (g₁ − g₀)(W/2 − H) is ∫g dW for a g that is linear in
# time. SRA methods are given in terms of I₁₀/h = W/2 + H: a weight w of it is w/2 of W and w of H.

SEA = StochasticTableau(
    c=(0.0, 1.0, 0.0),
    stages=(FIRST, FIRST, Weights(W=(0.5,), H=(1.0,))),
    b=Weights(f=(0.0, 0.0, 1.0), W=(0.5, 0.5), H=(1.0, -1.0)),
    additive=True,
)

SHARK = StochasticTableau(
    c=(0.0, 1.0, 0.0, 5 / 6),
    stages=(FIRST, FIRST, Weights(H=(1.0,)), Weights(f=(0.0, 0.0, 5 / 6), W=(5 / 6,), H=(1.0,))),
    b=Weights(f=(0.0, 0.0, 0.4, 0.6), W=(0.5, 0.5), H=(1.0, -1.0)),
    error=Weights(f=(0.0, 0.0, -0.6, 0.6), W=(-0.5, 0.5), H=(1.0, -1.0)),
    additive=True,
)

SRA1 = StochasticTableau(
    c=(0.0, 1.0, 0.75),
    stages=(FIRST, FIRST, Weights(f=(0.75,), W=(0.0, 0.75), H=(0.0, 1.5))),
    b=Weights(f=(1 / 3, 0.0, 2 / 3), W=(0.5, 0.5), H=(1.0, -1.0)),
    error=Weights(f=(-2 / 3, 0.0, 2 / 3), W=(0.5, -0.5), H=(1.0, -1.0)),
    additive=True,
)

SOSRA = StochasticTableau(
    c=(0.0, 0.041248171110700504, 0.6923962376159507, 1.0),
    stages=(
        FIRST,
        FIRST,
        Weights(f=(0.6923962376159507,), W=(1.3371632704399763 / 2,), H=(1.3371632704399763,)),
        Weights(
            f=(-3.1609142252828395, 0.0, 4.1609142252828395),
            W=(1.442371048468624 / 2, 1.8632741501139225 / 2),
            H=(1.442371048468624, 1.8632741501139225),
        ),
    ),
    b=Weights(
        f=(0.2889874966892885, 0.0, 0.6859880440839937, 0.025024459226717772),
        W=(
            -16.792534242221663 + 0.4237535769069274 / 2,
            17.514995785380226 + 0.6010381474428539 / 2,
            0.0,
            0.27753845684143835 - 1.0247917243497813 / 2,
        ),
        H=(0.4237535769069274, 0.6010381474428539, 0.0, -1.0247917243497813),
    ),
    error=Weights(
        f=(0.2889874966892885 - 1, 0.0, 0.6859880440839937, 0.025024459226717772),
        W=(0.4237535769069274 / 2, 0.6010381474428539 / 2, 0.0, -1.0247917243497813 / 2),
        H=(0.4237535769069274, 0.6010381474428539, 0.0, -1.0247917243497813),
    ),
    additive=True,
)

# --- Stratonovich --------------------------------------------------------------------------------------------------------

_OUTER, _INNER = (3 - 3**0.5) / 6, 3**0.5 / 3

SPARK = StochasticTableau(
    c=(0.0, 0.5, 1.0),
    stages=(FIRST, Weights(f=(0.5,), W=(0.5,), H=(3**0.5,)), Weights(f=(0.0, 1.0), W=(0.0, 1.0))),
    b=Weights(f=(_OUTER, _INNER, _OUTER), W=(_OUTER, _INNER, _OUTER), H=(1.0, 0.0, -1.0)),
    error=Weights(f=(_OUTER - 0.5, _INNER, _OUTER - 0.5), W=(_OUTER - 0.5, _INNER, _OUTER - 0.5), H=(1.0, 0.0, -1.0)),
)

GENERAL_SHARK = StochasticTableau(
    c=(0.0, 0.0, 5 / 6),
    stages=(FIRST, Weights(H=(1.0,)), Weights(f=(0.0, 5 / 6), W=(0.0, 5 / 6), H=(1.0,))),
    b=Weights(f=(0.0, 0.4, 0.6), W=(0.0, 0.4, 0.6), H=(0.0, 1.2, -1.2)),
    error=Weights(f=(0.0, -0.6, 0.6), W=(0.0, -0.6, 0.6), H=(0.0, 1.2, -1.2)),
    error_order=1.0,
)

SLOWRK = StochasticTableau(  # the error is the difference to the midpoint method
    c=(0.0, 0.5, 0.5, 0.5, 0.5, 0.75, 1.0),
    stages=(
        FIRST,
        Weights(f=(0.5,)),
        Weights(f=(0.5,), W=(0.0, 0.5)),
        Weights(f=(0.5,), W=(0.0, 0.0, 0.5)),
        Weights(f=(0.5,), W=(0.0, 0.0, 0.0, 1.0)),
        Weights(f=(0.75,), W=(0.0, 0.0, 0.0, 0.75), H=(0.0, 0.0, 0.0, 1.5)),
        Weights(f=(1.0,), W=(0.0, 0.0, 0.5)),
    ),
    b=Weights(
        f=(1 / 3, 0.0, 0.0, 0.0, 0.0, 2 / 3),
        W=(0.0, 1 / 6, 1 / 3, 1 / 3, 1 / 6),
        H=(0.0, 0.0, 0.0, 2.0, 0.0, 0.0, -2.0),
    ),
    error=Weights(
        f=(-2 / 3, 0.0, 0.0, 0.0, 0.0, 2 / 3),
        W=(0.0, 1 / 6, -2 / 3, 1 / 3, 1 / 6),
        H=(0.0, 0.0, 0.0, 2.0, 0.0, 0.0, -2.0),
    ),
)

# --- Itô, diagonal and scalar noise --------------------------------------------------------------------------------------

SRIW1 = RosslerTableau(
    c0=(0.0, 0.75),
    c1=(0.0, 0.25, 1.0, 0.25),
    A0=((), (0.75,)),
    # Rößler's last row is (0, 0, 1/4) with a third stage of f that is at x, as the first is: it is counted there.
    A1=((), (0.25,), (1.0,), (0.25,)),
    B0=((), (1.5,)),
    B1=((), (0.5,), (-1.0,), (-5.0, 3.0, 0.5)),
    a=(1 / 3, 2 / 3),
    b=(
        (-1.0, 4 / 3, 2 / 3, 0.0),
        (-1.0, 4 / 3, -1 / 3, 0.0),
        (2.0, -4 / 3, -2 / 3, 0.0),
        (-2.0, 5 / 3, -2 / 3, 1.0),
    ),
    error_drift=(-2 / 3, 2 / 3),
)

SOSRI = RosslerTableau(
    c0=(0.0, -0.04199224421316468, 0.7898405466170333, 3.7504010171562823),
    c1=(0.0, 0.26204282091330466, 0.05879875232001766, 0.758661169101175),
    A0=(
        (),
        (-0.04199224421316468,),
        (2.842612915017106, -2.0527723684000727),
        (4.338237071435815, -2.8895936137439793, 2.3017575594644466),
    ),
    A1=(
        (),
        (0.26204282091330466,),
        (0.20903646383505375, -0.1502377115150361),
        (0.05836595312746999, 0.6149440396332373, 0.08535117634046772),
    ),
    B0=(
        (),
        (-0.21641093549612528,),
        (1.5336352863679572, 0.26066223492647056),
        (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017),
    ),
    B1=(
        (),
        (-0.5119011827621657,),
        (2.67767339866713, -4.9395031322250995),
        (0.15580956238299215, 3.2361551006624674, -1.4223118283355949),
    ),
    a=(1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
    b=(
        (-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
        (0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
        (2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
        (0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704),
    ),
    error_drift=(0.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
)
