"""Divergence, Jacobian, diagonal, Hutchinson and gradient against closed forms, for vectors and images."""

import math

import pytest
import torch
from torch import nn

from sdeflow.calculus import derivatives, diagonal, divergence, gradient, hutchinson, jacobian

EVENTS = [(1,), (3,), (2, 2), (1, 2, 3)]
every_event = pytest.mark.parametrize("event", EVENTS, ids=str)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Curved:
    """y_i = sin(Σ_j W_ij x_j), whose Jacobian is diag(cos(Wx)) W."""

    def __init__(self, event, outputs=None):
        self.size, self.event = math.prod(event), event
        self.outputs = outputs or event
        self.W = normal(math.prod(self.outputs), self.size, seed=1)

    def __call__(self, x):
        return torch.sin(x.flatten(1) @ self.W.mT).reshape(len(x), *self.outputs)

    def jacobian(self, x):
        return torch.cos(x.flatten(1) @ self.W.mT)[:, :, None] * self.W


@every_event
def test_against_closed_forms(event):
    field, x = Curved(event), normal(5, *event)
    J = field.jacobian(x)
    for function, expected in (
        (jacobian, J),
        (diagonal, J.diagonal(dim1=1, dim2=2).reshape(x.shape)),
        (divergence, J.diagonal(dim1=1, dim2=2).sum(1)),
    ):
        value, found = function(field, x)
        torch.testing.assert_close(value, field(x))
        torch.testing.assert_close(found, expected)


@every_event
def test_a_jacobian_need_not_be_square(event):
    field, x = Curved(event, outputs=(2, 3)), normal(4, *event)
    value, J = jacobian(field, x)
    assert value.shape == (4, 2, 3) and J.shape == (4, 6, math.prod(event))
    torch.testing.assert_close(J, field.jacobian(x))


@every_event
def test_gradient(event):
    x = normal(5, *event)
    value, slope = gradient(lambda x: x.flatten(1).pow(3).sum(1), x)
    torch.testing.assert_close(value, x.flatten(1).pow(3).sum(1))
    torch.testing.assert_close(slope, 3 * x.square())


@every_event
def test_hutchinson_is_a_quadratic_form_for_each_probe(event):
    field, x, probes = Curved(event), normal(5, *event), normal(7, 5, *event, seed=2)
    value, estimates = hutchinson(field, x, probes)
    e = probes.flatten(2)
    torch.testing.assert_close(value, field(x))
    torch.testing.assert_close(estimates, torch.einsum("kbi,bij,kbj->kb", e, field.jacobian(x), e))


def test_hutchinson_is_unbiased():
    """All 2^D sign vectors: their mean is the trace exactly."""
    field, x = Curved((4,)), normal(3, 4)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    probes = signs[:, None].expand(16, 3, 4)
    torch.testing.assert_close(hutchinson(field, x, probes)[1].mean(0), divergence(field, x)[1])


@every_event
@pytest.mark.parametrize("elements", [1, 7, 2**22])
def test_chunks_change_nothing(event, elements, monkeypatch):
    field, x, probes = Curved(event), normal(5, *event), normal(6, 5, *event, seed=3)
    whole = (*jacobian(field, x), *diagonal(field, x), *divergence(field, x), *hutchinson(field, x, probes))
    monkeypatch.setattr(derivatives, "CHUNK_ELEMENTS", elements)
    parts = (*jacobian(field, x), *diagonal(field, x), *divergence(field, x), *hutchinson(field, x, probes))
    torch.testing.assert_close(parts, whole)


def test_the_field_is_evaluated_once(monkeypatch):
    monkeypatch.setattr(derivatives, "CHUNK_ELEMENTS", 1)
    calls = []

    def field(x):
        calls.append(x)
        return x.square()

    x = normal(2, 3)
    for function in (jacobian, diagonal, divergence, lambda f, x: hutchinson(f, x, x.expand(4, 2, 3))):
        calls.clear()
        function(field, x)
        assert len(calls) == 1


def everything(field, x):
    """All operators on one field, each as a pair (name, tensors)."""
    probes = normal(2, *x.shape, seed=4).to(x.dtype)
    yield "jacobian", jacobian(field, x)
    yield "diagonal", diagonal(field, x)
    yield "divergence", divergence(field, x)
    yield "hutchinson", hutchinson(field, x, probes)
    yield "gradient", gradient(lambda y: field(y).square().flatten(1).sum(1), x)


@pytest.mark.parametrize("constant", [lambda x: torch.ones_like(x), lambda x: 0 * x.detach() + 2])
def test_a_field_that_ignores_the_state_has_derivative_zero(constant):
    x = normal(3, 2)
    for name, (_, derivative) in everything(constant, x):
        assert not derivative.any(), name


def test_a_trainable_field_that_ignores_the_state_has_derivative_zero():
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    for name, (_, derivative) in everything(lambda x: weight.expand_as(x), normal(3, 2)):
        assert not derivative.any(), name


