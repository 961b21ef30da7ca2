"""The coefficients: order conditions of every rooted tree to order 5, dense output, and error estimates."""

from fractions import Fraction

import numpy as np
import pytest
from rooted_trees import density, trees

from sdeflow.solvers.adaptive import TABLEAUS


def weights(tree, A):
    """The elementary weight of each stage: Φ_i = Π over branches of Σ_j a_ij Φ_j."""
    phi = np.ones(len(A))
    for branch in tree:
        phi = phi * (A @ weights(branch, A))
    return phi


def arrays(name):
    tableau = TABLEAUS[name]
    stages = len(tableau.b)
    A = np.zeros((stages, stages))
    for i, row in enumerate(tableau.a, start=1):
        A[i, : len(row)] = row
    return tableau, A, np.array(tableau.b)


def test_there_are_as_many_trees_as_in_the_books():
    assert [len(trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


@pytest.mark.parametrize("name", TABLEAUS)
def test_order_conditions(name):
    tableau, A, b = arrays(name)
    assert np.allclose(A.sum(1), tableau.c, atol=1e-12)
    for order in range(1, tableau.order + 1):
        for tree in trees(order):
            assert b @ weights(tree, A) == pytest.approx(1 / density(tree), abs=1e-11), (order, tree)
    # and the next order is not reached: these are no better than they say
    assert any(abs(b @ weights(tree, A) - 1 / density(tree)) > 1e-6 for tree in trees(tableau.order + 1))


@pytest.mark.parametrize("name", TABLEAUS)
def test_the_last_stage_is_the_first_of_the_next_step(name):
    tableau, _, b = arrays(name)
    assert tableau.c[-1] == 1 and b[-1] == 0
    assert np.allclose(tableau.a[-1], b[:-1], atol=1e-15)


@pytest.mark.parametrize("name", TABLEAUS)
def test_the_error_estimate_is_of_the_order_that_the_controller_takes_it_for(name):
    """Σ e_i Φ_i(tree) vanishes for all trees below the order, and not for all of them at it."""
    tableau, A, _ = arrays(name)
    lowest = (tableau.error_order,) if len(tableau.errors) == 1 else (6, 4)  # DOP853 compares with orders 5 and 3
    for e, low in zip(tableau.errors, lowest, strict=True):
        for tree in {t for n in range(1, low) for t in trees(n)}:
            assert np.array(e) @ weights(tree, A) == pytest.approx(0, abs=1e-11)
        assert any(abs(np.array(e) @ weights(tree, A)) > 1e-5 for tree in trees(low))


@pytest.mark.parametrize("name", TABLEAUS)
def test_dense_output_is_of_the_order_below_everywhere_in_the_step(name):
    """b(θ) meets the conditions θ^|tree|/γ to order 4 (3 for Bosh3, 7 for DOP853), and is the step itself at θ = 1."""
    tableau, A, b = arrays(name)
    P, stages = np.array(tableau.dense), len(tableau.dense)
    A, b = (np.pad(v, (0, stages - len(v))) for v in (A, b))
    for i, row in enumerate(tableau.extra_a, start=len(tableau.c)):
        A[i, : len(row)] = row
    assert np.allclose(A.sum(1), (*tableau.c, *tableau.extra_c), atol=1e-12)
    assert np.allclose(P.sum(1), b, atol=1e-12)
    for theta in (0.1, 0.37, 0.8):
        at = P @ theta ** np.arange(1, P.shape[1] + 1)
        for order in range(1, {3: 3, 5: 4, 8: 7}[tableau.order] + 1):
            for tree in trees(order):
                assert at @ weights(tree, A) == pytest.approx(theta**order / density(tree), abs=1e-11)


def test_dormand_prince_are_the_published_fractions():
    tableau = TABLEAUS["dopri5"]
    assert tableau.b[0] == float(Fraction(35, 384)) and tableau.a[4][1] == float(Fraction(-355, 33))
