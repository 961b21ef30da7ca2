"""Integrals along a solution: their order, their place in the control of steps, gradients, and what they cost."""

import math

import pytest
import torch

import sdeflow as sf
from sdeflow.processes.integrals import WithIntegrals
from sdeflow.solvers.quadrature import integrated_basis, rule_for
from sdeflow.solvers.tableaus import BOSH3, DOPRI5, TSIT5

DOUBLE = torch.float64
METHODS = ("tsit5", "dopri5", "bosh3", "dopri8")
STEPPINGS = ("shared", "per-sample")


class Growth(WithIntegrals, precise_time=True):
    """x' = x, with the integrals of t x² and of cos(3 t) x for x in (D,): closed forms."""

    def __init__(self, dims=2, controlled=True, factor=None):
        super().__init__(sf.ODE(self.grow), torch.Size([dims]), 2)
        self.factor = torch.tensor(1.0, dtype=DOUBLE) if factor is None else factor
        self.calls = 0
        if not controlled:
            self.error_mask = torch.cat([torch.ones(dims), torch.zeros(2)])

    def grow(self, t, x):
        return self.factor * x

    def rates(self, t, x):
        self.calls += 1
        values = t * x.square(), torch.cos(3 * t) * x
        return self.ode.velocity(t, x), torch.stack([v.sum(1) for v in values], 1)


def truth(x, b=1.0, a=1.0):
    """At t = b, for x' = a x; the integral of cos(3t) e^{at} is e^{at}(a cos 3t + 3 sin 3t)/(a² + 9)."""
    squares = ((b / (2 * a) - 1 / (4 * a * a)) * math.exp(2 * a * b) + 1 / (4 * a * a)) * x.square().sum(1)
    waves = (math.exp(a * b) * (a * math.cos(3 * b) + 3 * math.sin(3 * b)) - a) / (a * a + 9) * x.sum(1)
    return torch.cat([x * math.exp(a * b), squares[:, None], waves[:, None]], 1)


def start(rows=3):
    return torch.linspace(0.2, 1.5, 2 * rows, dtype=DOUBLE).reshape(rows, 2)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", METHODS)
def test_integrals_are_within_the_tolerance(method, stepping):
    """In units of it, relative and absolute, the largest error found is 2.5, of bosh3; of the others 0.25."""
    process, x = Growth(), start()
    for tolerance in (1e-4, 1e-6, 1e-8):
        sol = sf.solve(process, process.join(x), method=method, rtol=tolerance, atol=tolerance, stepping=stepping)
        error = (sol.final - truth(x)).abs() / (1 + truth(x).abs())
        assert error.max() < 5 * tolerance


@pytest.mark.parametrize("method", METHODS)
def test_the_dense_output_of_the_integrals(method):
    process, x = Growth(), start()
    times = [0.0, 0.13, 0.5, 0.77, 1.0]
    sol = sf.solve(process, process.join(x), times, method=method, rtol=1e-8, atol=1e-8, stepping="per-sample")
    for t, state in zip(times[1:], sol.x[1:], strict=True):
        # Inside a step the polynomial through the rates is of order 4 for tsit5, 5 for dopri8, whose steps are longer.
        assert (state - truth(x, t)).abs().max() < (1e-5 if method == "dopri8" else 1e-6)


@pytest.mark.parametrize("tableau", [TSIT5, DOPRI5, BOSH3], ids=lambda tableau: tableau.name)
def test_the_polynomial_of_an_integral_is_that_of_its_values(tableau):
    """At θ = 1 it is the rule; at any θ it is exact for the degree that its nodes determine."""
    nodes, weights = (torch.tensor(row, dtype=DOUBLE) for row in rule_for(tableau)[:2])
    basis = torch.tensor(integrated_basis(rule_for(tableau).nodes), dtype=DOUBLE)
    assert torch.allclose(basis.sum(0), weights, atol=1e-14)
    degree, place = len(nodes) - 1, 0.3
    powers = place ** torch.arange(1, len(nodes) + 1, dtype=DOUBLE)
    value = powers @ basis @ nodes**degree
    assert value.item() == pytest.approx(place ** (degree + 1) / (degree + 1), rel=1e-12)


