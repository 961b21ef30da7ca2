"""Derivatives with respect to the times of a solve, against a solution that is known: x' = (1 + t) x."""

import pytest
import torch
from torch.autograd import forward_ad

import sdeflow as sf
from sdeflow.errors import ArgumentError

DOUBLE = torch.float64
MODES = [
    {"method": "dopri8", "rtol": 1e-10},
    {"method": "dopri8", "rtol": 1e-10, "stepping": "per-sample"},
    {"method": "dopri8", "rtol": 1e-10, "gradient": "checkpoint"},
    {"method": "rk4", "steps": 200},
    {"method": "rk4", "steps": 200, "gradient": "checkpoint"},
    {"method": "torchdiffeq:dopri8", "rtol": 1e-10},
    {"method": "torchdiffeq:dopri8", "rtol": 1e-10, "gradient": "adjoint"},
]
GROWTH = sf.ODE(lambda t, x: (1 + t) * x, interval=(0.0, 2.0))


def exact(t, x):
    return x * torch.exp(t + t**2 / 2 - t[0] - t[0] ** 2 / 2)[:, None, None]


@pytest.mark.parametrize("times", [[0.2, 0.9, 1.7], [1.7, 0.9, 0.2]], ids=["forward", "backward"])
@pytest.mark.parametrize("options", MODES, ids=lambda options: "-".join(map(str, options.values())))
def test_a_gradient_with_respect_to_the_times_is_that_of_the_solution(options, times):
    t = torch.tensor(times, dtype=DOUBLE, requires_grad=True)
    x = torch.tensor([[0.5, -1.0], [2.0, 0.1]], dtype=DOUBLE, requires_grad=True)
    weights = torch.randn(3, 2, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    solution = sf.solve(GROWTH, x, t, **options).x
    assert torch.equal(solution, sf.solve(GROWTH, x, times, **options).x)
    found = torch.autograd.grad((solution * weights).sum(), (t, x))
    expected = torch.autograd.grad((exact(t, x) * weights).sum(), (t, x))
    for gradient, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=1e-6, atol=1e-6)


def test_second_derivatives_and_those_of_forward_mode():
    x = torch.tensor([[0.5, -1.0]], dtype=DOUBLE)
    t = torch.tensor([0.2, 0.9, 1.7], dtype=DOUBLE)

    def total(of):
        return lambda t, x: (of(t, x) * torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)[:, None, None]).square().sum()

    def solved(t, x):
        return sf.solve(GROWTH, x, t, method="rk4", steps=200).x

    found, truth = (torch.autograd.functional.hessian(total(of), (t, x)) for of in (solved, exact))
    for a, b in zip(sum(found, ()), sum(truth, ()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with forward_ad.dual_level():
        tangents = [
            forward_ad.unpack_dual(of(forward_ad.make_dual(t, torch.ones_like(t)), x)).tangent for of in (solved, exact)
        ]
    torch.testing.assert_close(*tangents, rtol=1e-6, atol=1e-6)


def test_one_of_the_times_may_have_a_gradient():
    end = torch.tensor(1.5, requires_grad=True)
    x = torch.ones(4, 2)
    final = sf.solve(GROWTH, x, (0.5, end), rtol=1e-6).final
    (slope,) = torch.autograd.grad(final.sum(), end)
    assert slope.item() == pytest.approx(8 * 2.5 * torch.exp(torch.tensor(2.0)).item(), rel=1e-4)
    with torch.no_grad():
        assert not sf.solve(GROWTH, x, (0.5, end), rtol=1e-6).final.requires_grad


def test_what_has_no_derivative_in_time_is_refused():
    t = torch.tensor([0.0, 1.0], requires_grad=True)
    noisy = sf.processes.OrnsteinUhlenbeck(theta=1.0, mean=0.0, sigma=0.5)
    with pytest.raises(ArgumentError, match=r"paths of an SDE have none.*t\.detach\(\)"):
        sf.solve(noisy, torch.ones(2, 1), t, dt=0.1)
    with pytest.raises(ArgumentError, match=r"event= ends samples"):
        sf.solve(GROWTH, torch.ones(2, 1), t, rtol=1e-5, event=lambda t, x: x[:, 0] - 2)