def test_gradients_flow_to_parameters():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = normal(4, 3)
    for name, outputs in everything(net, x):
        assert all(value.requires_grad for value in outputs), name
        for value in outputs:
            gradients = torch.autograd.grad(value.square().sum(), net[0].weight, retain_graph=True)
            assert gradients[0].abs().max() > 0, name
    # and they are right: the divergence of y = w x is D w
    w = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(divergence(lambda x: w**2 * x, x)[1].sum(), w)
    assert slope.item() == pytest.approx(4 * 3 * 2 * 1.5)


def test_gradients_flow_to_the_state():
    x = normal(4, 3).requires_grad_()
    for name, outputs in everything(lambda x: x**3, x):
        for value in outputs:
            (slope,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
            assert slope.abs().max() > 0, name
    (slope,) = torch.autograd.grad(divergence(lambda x: x**3, x)[1].sum(), x)
    torch.testing.assert_close(slope, 6 * x)
    assert x.grad is None


def test_operators_nest():
    """∇·∇f = Δf for f = |x|⁴: 4(D + 2)|x|²; at any level the graph is there while it is needed."""
    x = normal(4, 3)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            slope, laplacian = divergence(lambda y: gradient(lambda z: z.square().sum(1).square(), y)[1], x)
        squares = x.square().sum(1)
        torch.testing.assert_close(slope, 4 * squares[:, None] * x)
        torch.testing.assert_close(laplacian, 4 * 5 * squares)
        assert not laplacian.requires_grad


def test_no_graph_is_kept_when_nothing_upstream_requires_grad():
    for name, outputs in everything(torch.sin, normal(3, 2)):
        assert not any(value.requires_grad for value in outputs), name


def test_no_graph_is_kept_with_gradients_off():
    net = nn.Linear(2, 2).double()
    x = normal(3, 2).requires_grad_()
    with torch.no_grad():
        for name, outputs in everything(net, x):
            assert not any(value.requires_grad for value in outputs), name
            assert outputs[1].abs().max() > 0, name
    assert x.grad is None and net.weight.grad is None


def test_no_graph_is_kept_for_frozen_parameters():
    net = nn.Linear(2, 2).double().requires_grad_(False)
    for name, outputs in everything(net, normal(3, 2)):
        assert not any(value.requires_grad for value in outputs), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_state_is_kept(dtype):
    for name, outputs in everything(torch.tanh, normal(3, 2).to(dtype)):
        assert all(value.dtype is dtype for value in outputs), name


def test_batches_do_not_mix():
    field, x = Curved((3,)), normal(5, 3)
    for name, (_, derivative) in everything(field, x):
        changed = x.clone()
        changed[0] += 1
        again = dict(everything(field, changed))[name][1]
        batch = 1 if name == "hutchinson" else 0
        torch.testing.assert_close(again.narrow(batch, 1, 4), derivative.narrow(batch, 1, 4))
        assert not torch.allclose(again.narrow(batch, 0, 1), derivative.narrow(batch, 0, 1))


@pytest.mark.parametrize("graph", [False, True])
def test_products_one_by_one_and_together_are_the_same(graph, monkeypatch):
    """The divergence, the Jacobian and probes; which way is taken is a matter of speed."""
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(graph)
    mix = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    probes = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def field(y):
        return torch.tanh(y @ mix)

    found = []
    for few in (0, 100):
        monkeypatch.setattr(derivatives, "FEW", few)
        trace, jacobian = derivatives.divergence(field, x)[1], derivatives.jacobian(field, x)[1]
        values = [trace, jacobian, derivatives.hutchinson(field, x, probes)[1]]
        assert all(value.requires_grad is graph for value in values)
        if graph:
            values.append(torch.autograd.grad(trace.sum(), x)[0])
        assert torch.allclose(trace, jacobian.diagonal(dim1=1, dim2=2).sum(1))
        found.append(values)
    for together, apart in zip(*found, strict=True):
        assert torch.allclose(together, apart, rtol=1e-12)
    monkeypatch.setattr(derivatives, "FEW", 100)
    assert torch.equal(derivatives.divergence(lambda y: 0 * y + 1, x)[1], torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4), (16, 2, 2)])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_group_norm_has_the_same_derivatives_with_a_graph(shape, rows, groups):
    """torch's batched products of it are wrong where they have a graph: silently, or with an error about sizes."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(shape[0], 16, 3, padding=1),
        torch.nn.GroupNorm(groups, 16),
        torch.nn.SiLU(),
        torch.nn.Conv2d(16, shape[0], 3, padding=1),
    ).double()
    x = torch.randn(rows, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = [divergence(net, x)[1], jacobian(net, x)[1]]
    found = [divergence(net, x)[1], jacobian(net, x)[1]]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    weight = net[0].weight
    (slope,) = torch.autograd.grad(found[0].sum(), weight)
    step = torch.zeros_like(weight)
    step[0, 0, 1, 1] = 1e-5
    with torch.no_grad():
        sides = [
            divergence(lambda v, s=s: torch.func.functional_call(net, {"0.weight": weight + s * step}, v), x)[1].sum()
            for s in (1, -1)
        ]
    torch.testing.assert_close(slope[0, 0, 1, 1], (sides[0] - sides[1]) / 2e-5, rtol=1e-5, atol=1e-6)
