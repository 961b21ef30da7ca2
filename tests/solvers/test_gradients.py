"""Gradients of ODE solves in every mode, against finite differences and each other; and under torch.func."""

from itertools import product

import pytest
import torch

import sdeflow as sf
from sdeflow.analysis.memory import peak_bytes
from sdeflow.solvers.adaptive import TABLEAUS

DOUBLE = torch.float64


def pendulum(rate, interval=(0.0, 1.0)):
    def velocity(t, x):
        p, q = x[:, :1], x[:, 1:]
        return torch.cat([q, -rate * p.sin() + 0.3 * torch.cos(3 * t)], 1)

    return sf.ODE(velocity, interval=interval)


def start(batch=3, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 2, generator=generator, dtype=dtype).requires_grad_()


# At 1e-11 the steps that finite differences disturb move the solution by less than what gradcheck looks at.
TIGHT = {"rtol": 1e-11, "atol": 1e-11}
SOLVES = {
    "backprop, fixed": {"steps": 5, "method": "rk4"},
    "checkpoint, fixed": {"steps": 5, "method": "rk4", "gradient": "checkpoint"},
    "adjoint, fixed": {"steps": 200, "method": "torchdiffeq:rk4", "gradient": "adjoint"},
    "backprop": TIGHT,
    "backprop, own clocks": {**TIGHT, "stepping": "per-sample"},
    "checkpoint": {**TIGHT, "gradient": "checkpoint"},
    "checkpoint, own clocks": {**TIGHT, "gradient": "checkpoint", "stepping": "per-sample"},
    "adjoint": {**TIGHT, "gradient": "adjoint"},
}


@pytest.mark.parametrize("times", [(0.0, 0.4, 1.0), (1.0, 0.4, 0.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("mode", SOLVES)
def test_gradients_are_those_of_finite_differences(mode, times):
    rate = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)

    def states(x, rate):
        return sf.solve(pendulum(rate), x, times, **SOLVES[mode]).x[1:]

    # The libraries' adjoints take no undefined gradients.
    strict = {"check_undefined_grad": "adjoint" not in mode}
    assert torch.autograd.gradcheck(states, (start(2), rate), eps=1e-5, atol=1e-6, rtol=1e-5, **strict)


@pytest.mark.parametrize("mode", ["backprop, fixed", "checkpoint, fixed"])
def test_so_are_second_derivatives_of_what_is_differentiated_through_the_steps(mode):
    rate = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)

    def final(x, rate):
        return sf.solve(pendulum(rate), x, **SOLVES[mode]).final

    assert torch.autograd.gradgradcheck(final, (start(1), rate))


# --- checkpoint, with steps that adapt -------------------------------------------------------------------------------


def hard(rate):
    """Rows of different difficulty, a jump, and steps that are rejected."""
    return sf.ODE(
        lambda t, x: -rate * x * (1 + 5 * x.square()) + torch.where(t < 0.5, 5.0, -5.0) * torch.sin(20 * t),
        interval=(0.0, 1.0),
    )


@pytest.mark.parametrize(("method", "stepping"), [*product(TABLEAUS, ("shared", "per-sample")), ("rodas5p", "shared")])
def test_checkpoint_is_backprop_with_the_same_steps_to_rounding(method, stepping):
    """States, counts and gradients, at times between the steps, with rejected steps and a jump, and none of them refused."""
    x = torch.tensor([[0.01, 0.02], [1.0, -2.0], [4.0, 0.1]], dtype=DOUBLE, requires_grad=True)
    rate = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    options = {"rtol": 1e-4, "method": method, "stepping": stepping, "breakpoints": [0.5], "first_step": 0.4}
    found = {}
    for mode in ("backprop", "checkpoint"):
        solution = sf.solve(hard(rate), x, [0.0, 0.123, 0.31, 0.5, 0.77, 1.0], gradient=mode, **options)
        gradients = torch.autograd.grad(solution.x.square().sum(), [x, rate])
        found[mode] = solution, gradients
    (plain, expected), (checkpointed, gradients) = found.values()
    assert torch.as_tensor(plain.stats["rejected"]).max() > 0
    for name in ("accepted", "rejected"):
        assert torch.equal(torch.as_tensor(plain.stats[name]), torch.as_tensor(checkpointed.stats[name]))
    assert torch.allclose(checkpointed.x, plain.x, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients, expected, strict=True):
        assert a.isfinite().all() and torch.allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("mode", ["backprop", "checkpoint"])
def test_a_rejected_step_that_overflows_leaves_the_gradients_finite(mode):
    """x' = −θ x³ from 1 and from 1000: with a first step of 0.1 the second row overflows, while the first goes on."""
    x = torch.tensor([[1.0], [1000.0]], dtype=DOUBLE, requires_grad=True)
    rate = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True)
    ode = sf.ODE(lambda t, x: -rate * x**3 * (x.square() * 1e-30).exp())
    options = {"rtol": 1e-8, "stepping": "per-sample", "first_step": 0.1, "gradient": mode}
    final = sf.solve(ode, x, (0.0, 0.5), **options).final
    by_x, by_rate = torch.autograd.grad(final.sum(), [x, rate])
    truth = x / (1 + 2 * rate * 0.5 * x.square()).sqrt()
    expected = torch.autograd.grad(truth.sum(), [x, rate])
    assert torch.allclose(final, truth, rtol=1e-5)
    assert torch.allclose(by_x, expected[0], rtol=1e-4, atol=1e-9) and torch.allclose(by_rate, expected[1], rtol=1e-4)