def test_rates_are_asked_for_three_times_a_step_and_once_before():
    """Not at the six stages of tsit5, and not for the guess of the first step."""
    process, x = Growth(), start()
    sol = sf.solve(process, process.join(x), rtol=1e-6, stepping="shared")
    attempts = sol.stats["accepted"] + sol.stats["rejected"]
    assert process.calls == 3 * attempts + 1
    assert sol.stats["nfe_drift"] == 8 * attempts + 2


def test_what_does_not_count_has_no_influence_on_the_steps():
    """Controlled, the integral of a wave of length 0.03 costs steps; masked it does not, and x is what it is without it."""

    class Waves(Growth, precise_time=True):
        def rates(self, t, x):
            return self.ode.velocity(t, x), torch.cos(200 * t).expand(len(x), 1) * x

    x = start()
    steps = {}
    for controlled in (True, False):
        process = Waves(controlled=controlled)
        sol = sf.solve(process, process.join(x), rtol=1e-5, stepping="shared")
        steps[controlled] = sol.stats["accepted"]
    assert steps[True] > 5 * steps[False]
    alone = sf.solve(sf.ODE(lambda t, x: x), x, rtol=1e-5, stepping="shared")
    assert (sol.final[:, :2] - alone.final).abs().max() < 1e-4
    assert (sol.final[:, 2:] - alone.final * math.sin(200) / 200).abs().max() > 1e-3  # unseen, it is wrong: not by luck


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
def test_gradients_of_the_integrals(gradient, stepping):
    """By x0 and by a factor a in x' = a x."""
    factor, x = torch.tensor(0.8, dtype=DOUBLE, requires_grad=True), start().requires_grad_()
    process = Growth(factor=factor)
    weights = torch.tensor([1.0, -1.0, 2.0, 3.0], dtype=DOUBLE)
    final = sf.solve(process, process.join(x), rtol=1e-9, stepping=stepping, gradient=gradient).final
    found = torch.autograd.grad((final * weights).sum(), [factor, x])
    difference = 1e-5
    around = [(truth(x.detach(), a=0.8 + d) * weights).sum().item() for d in (difference, -difference)]
    assert found[0].item() == pytest.approx((around[0] - around[1]) / (2 * difference), rel=1e-6)
    expected = torch.autograd.grad((truth(x, a=0.8) * weights).sum(), x)[0]
    assert torch.allclose(found[1], expected, rtol=1e-6)


@pytest.mark.parametrize("first_step", [None, 0.4])
def test_a_batch_that_narrows_or_rejects_keeps_each_samples_integrals(first_step):
    """Rows that begin far apart reject other steps and end at others; each is what it is alone."""
    process = Growth()
    x = torch.logspace(-3, 2, 16, dtype=DOUBLE)[:, None].expand(-1, 2).contiguous()
    options = {"rtol": 1e-6, "stepping": "per-sample", "first_step": first_step}
    together = sf.solve(process, process.join(x), **options)
    assert first_step is None or 0 < (together.stats["rejected"] > 0).sum() < 16
    alone = torch.cat([sf.solve(process, process.join(row[None]), **options).final for row in x])
    assert torch.allclose(together.final, alone, rtol=1e-12)


class OfRows(Growth, precise_time=True):
    """x' = a x with a factor for each row, which it can, or cannot, say for some of the rows."""

    def __init__(self, factors, known):
        super().__init__(factor=factors)
        self.known = known
        self.sizes = []

    def rates(self, t, x):
        self.sizes.append(len(x))
        return super().rates(t, x)

    def rows(self, keep):
        if not self.known:
            return self
        process = OfRows(self.factor[keep], True)
        process.sizes = self.sizes
        return process


def test_clocks_of_their_own_ask_for_all_nodes_of_a_step_at_once():
    """Once a step, for three times the rows; each row has the value that it has where the batch shares its steps."""
    factors, x = torch.linspace(0.2, 1.4, 6, dtype=DOUBLE)[:, None], start(6)
    process = OfRows(factors, known=True)
    sol = sf.solve(process, process.join(x), rtol=1e-9, stepping="per-sample")
    assert process.sizes[0] == 6 and all(size % 3 == 0 for size in process.sizes[1:])
    attempts = (sol.stats["accepted"] + sol.stats["rejected"]).max()
    assert len(process.sizes) == 1 + attempts
    assert torch.equal(sol.stats["nfe_drift"], 9 * (sol.stats["accepted"] + sol.stats["rejected"]) + 2)
    expected = torch.cat([truth(row[None], a=float(a)) for row, a in zip(x, factors, strict=True)])
    assert torch.allclose(sol.final, expected, rtol=1e-8)


