"""The algebraic order conditions of the stochastic tableaus."""

import numpy as np
import pytest

from sdeflow.solvers import stochastic_tableaus as tableaus

ON_WH = {name: value for name, value in vars(tableaus).items() if isinstance(value, tableaus.StochasticTableau)}
ROSSLER = {name: value for name, value in vars(tableaus).items() if isinstance(value, tableaus.RosslerTableau)}
HIGH = ("SHARK", "SRA1", "SOSRA", "SPARK", "GENERAL_SHARK", "SLOWRK")  # 1.5 for additive noise
STRATONOVICH = ("EULER_HEUN", "HEUN", "MIDPOINT", "SPARK", "GENERAL_SHARK", "SLOWRK")


def pad(row, size):
    return np.pad(np.array(row, dtype=float), (0, size - len(row)))


class Matrices:
    """A tableau on (W, H) as arrays."""

    def __init__(self, tableau):
        n = len(tableau.c)
        self.c = np.array(tableau.c)
        self.a, self.aW, self.aH = (
            np.array([pad(getattr(stage, kind), n) for stage in tableau.stages]) for kind in ("f", "W", "H")
        )
        self.b, self.bW, self.bH = (pad(getattr(tableau.b, kind), n) for kind in ("f", "W", "H"))
        self.used = (self.b != 0) | (self.a != 0).any(0)  # stages in which f is evaluated


@pytest.mark.parametrize("name", ON_WH)
def test_consistency(name):
    """One drift, one noise; stages are explicit; f is asked at the time of its stage's state."""
    tableau, m = ON_WH[name], Matrices(ON_WH[name])
    assert np.isclose(m.b.sum(), 1)
    if tableau.b.W:
        assert np.isclose(m.bW.sum(), 1) and np.isclose(m.bH.sum(), 0, atol=1e-14)
    for i, stage in enumerate(tableau.stages):
        assert max(map(len, (stage.f, stage.W, stage.H))) <= i
    if name != "SEA":  # of order 1, for which f may be asked at the beginning
        assert np.allclose(m.a.sum(1)[m.used], m.c[m.used])
    if tableau.error is not None:  # a difference of two consistent methods
        for row in (tableau.error.f, tableau.error.W, tableau.error.H):
            assert np.isclose(sum(row), 0, atol=1e-12)


@pytest.mark.parametrize("name", HIGH)
def test_strong_order_one_and_a_half_for_additive_noise(name):
    """∫g dW for g linear in time is g₀W + g′h(W/2 − H); ∫W is h(W/2 + H); ∫W² has mean h²/2; and order 2 without noise."""
    m = Matrices(ON_WH[name])
    assert np.isclose(m.bW @ m.c, 1 / 2) and np.isclose(m.bH @ m.c, -1)
    W, H = m.aW.sum(1), m.aH.sum(1)
    assert np.isclose(m.b @ W, 1 / 2) and np.isclose(m.b @ H, 1)
    assert np.isclose(m.b @ (W**2 + H**2 / 12), 1 / 2)
    assert np.isclose(m.b @ m.c, 1 / 2)


@pytest.mark.parametrize("name", STRATONOVICH)
def test_the_stratonovich_correction(name):
    """½ (∂g)g W² is what commuting noise of order 1 needs, and nothing of W H beside it."""
    m = Matrices(ON_WH[name])
    assert np.isclose(m.bW @ m.aW.sum(1), 1 / 2)
    assert np.isclose(m.bW @ m.aH.sum(1) + m.bH @ m.aW.sum(1), 0, atol=1e-14)
    assert np.isclose(m.bH @ m.aH.sum(1), 0, atol=1e-14)


def test_slowrk_to_order_one_and_a_half_for_commuting_noise():
    """The terms W³ of ((∂g)²g + g″gg), and h W of both mixed derivatives, of the expansion of a commuting SDE."""
    m = Matrices(tableaus.SLOWRK)
    W = m.aW.sum(1)
    assert np.isclose(m.bW @ W**2, 1 / 3) and np.isclose(m.bW @ m.aW @ W, 1 / 6)
    f = m.a.sum(1)  # f′g ∫W dt = h(W/2 + H) of it, and g′f the rest of hW
    assert np.isclose(m.b @ W, 1 / 2) and np.isclose(m.b @ m.aH.sum(1), 1)
    assert np.isclose(m.bW @ f, 1 / 2) and np.isclose(m.bH @ f, -1)


@pytest.mark.parametrize(("name", "order"), [("EULER", 1), ("HEUN", 2), ("MIDPOINT", 2), ("RK4", 4)])
def test_conditions_without_noise(name, order):
    m = Matrices(ON_WH[name])
    e, a, b, c = np.ones(len(m.c)), m.a, m.b, m.c
    conditions = [
        (1, b @ e, 1),
        (2, b @ c, 1 / 2),
        (3, b @ c**2, 1 / 3),
        (3, b @ a @ c, 1 / 6),
        (4, b @ c**3, 1 / 4),
        (4, b * c @ a @ c, 1 / 8),
        (4, b @ a @ c**2, 1 / 12),
        (4, b @ a @ a @ c, 1 / 24),
    ]
    for degree, value, wanted in conditions:
        assert np.isclose(value, wanted) or degree > order
    assert (
        not all(np.isclose(value, wanted) for degree, value, wanted in conditions if degree == order + 1) or order == 4
    )


@pytest.mark.parametrize("name", ROSSLER)
def test_rosslers_conditions_of_strong_order_one_and_a_half(name):
    """The 25 of Rößler (2010), theorem 5.2, and that stages are asked at their times."""
    t = ROSSLER[name]
    n = len(t.c1)
    A0, A1, B0, B1 = (
        np.array([pad(row, n) for row in rows] + [np.zeros(n)] * (n - len(rows))) for rows in (t.A0, t.A1, t.B0, t.B1)
    )
    a, (b1, b2, b3, b4) = pad(t.a, n), (pad(row, n) for row in t.b)
    e = np.ones(n)
    for matrix in (A0, A1, B0, B1):
        assert np.allclose(np.triu(matrix), 0)
    assert np.allclose(A0 @ e, pad(t.c0, n)) and np.allclose(A1 @ e, t.c1)
    found = [
        (a @ e, a @ A0 @ e, a @ B0 @ e, a @ (B0 @ e) ** 2),
        [b @ e for b in (b1, b2, b3, b4)],
        [b @ B1 @ e for b in (b1, b2, b3, b4)],
        [b @ A1 @ e for b in (b1, b2, b3, b4)],
        [b @ (B1 @ e) ** 2 for b in (b1, b2, b3, b4)],
        [b @ B1 @ B1 @ e for b in (b1, b2, b3, b4)],
    ]
    wanted = [
        (1, 1 / 2, 1, 3 / 2),
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (1, 0, -1, 0),
        (1, 0, -1, 2),
        (0, 0, 0, 1),
    ]
    assert np.allclose(found, wanted)
    assert np.isclose(b1 @ A1 @ B0 @ e / 2 + b3 @ A1 @ B0 @ e / 3, 0)
