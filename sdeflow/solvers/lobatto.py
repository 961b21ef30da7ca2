r"""Gauss–Lobatto quadrature on [0, 1], and what its values say of its error.

The rule with n nodes, the ends among them, is exact for polynomials of degree 2n − 3. A *null rule* is a combination of the
same values that is zero for all polynomials below some degree k: it measures the part of that degree in the integrand, which
is :math:`c_k = O(h^{k+1})` on a step of length h. The last, :math:`c_{n-1}`, is far larger than the error of the rule. How
fast the parts fall off tells by how much: :math:`c_{n-1}^2 / |c|` is an estimate of order 2n − 2, that of the rule.

References:
    Null rules and orthogonal expansions (Laurie, 1994), https://doi.org/10.1007/978-1-4684-7415-2_24
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LOBATTO", "Lobatto"]

Row = tuple[float, ...]


class Lobatto(NamedTuple):
    """A rule.

    Attributes:
        nodes: The places.
        weights: The weights.
        null: Null rules for the parts of degree n − 1 down to 1, orthogonal, each with the Euclidean norm of the weights.
    """

    nodes: Row
    weights: Row
    null: tuple[Row, ...]


LOBATTO = {
    3: Lobatto(
        (0.0, 0.5, 1.0),
        (0.16666666666666666, 0.6666666666666666, 0.16666666666666666),
        (
            (0.28867513459481287, -0.5773502691896257, 0.28867513459481287),
            (-0.5, 0.0, 0.5),
        ),
    ),
    4: Lobatto(
        (0.0, 0.27639320225002106, 0.7236067977499789, 1.0),
        (0.08333333333333333, 0.4166666666666667, 0.4166666666666667, 0.08333333333333333),
        (
            (-0.17347216662217768, 0.38789555677135956, -0.38789555677135956, 0.17347216662217768),
            (0.30046260628866583, -0.30046260628866583, -0.30046260628866583, 0.30046260628866583),
            (-0.38789555677135956, -0.17347216662217776, 0.17347216662217776, 0.38789555677135956),
        ),
    ),
    5: Lobatto(
        (0.0, 0.17267316464601146, 0.5, 0.8273268353539885, 1.0),
        (0.05, 0.2722222222222222, 0.35555555555555557, 0.2722222222222222, 0.05),
        (
            (0.11824331474329308, -0.2759010677343506, 0.3153155059821149, -0.2759010677343506, 0.11824331474329308),
            (-0.20480342879074176, 0.3128424050066907, 0.0, -0.3128424050066907, 0.20480342879074176),
            (
                0.26440008965090644,
                -0.08813336321696882,
                -0.35253345286787535,
                -0.08813336321696882,
                0.26440008965090644,
            ),
            (-0.3128424050066908, -0.20480342879074173, 0.0, 0.20480342879074173, 0.3128424050066908),
        ),
    ),
}
