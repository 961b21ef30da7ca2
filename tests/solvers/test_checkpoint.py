"""gradient="checkpoint": the gradients of backprop to the last bit, with memory for √n steps."""

import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sdeflow as sf


def sde(rate, additive=False):
    diffusion = (lambda t, x: 0.3 + 0.2 * t) if additive else (lambda t, x: 0.3 * torch.sin(x))
    return sf.SDE(lambda t, x: -rate * x.tanh() + t, diffusion, additive=additive)


@pytest.mark.parametrize(("method", "additive"), [("euler-maruyama", False), ("sriw1", False), ("shark", True)])
@pytest.mark.parametrize("steps", [1, 7, 30])
def test_gradients_are_those_of_backprop_to_the_last_bit(method, additive, steps):
    x, rate = torch.ones(5, 2, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    times = [0.0, 0.31, 1.0]
    results = []
    for gradient in ("backprop", "checkpoint"):
        options = {"steps": steps, "seed": 1, "method": method, "gradient": gradient, "breakpoints": [0.5]}
        solution = sf.solve(sde(rate, additive), x, times, **options)
        results.append((solution.x, *torch.autograd.grad(solution.x.square().sum(), [x, rate])))
    for backprop, checkpoint in zip(*results, strict=True):
        assert torch.equal(backprop, checkpoint)


def test_a_path_of_the_callers_and_odes_too():
    x = torch.ones(5, 2, requires_grad=True)
    path = sf.BrownianPath((5, 2), 0.0, 1.0, seed=0)
    for process, options in ((sde(0.5), {"brownian": path}), (sf.ODE(lambda t, x: -x * t), {"method": "rk4"})):
        gradients = [
            torch.autograd.grad(sf.solve(process, x, steps=9, gradient=mode, **options).final.sum(), x)[0]
            for mode in ("backprop", "checkpoint")
        ]
        assert torch.equal(*gradients)


class LiveTensors(TorchDispatchMode):
    """The most values alive at once, of the tensors that operations return."""

    def __init__(self):
        super().__init__()
        self.alive = self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and not tensor._is_view():
                count = tensor.numel()
                self.alive += count
                weakref.finalize(tensor, self.free, count)
        self.most = max(self.most, self.alive)
        return out

    def free(self, count):
        self.alive -= count


def most_alive(gradient, steps):
    gc.collect()
    x = torch.ones(1000, 2, requires_grad=True)
    with LiveTensors() as live:
        sf.solve(sde(0.7), x, steps=steps, seed=0, method="euler-maruyama", gradient=gradient).final.sum().backward()
    return live.most


def test_memory_grows_as_the_root_of_the_number_of_steps():
    """From 100 steps to 1600: 4 times as much, where backprop takes 16 times."""
    few, many = (most_alive("checkpoint", steps) for steps in (100, 1600))
    assert many < 6 * few
    assert most_alive("backprop", 1600) > 12 * most_alive("backprop", 100)


# --- against closed forms ------------------------------------------------------------------------------------------------


class Geometric(sf.SDE):
    """Geometric Brownian motion with parameters: x(1) = x(0) exp(μ − σ²/2 + σW)."""

    def __init__(self, calculus):
        super().__init__(calculus=calculus)
        self.mu = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.sigma = torch.nn.Parameter(torch.tensor(0.6, dtype=torch.float64))

    def drift(self, t, x):
        return (self.mu if self.calculus == "ito" else self.mu - self.sigma**2 / 2) * x

    def diffusion(self, t, x):
        return self.sigma * x


def sensitivities(method, gradient, steps, calculus, path):
    """Gradients of mean x(1) by x(0), μ and σ: those of a solve, and exact, path by path."""
    process = Geometric(calculus)
    x0 = torch.ones(path.shape, dtype=torch.float64, requires_grad=True)
    leaves = [x0, process.mu, process.sigma]
    final = sf.solve(process, x0, steps=steps, method=method, gradient=gradient, brownian=path).final
    exact = x0 * torch.exp(process.mu - process.sigma**2 / 2 + process.sigma * path(0.0, 1.0))
    return [torch.cat([g.flatten() for g in torch.autograd.grad(x.mean(), leaves)]) for x in (final, exact)]


@pytest.mark.parametrize(
    ("method", "gradient", "calculus", "order"),
    [
        ("sriw1", "backprop", "ito", 1.5),
        ("sriw1", "checkpoint", "ito", 1.5),
        ("milstein", "checkpoint", "ito", 1.0),
        ("heun", "checkpoint", "stratonovich", 1.0),
        ("torchsde:midpoint", "adjoint", "stratonovich", 1.0),
        ("torchsde:reversible_heun", "adjoint", "stratonovich", 0.5),
        ("torchsde:euler", "adjoint", "ito", 0.5),
    ],
)
def test_gradients_converge_to_the_closed_form(method, gradient, calculus, order):
    """From 16 steps to 256 the error by x(0), path by path, falls as the order of the method, less a quarter.

    Those by μ and σ are sums over paths, whose errors partly cancel: small, but with no order that shows on one seed.
    """
    path = sf.BrownianPath((200, 1), 0, 1, seed=0, cells=256, levy="space-time", dtype=torch.float64)
    errors = []
    for steps in (16, 256):
        found, exact = sensitivities(method, gradient, steps, calculus, path)
        errors.append(float((found - exact)[:-2].norm() / exact[:-2].norm()))
    assert ((found - exact)[-2:].abs() < 0.15 * exact[-2:].abs()).all()
    assert errors[1] < errors[0] / 16 ** (order - 0.25)


def test_the_adjoint_of_reversible_heun_is_backprop():
    path = sf.BrownianPath((50, 1), 0, 1, seed=0, cells=64, dtype=torch.float64)
    modes = [
        sensitivities("torchsde:reversible_heun", mode, 64, "stratonovich", path)[0] for mode in ("backprop", "adjoint")
    ]
    torch.testing.assert_close(*modes, rtol=1e-12, atol=1e-12)