def test_checkpoint_of_an_sde_with_adaptive_steps_takes_the_same_path():
    rate = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    sde = sf.SDE(lambda t, x: -rate * x, lambda t, x: 0.3 * torch.ones_like(x), additive=True)
    gradients = []
    for mode in ("backprop", "checkpoint"):
        solution = sf.solve(sde, start(), method="shark", rtol=1e-2, seed=0, gradient=mode)
        gradients.append(torch.autograd.grad(solution.final.square().sum(), rate)[0])
    assert torch.allclose(*gradients, rtol=1e-9)


def test_checkpoint_keeps_a_fraction_of_what_backprop_keeps():
    """60 and more steps: the graph of √n of them and √n states, so 0.3 of the memory is generous."""
    x = start(64)
    ode = sf.ODE(lambda t, x: torch.cos(20 * t) * x.sin().exp(), interval=(0.0, 3.0))
    options = {"method": "bosh3", "rtol": 1e-4}

    def memory(mode):
        def call():
            sf.solve(ode, x, gradient=mode, **options).final.sum().backward()

        return peak_bytes(call, torch.device("cpu"))

    assert sf.solve(ode, x, **options).stats["accepted"] > 60
    assert memory("checkpoint") < 0.3 * memory("backprop")


def test_checkpoint_with_nothing_to_differentiate_and_with_failures():
    x = torch.ones(2, 1)
    plain = sf.solve(sf.ODE(lambda t, x: -x), x, rtol=1e-5, gradient="checkpoint").final
    assert torch.allclose(plain, torch.exp(torch.tensor(-1.0)).expand(2, 1), atol=1e-4) and not plain.requires_grad
    blows_up = sf.ODE(lambda t, x: x**2)
    y = torch.tensor([[0.5], [2.0]], dtype=DOUBLE, requires_grad=True)
    options = {"rtol": 1e-5, "stepping": "per-sample", "gradient": "checkpoint", "on_failure": "return"}
    solution = sf.solve(blows_up, y, **options)  # x = y/(1 − t y)
    assert solution.success.tolist() == [True, False] and solution.final[1].isnan()
    (gradient,) = torch.autograd.grad(solution.final[0].sum(), y)
    assert gradient[0].item() == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("option", [{"dense": True}, {"event": lambda t, x: x[:, 0] - 0.5}], ids=["dense", "event"])
def test_checkpoint_says_what_it_does_not_keep(option):
    with pytest.raises(sf.errors.ArgumentError, match="backprop"):
        sf.solve(sf.ODE(lambda t, x: -x), torch.ones(2, 1), rtol=1e-5, gradient="checkpoint", **option)


# --- torch.func ------------------------------------------------------------------------------------------------------


FIXED = ("euler", "heun", "rk4")


def final(x, rate, method):
    return sf.solve(pendulum(rate), x, steps=5, method=method).final


