"""Measured orders: strong, weak and of ODEs, on coupled paths; and what is refused."""

import pytest
import torch

import sdeflow as sf

problems = sf.analysis.problems
DYADIC = [2.0**-k for k in range(3, 9)]


@pytest.mark.parametrize(
    ("problem", "method", "order"),
    [
        ("gbm", "euler-maruyama", 0.5),
        ("gbm", "torchsde:milstein", 1.0),
        ("stratonovich-gbm", "heun", 1.0),
        ("additive", "euler-maruyama", 1.0),
        ("commuting", "euler-maruyama", 0.5),
        ("non-commuting", "euler-maruyama", 0.5),
    ],
)
def test_strong_orders(problem, method, order):
    measured = sf.analysis.order(problems.build(problem, batch=500), method, DYADIC)
    low, high = measured.interval
    # A 95 % interval misses one in twenty: three times its half-width is about six standard errors.
    assert abs(measured.slope - order) < 1.5 * (high - low)
    assert high - low < 0.5 and measured.claim == order and not measured.failed


def test_ode_orders():
    problem = problems["lotka-volterra"]
    for method, order, finest in (("euler", 1, 13), ("heun", 2, 11), ("rk4", 4, 11)):
        measured = sf.analysis.order(problem, method, [10.0 / 2**k for k in range(finest - 5, finest)])
        assert measured.kind == "ode" and measured.slope == pytest.approx(order, abs=0.1)
    assert measured.fit.floor[0] >= problem.accuracy > 0


def test_weak_order_by_common_random_numbers():
    problem = problems.build("gbm", batch=20_000)
    measured = sf.analysis.order(problem, "euler-maruyama", [2.0**-k for k in range(1, 6)], "weak")
    low, high = measured.interval
    assert abs(measured.slope - 1) < 1.5 * (high - low) and high - low < 0.6
    # the same from the moment alone is blind: nothing is above the floor at these step sizes
    alone = sf.analysis.Problem(problem.process, problem.x0, moments=problem.moments)
    with pytest.raises(sf.errors.ArgumentError, match="more paths"):
        sf.analysis.order(alone, "euler-maruyama", [2.0**-k for k in range(4, 9)], "weak")


@pytest.mark.parametrize(
    ("problem", "method", "moment", "order"),
    [
        ("gbm", "euler-maruyama", "square", 1),
        ("ornstein-uhlenbeck", "euler-maruyama", "square", 1),
        ("ornstein-uhlenbeck", "heun", "square", 2),
        ("cox-ingersoll-ross", "euler-maruyama", "square", 1),
    ],
)
def test_weak_order_by_quadrature_needs_no_paths(problem, method, moment, order):
    measured = sf.analysis.order(
        problems.build(problem, batch=1), method, [2.0**-k for k in range(3, 10)], "weak", function=moment, quadrature=8
    )
    assert measured.slope == pytest.approx(order, abs=0.06)
    assert measured.interval[1] - measured.interval[0] < 0.2
    assert set(measured.fit.stderr) == {0.0}


def test_half_powers_for_methods_with_roots_of_the_step():
    """torchsde's srk has √h in its stages: its weak error bends in √h, which a series in h takes for slope."""
    measure = {"kind": "weak", "function": "square", "quadrature": 8}
    problem, steps = problems.build("gbm", batch=1), [2.0**-k for k in range(3, 12)]
    whole = sf.analysis.order(problem, "torchsde:srk", steps, **measure)
    half = sf.analysis.order(problem, "torchsde:srk", steps, powers="half", **measure)
    assert half.interval[0] < 1.5 < half.interval[1] and not whole.interval[0] < 1.5 < whole.interval[1]


def test_a_functional_of_ones_own():
    problem = problems.build("trigonometric", batch=20_000)
    measured = sf.analysis.order(
        problem, "euler-maruyama", [2.0**-k for k in range(1, 6)], "weak", function=lambda x: x[:, 0].cos()
    )
    low, high = measured.interval
    assert abs(measured.slope - 1) < 1.5 * (high - low)


def test_steps_at_which_a_solve_fails_are_told():
    explosive = sf.ODE(lambda t, x: -(x**3) * 40, interval=(0.0, 2.0))
    x0 = torch.full((1, 1), 2.0, dtype=torch.float64)
    problem = sf.analysis.Problem(explosive, x0, exact=x0 / (1 + 80 * 2 * x0**2).sqrt(), name="cubic")
    measured = sf.analysis.order(problem, "euler", [0.25, *(2.0**-k for k in range(9, 15))])
    assert set(measured.failed) == {0.25} and measured.slope == pytest.approx(1, abs=0.1)
    assert "failed at 0.25" in str(measured)


def test_it_draws(tmp_path):
    measured = sf.analysis.order(problems.build("gbm", batch=100), "euler-maruyama", DYADIC)
    measured.plot().savefig(tmp_path / "order.png")
    assert (tmp_path / "order.png").stat().st_size > 5000


def test_one_path_for_all_step_sizes():
    """Errors at two step sizes are of the same noise: their correlation is far from none."""
    problem = problems.build("gbm", batch=400)
    path = problem.path(64, seed=0, levy=False)
    truth = problem.truth(path)
    a, b = ((problem.solve(method="euler-maruyama", steps=n, brownian=path).final - truth)[:, 0] for n in (32, 64))
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.3
    by_hand = [e.square().mean().sqrt().item() for e in (a, b)]
    measured = sf.analysis.order(problem, "euler-maruyama", [1 / 16, 1 / 32, 1 / 64])
    assert list(measured.fit.errors[1:]) == pytest.approx(by_hand)


def gbm():
    return problems.build("gbm", batch=50)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sf.analysis.order(gbm(), "euler-maruyama", [0.3, 0.2, 0.1]), "dt=0.3 does not divide"),
        (lambda: sf.analysis.order(gbm(), "euler-maruyama", [0.5, 0.25]), "at least three"),
        (lambda: sf.analysis.order(gbm(), "euler-maruyama", DYADIC, "ode"), "not for an SDE"),
        (lambda: sf.analysis.order(problems["linear"], "rk4", DYADIC, "strong"), "not for an ODE"),
        (lambda: sf.analysis.order(problems["linear"], "dopri5", DYADIC), "chooses its steps"),
        (lambda: sf.analysis.order(gbm(), "euler-maruyama", DYADIC, function="mean"), "kind='weak'"),
        (lambda: sf.analysis.order(gbm(), "euler-maruyama", DYADIC, "weak", function="median"), "'mean'"),
        (lambda: sf.analysis.order(gbm(), "rk4", DYADIC), "rk4"),
        (
            lambda: sf.analysis.order(problems.build("ornstein-uhlenbeck", batch=50), "euler-maruyama", DYADIC),
            "only moments are known",
        ),
        (
            lambda: sf.analysis.order(problems["hyperbolic"], "euler-maruyama", DYADIC, "weak", quadrature=4),
            "known moment",
        ),
        (
            lambda: sf.analysis.order(
                problems.build("gbm-256", batch=1), "euler-maruyama", DYADIC, "weak", quadrature=4
            ),
            "256 dimensions",
        ),
        (
            lambda: sf.analysis.order(
                sf.analysis.Problem(sf.ODE(lambda t, x: x**3), gbm().x0 + 3, exact=gbm().x0),
                "euler",
                [0.5, 0.25, 0.125],
            ),
            "fails on 'problem'",
        ),
    ],
)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises(sf.SdeflowError, match=words):
        call()
