"""States keep their device, whatever the default one is.

Without a second device a tensor that is made on the wrong one goes unnoticed. So the default device is ``meta`` here, on which
tensors have no data: whatever is made there, and not beside the state or on the host by name, cannot be mixed with it or read.
"""

from contextlib import contextmanager
from itertools import product

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

import sdeflow as sf

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
on_every_device = pytest.mark.parametrize("device", DEVICES)


@contextmanager
def elsewhere():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def start(device):
    return torch.linspace(-1, 2, 16, device=device).reshape(8, 2)


def problems():
    def columns(t, x):
        return 0.1 * torch.stack([x, x * x], -1)

    diffusion = sf.processes.VariancePreserving()
    return {
        "ode": sf.ODE(lambda t, x: -x),
        "additive": sf.SDE(lambda t, x: -x, lambda t, x: 0.1, additive=True),
        "ito": sf.SDE(lambda t, x: -x, lambda t, x: 0.1 * x),
        "stratonovich": sf.SDE(lambda t, x: -x, lambda t, x: 0.1 * x, calculus="stratonovich"),
        "general": sf.SDE(lambda t, x: -x, columns, noise="general"),
        "general-stratonovich": sf.SDE(lambda t, x: -x, columns, noise="general", calculus="stratonovich"),
        "flow": diffusion.probability_flow(lambda t, x: -x),
        "reversal": diffusion.reverse(lambda t, x: -x),
        "backward": diffusion.reverse(lambda t, x: -x, clock="backward"),
    }


# The backward pass of another method; and what makes tensors on the default device in torchdiffeq.
NOT_OURS = ("torchsde:adjoint_reversible_heun", "torchdiffeq:scipy_solver")
KINDS = {
    "fixed": {"steps": 4},
    "adaptive": {"rtol": 0.05, "atol": 0.05},
    "per-sample": {"rtol": 0.05, "atol": 0.05, "stepping": "per-sample"},
}


def test_a_tensor_on_the_default_device_is_noticed():
    """What the other tests rely on."""
    careless = sf.ODE(lambda t, x: x * torch.ones(2))
    with elsewhere(), pytest.raises((RuntimeError, NotImplementedError, sf.SdeflowError)):
        sf.solve(careless, start("cpu"), steps=4).final.tolist()


@on_every_device
@pytest.mark.parametrize("method", [m.name for m in sf.methods() if m.name not in NOT_OURS])
@pytest.mark.filterwarnings("ignore")
def test_every_method_keeps_to_the_device_of_the_state(method, device):
    """With each kind of steps on two of the problems that it takes, of which there is one at least."""
    taken = {}
    for process, (kind, options) in product(problems().values(), KINDS.items()):
        seed = 0 if isinstance(process, sf.SDE) else None
        try:
            if taken.get(kind, 0) == 2:
                continue
            expected = sf.solve(process, start(device), method=method, seed=seed, **options).final
        except (sf.errors.MethodError, sf.errors.ArgumentError):
            continue
        taken[kind] = taken.get(kind, 0) + 1
        with elsewhere():
            final = sf.solve(process, start(device), method=method, seed=seed, **options).final
        assert final.device.type == device
        assert torch.equal(final, expected)
    assert taken


@on_every_device
@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint"])
@pytest.mark.parametrize("kind", ["fixed", "adaptive"])
def test_gradients_keep_to_it(gradient, kind, device):
    process, options = problems()["ode"], KINDS[kind]
    x = start(device).requires_grad_()
    method = {"fixed": "torchdiffeq:rk4", "adaptive": "torchdiffeq:dopri5"}[kind] if gradient == "adjoint" else None
    with elsewhere():
        (grad,) = torch.autograd.grad(sf.solve(process, x, method=method, gradient=gradient, **options).final.sum(), x)
    assert grad.device.type == device
    assert torch.allclose(grad, torch.full_like(x, 0.36787944), atol=5e-2)


@on_every_device
def test_noise_is_the_same_on_every_device(device):
    there = {"shape": (8, 2), "t0": 0.0, "t1": 1.0, "seed": 0, "cells": 4, "levy": "space-time"}
    on_cpu = sf.BrownianPath(**there, device="cpu")
    with elsewhere():
        path = sf.BrownianPath(**there, device=device)
        s = torch.linspace(0, 0.5, 8, device=device, dtype=torch.float64)
        answers = [*path.levy(0.1, 0.7), path(s, s + 0.3), path.area(0.0, 0.5), path.cell(2)]
    s = s.cpu()
    expected = [*on_cpu.levy(0.1, 0.7), on_cpu(s, s + 0.3), on_cpu.area(0.0, 0.5), on_cpu.cell(2)]
    for answer, like in zip(answers, expected, strict=True):
        assert answer.device.type == device
        assert torch.equal(answer.cpu(), like)


def test_time_grids_are_on_the_host():
    process = sf.processes.VariancePreserving()
    with elsewhere():
        for name in sf.solvers.time_grids.__all__:
            grid = getattr(sf.solvers.time_grids, name)(process, 8)
            assert torch.as_tensor(grid, device="cpu").isfinite().all()


@on_every_device
@pytest.mark.parametrize("name", ["VariancePreserving", "VarianceExploding", "OrnsteinUhlenbeck", "BrownianMotion"])
def test_laws_keep_to_it(name, device):
    process = getattr(sf.processes, name)()
    with elsewhere():
        law = process.marginal(start(device), 0.5)
        assert law.mean.device.type == device
        assert law.log_prob(start(device)).isfinite().all()


@on_every_device
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_likelihoods_keep_to_it(divergence, device):
    base = Independent(Normal(torch.zeros(2, device=device), torch.ones(2, device=device)), 1)
    flow = sf.Flow(problems()["flow"], base, "end", divergence=divergence, seed=0)
    expected = flow.log_prob(start(device))
    with elsewhere():
        assert torch.equal(flow.log_prob(start(device)), expected)
        estimate = flow.log_prob_with_error(start(device))
        assert torch.equal(flow.encode(flow.decode(start(device))).isfinite(), torch.isfinite(start(device)))
    assert {v.device.type for v in (estimate.value, estimate.stderr, estimate.solver_error)} == {device}


class Net(nn.Module):
    def __init__(self, device):
        super().__init__()
        self.inner = nn.Linear(3, 2, device=device)

    def forward(self, t, x):
        return self.inner(torch.cat([x, t.expand(len(x), 1)], 1))


@on_every_device
@pytest.mark.parametrize("kind", ["flow-matching", "denoising"])
def test_models_keep_to_it(kind, device):
    base = Independent(Normal(torch.zeros(2, device=device), torch.ones(2, device=device)), 1)
    if kind == "flow-matching":
        model = sf.models.FlowMatching(Net(device), base)
    else:
        model = sf.models.DenoisingScoreMatching(Net(device), sf.processes.VariancePreserving(), (2,), base=base)
    with elsewhere():
        loss = model.loss(start(device), seed=0)
        loss.backward()
        assert loss.device.type == device
        assert model.sample(4, seed=0, solver={"steps": 4, "method": "heun"}).device.type == device
        assert model.log_prob(start(device)).isfinite().all()