def test_data_of_its_own_for_each_row_is_asked_about_row_by_row():
    """A velocity that cannot be asked about other rows is asked about these, and nothing is wrong or refused."""
    factors, x = torch.linspace(0.2, 1.4, 6, dtype=DOUBLE)[:, None], start(6)
    process = OfRows(factors, known=False)
    sol = sf.solve(process, process.join(x), rtol=1e-9, stepping="per-sample")
    assert process.sizes.count(18) == 1 and set(process.sizes) == {6, 18}
    expected = torch.cat([truth(row[None], a=float(a)) for row, a in zip(x, factors, strict=True)])
    assert torch.allclose(sol.final, expected, rtol=1e-8)


def test_data_that_more_rows_would_take_from_others_is_noticed():
    """The stated wrong version: factors of a table longer than the batch, by place, are there for more rows, and others."""
    table, x = torch.linspace(0.2, 1.4, 40, dtype=DOUBLE)[:, None], start(6)

    class ByPlace(OfRows, precise_time=True):
        def grow(self, t, x):
            return table[: len(x)] * x

    process = ByPlace(torch.tensor(1.0, dtype=DOUBLE), known=False)
    sol = sf.solve(process, process.join(x), rtol=1e-9, stepping="per-sample")
    expected = torch.cat([truth(row[None], a=float(a)) for row, a in zip(x, table, strict=False)])
    assert torch.allclose(sol.final, expected, rtol=1e-8)


def test_large_states_are_asked_about_node_by_node():
    """Beyond some elements nothing is gained, and three times the memory would be lost."""
    process, x = OfRows(torch.tensor(1.0, dtype=DOUBLE), known=True), torch.ones(2000, 2, dtype=DOUBLE)
    sf.solve(process, process.join(x), rtol=1e-4, stepping="per-sample")
    assert set(process.sizes) == {2000}


class Turning(WithIntegrals, precise_time=True):
    """x' with turns, and the integral of |x|²."""

    def __init__(self, steepness):
        super().__init__(sf.ODE(self.turn), torch.Size([2]), 1)
        self.steepness = steepness
        self.sizes = []

    def turn(self, t, x):
        return 2 * torch.tanh(self.steepness * x.flip(1)) - x

    def rates(self, t, x):
        self.sizes.append(len(x))
        return self.ode.velocity(t, x), x.square().sum(1, keepdim=True)


def turning(steepness, rtol):
    """The process, and the errors of x: as its state, and of a solve for x alone."""
    process, x = Turning(steepness), 2 * torch.randn(256, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    end = sf.solve(sf.ODE(process.turn), x, rtol=1e-11, atol=1e-11).final
    options = {"rtol": rtol, "stepping": "per-sample"}
    finals = [
        sf.solve(process, process.join(x), **options).final[:, :2],
        sf.solve(sf.ODE(process.turn), x, **options).final,
    ]
    return process, *((final - end).norm(dim=1) for final in finals)


def test_the_rule_takes_x_nearer_to_the_solution_than_its_method(monkeypatch):
    """In the root-mean-square over the samples, where neither the integral nor the difference sets the steps."""
    for name in ("DIFFER", "SHARE"):
        monkeypatch.setattr(f"sdeflow.solvers.quadrature.{name}", 0.0)
    _, by_rule, by_method = turning(2.0, 1e-4)
    assert by_rule.square().mean() < (0.6 * by_method.norm()) ** 2 / len(by_method)


def test_what_the_two_ends_differ_by_is_taken_for_an_error(monkeypatch):
    """Where velocities turn sharply, the worst sample is not left to an estimate that is small by accident."""
    _, with_it, _ = turning(4.0, 1e-4)
    monkeypatch.setattr("sdeflow.solvers.quadrature.DIFFER", 0.0)
    _, without, _ = turning(4.0, 1e-4)
    assert with_it.max() < 0.6 * without.max()


def test_samples_that_have_arrived_leave_the_batch_at_any_tolerance():
    """The velocity that is known is that at the method's own end, and there it is asked for again on the rows that stay."""
    sizes = turning(4.0, 1e-2)[0].sizes
    assert sizes[-1] < 0.6 * sizes[1]
