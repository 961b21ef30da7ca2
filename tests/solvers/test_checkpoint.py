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
