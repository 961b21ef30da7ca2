"""Dense output, sol(t)."""

import pytest
import torch

import sdeflow as sf

DOUBLE = torch.float64
METHODS = {"tsit5": 1e3, "dopri5": 1e3, "bosh3": 1e3, "dopri8": 1e3, "rodas5p": 3e3}
STEPPINGS = ["shared", "per-sample"]


def problem():
    ode = sf.ODE(lambda t, x: torch.cos(t) * x, interval=(0.0, 6.0))
    x0 = torch.tensor([[1.0], [-0.01], [30.0]], dtype=DOUBLE)
    return ode, x0, lambda t: x0 * torch.exp(torch.sin(torch.as_tensor(t, dtype=DOUBLE)))


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("times", [(0.0, 6.0), (6.0, 0.0)])
def test_it_is_the_solution_everywhere(method, stepping, times):
    """Within a few times what the tolerance gives at the save times (methods' interpolants are one order lower)."""
    ode, _, exact = problem()
    sol = sf.solve(ode, exact(times[0]), times, rtol=1e-8, method=method, stepping=stepping, dense=True)
    at = torch.linspace(0.0, 6.0, 101, dtype=DOUBLE)
    truth = torch.stack([exact(t) for t in at])
    error = ((sol(at) - truth).abs() / (1 + truth.abs())).max()
    assert error < METHODS[method] * 1e-8
    assert torch.allclose(sol(times[0]), sol.x[0], atol=1e-12) and torch.allclose(sol(times[1]), sol.final, atol=1e-10)
    assert sol(1.5).shape == (3, 1) and sol([1.5]).shape == (1, 3, 1)


@pytest.mark.parametrize("method", METHODS)
def test_saves_and_dense_output_are_one(method):
    """The states at save times inside steps are those of sol(t), in shared steps and in each sample's own."""
    ode, x0, _ = problem()
    for stepping in STEPPINGS:
        sol = sf.solve(ode, x0, [0.0, 1.1, 1.2, 4.0, 6.0], rtol=1e-5, method=method, stepping=stepping, dense=True)
        assert torch.allclose(sol(sol.t), sol.x, atol=1e-12)


def test_the_interpolant_of_dop853_is_of_order_seven():
    """Global error inside steps of one solve, halving the steps by the tolerance: three places in a step, order > 6."""
    ode, x0, exact = problem()
    errors, steps = [], []
    for tolerance in (1e-7, 1e-11):
        sol = sf.solve(ode, x0[:1], rtol=tolerance, method="dopri8", dense=True)
        at = torch.linspace(0.0, 6.0, 301, dtype=DOUBLE)
        errors.append((sol(at) - torch.stack([exact(t)[:1] for t in at])).abs().max().item())
        steps.append(sol.stats["accepted"])
    import math

    order = math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])
    assert order > 6


def test_gradients_go_through_it():
    theta = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    for method in METHODS:
        sol = sf.solve(
            sf.ODE(lambda t, x: theta * x), torch.ones(1, 1, dtype=DOUBLE), rtol=1e-9, method=method, dense=True
        )
        (slope,) = torch.autograd.grad(sol(0.4).sum(), theta)
        assert slope.item() == pytest.approx(0.4 * torch.exp(0.4 * theta).item(), rel=1e-6)


def test_refusals():
    ode, x0, _ = problem()
    sol = sf.solve(ode, x0, rtol=1e-4)
    with pytest.raises(sf.ArgumentError, match="dense=True"):
        sol(1.0)
    with pytest.raises(sf.MethodError, match="dense=True needs"):
        sf.solve(ode, x0, steps=10, dense=True)
    sol = sf.solve(ode, x0, rtol=1e-4, dense=True)
    with pytest.raises(sf.ArgumentError, match="outside"):
        sol(6.1)
    with pytest.raises(sf.ArgumentError, match="vector"):
        sol([[1.0]])


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
@pytest.mark.parametrize("forward", [True, False])
def test_what_a_sample_did_not_come_to_is_nan(stepping, forward):
    """x/(1 − x t) is infinite at t = 1/x: there is no state beyond, neither at save times nor between; others have theirs."""
    sign = 1.0 if forward else -1.0
    blow_up = sf.ODE(lambda t, x: sign * x.square())
    x0 = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    times = (0.0, 1.0) if forward else (1.0, 0.0)
    sol = sf.solve(blow_up, x0, times, rtol=1e-8, stepping=stepping, dense=True, on_failure="return")
    early, late = sol([0.25, 0.75] if forward else [0.75, 0.25])
    torch.testing.assert_close(early, x0 / (1 - 0.25 * x0), rtol=1e-6, atol=0.0)
    assert late[1].isnan()
    if stepping == "per-sample":
        torch.testing.assert_close(late[0], x0[0] / (1 - 0.75 * x0[0]), rtol=1e-6, atol=0.0)
    with pytest.raises(sf.ArgumentError, match="outside the span"):
        sol(float("nan"))