@pytest.mark.parametrize("method", FIXED)
def test_forward_mode_is_reverse_mode(method):
    x, rate = start().detach(), torch.tensor(2.0, dtype=DOUBLE)
    tangents = torch.ones_like(x), torch.tensor(0.5, dtype=DOUBLE)
    value, along = torch.func.jvp(lambda x, rate: final(x, rate, method), (x, rate), tangents)
    assert torch.allclose(value, final(x, rate, method))
    by_x, by_rate = torch.func.jacrev(lambda x, rate: final(x, rate, method), argnums=(0, 1))(x, rate)
    expected = torch.einsum("bicj,cj->bi", by_x, tangents[0]) + by_rate * tangents[1]
    assert torch.allclose(along, expected, rtol=1e-10)


@pytest.mark.parametrize("method", FIXED)
def test_functional_gradients_are_those_of_autograd(method):
    x, rate = start(), torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    loss = lambda x, rate: final(x, rate, method).square().sum()  # noqa: E731
    found = torch.func.grad(loss, argnums=(0, 1))(x.detach(), rate.detach())
    for a, b in zip(found, torch.autograd.grad(loss(x, rate), [x, rate]), strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("method", FIXED)
def test_an_ensemble_of_parameters_is_a_vmap(method):
    """``on_failure="return"``: whether a solve has failed is no question that vmap can answer."""

    def final(x, rate):
        return sf.solve(pendulum(rate), x, steps=5, method=method, on_failure="return").final

    x, rates = start().detach(), torch.tensor([0.5, 1.0, 2.0], dtype=DOUBLE)
    found = torch.vmap(lambda rate: final(x, rate))(rates)
    assert torch.allclose(found, torch.stack([final(x, rate) for rate in rates]), rtol=1e-12)
    slopes = torch.vmap(torch.func.grad(lambda rate: final(x, rate).sum()))(rates)
    singly = torch.stack([torch.func.grad(lambda rate: final(x, rate).sum())(rate) for rate in rates])
    assert torch.allclose(slopes, singly, rtol=1e-12)


def test_checkpoint_follows_what_a_velocity_captures_back_to_where_it_came_from():
    """A tensor with a history of its own, through which each span has to go; backprop says what its gradient is."""
    seed, x = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True), start()
    gradients = []
    for mode in ("backprop", "checkpoint"):
        rate = seed.exp().sin()
        final = sf.solve(sf.ODE(lambda t, x, rate=rate: -rate * x), x, rtol=1e-8, gradient=mode).final
        gradients.append(torch.autograd.grad(final.square().sum(), seed)[0])
    assert torch.allclose(*gradients, rtol=1e-9)


def test_checkpoint_refuses_to_lose_the_gradient_of_what_is_used_later_only():
    """A parameter behind an 'if' on the time; with a breakpoint where it sets in, it is found."""
    late, x = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True), start()
    ode = sf.ODE(lambda t, x: -x if t < 0.5 else -late * x)
    options = {"rtol": 1e-6, "first_step": 0.1, "stepping": "shared"}
    lost = sf.solve(ode, x, gradient="checkpoint", **options).final
    with pytest.raises(sf.errors.ArgumentError, match="breakpoints"):
        lost.sum().backward()
    modes = ("backprop", "checkpoint")
    finals = [sf.solve(ode, x, gradient=mode, breakpoints=[0.5], **options).final for mode in modes]
    expected, found = (torch.autograd.grad(final.sum(), late)[0] for final in finals)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9) and expected.abs() > 0.1


def test_checkpoint_of_a_velocity_that_differentiates_takes_each_span_twice_more():
    """As the divergence of a log-density does: evaluations, forward and backward, no more than 3.5 times those of backprop."""
    calls = []

    def velocity(t, x):
        calls.append(0)
        return (x * 1.3).sin()

    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2).double(), 1.0), 1)
    x, counts = start(), []
    for mode in ("backprop", "checkpoint"):
        calls.clear()
        flow = sf.Flow(sf.ODE(velocity), base, rtol=1e-7, gradient=mode)
        flow.log_prob(x).sum().backward()
        counts.append(len(calls))
    assert counts[1] < 3.5 * counts[0]
