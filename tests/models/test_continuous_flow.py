"""Maximum likelihood: the loss is −log p, and the regularisers are the integrals that they are named after."""

import pytest
import torch
from closed_forms import LAW, close, network, normal

from sdeflow.errors import ArgumentError
from sdeflow.models import ContinuousFlow

MATRIX = torch.tensor([[0.3, -0.8], [0.5, 0.1]], dtype=torch.float64)
FINE = {"rtol": 1e-10}


def linear(t, x):
    return x @ MATRIX.mT


def test_loss_is_the_negative_log_likelihood():
    model = ContinuousFlow(network(), normal(), solver=FINE)
    x = LAW.draw(5, seed=0)
    close(model.loss(x, reduction="none"), -model.log_prob(x, solver=FINE), 1e-7)


def test_linear_flow_in_closed_form():
    """x' = Ax: log p = log N(e^{−A}x) − tr A, ∫‖v‖² = ∫‖A e^{−A(1−t)}x‖², ∫‖A‖_F² = ‖A‖_F²."""
    x = LAW.draw(4, seed=0)
    back = torch.linalg.matrix_exp(-MATRIX)
    likelihood = normal().log_prob(x @ back.mT) - MATRIX.trace()
    times = torch.linspace(0, 1, 2001, dtype=torch.float64)
    speeds = torch.stack([(x @ torch.linalg.matrix_exp(-MATRIX * t).mT @ MATRIX.mT).square().sum(1) for t in times])
    kinetic = torch.trapezoid(speeds, times, dim=0)
    frobenius = MATRIX.square().sum()
    for weights in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.25), (0.5, 0.25)):
        model = ContinuousFlow(linear, normal(), kinetic=weights[0], jacobian=weights[1], solver=FINE)
        expected = -likelihood + weights[0] * kinetic + weights[1] * frobenius
        close(model.loss(x, reduction="none"), expected, 1e-6)


def test_probes_are_unbiased():
    """Over all four sign vectors of the plane the Hutchinson terms average to the exact ones."""
    from sdeflow.models.continuous_flow import exact_terms, probed_terms

    net, x = network(), LAW.draw(3, seed=0)
    ode = ContinuousFlow(net, normal()).ode()
    exact = exact_terms(ode, 0.4, x)
    signs = [torch.tensor([a, b], dtype=torch.float64).expand(3, 2) for a in (-1.0, 1.0) for b in (-1.0, 1.0)]
    probed = [probed_terms(probe)(ode, 0.4, x) for probe in signs]
    for index, value in enumerate(exact):
        close(torch.stack([terms[index] for terms in probed]).mean(0), value)
    assert not torch.allclose(probed[0][1], exact[1])


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_gradients_reach_the_parameters(divergence):
    """The gradient of the whole loss against a difference quotient in one parameter."""
    net = network()
    options = {"kinetic": 0.3, "jacobian": 0.2, "divergence": divergence, "solver": {"steps": 6, "method": "heun"}}
    model = ContinuousFlow(net, normal(), **options)
    x = LAW.draw(4, seed=0)
    model.loss(x, seed=1).backward()
    parameter = net.last.bias
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            parameter[0] += step
            values.append(model.loss(x, seed=1))
            parameter[0] -= step
    close(parameter.grad[0], (values[0] - values[1]) / 2e-5, 1e-6)


def test_a_seed_is_the_loss_and_leaves_the_generators():
    model = ContinuousFlow(network(), normal(), divergence="hutchinson", solver={"steps": 4})
    x, state = LAW.draw(4, seed=0), torch.get_rng_state()
    assert torch.equal(model.loss(x, seed=1), model.loss(x, seed=1))
    assert not torch.equal(model.loss(x, seed=1), model.loss(x, seed=2))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: ContinuousFlow(linear, normal(), kinetic=-1.0), "≥ 0"),
        (lambda: ContinuousFlow(linear, normal(65)), "65 dimensions"),
        (lambda: ContinuousFlow(linear, normal(), divergence="trace"), "'exact'"),
        (lambda: ContinuousFlow(linear, normal()).loss(torch.zeros(2, 2), x0=torch.zeros(2, 2)), "no use for x0"),
        (lambda: ContinuousFlow(linear, normal()).score(0.5, torch.zeros(2, 2).double()), "no fixed path"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_no_probe_and_no_idle_integral_chooses_the_steps(monkeypatch):
    """With other probes the trajectory is the same bit for bit; a ‖∇v‖² of great size that is weighed by 0 costs no step."""
    from sdeflow.models import continuous_flow

    seen = []

    def watched(*arguments, **options):
        solution = continuous_flow_solve(*arguments, **options)
        seen.append((solution.final[:, :2].detach(), solution.stats["accepted"]))
        return solution

    continuous_flow_solve = continuous_flow.solve
    monkeypatch.setattr(continuous_flow, "solve", watched)
    net, x = network(), LAW.draw(16, seed=0)
    model = ContinuousFlow(lambda t, y: 3 * net(t, y), normal(), divergence="hutchinson", jacobian=0.1)
    for seed in range(5):
        model.loss(x, seed=seed)
    assert all(torch.equal(latent, seen[0][0]) for latent, _ in seen)
    seen.clear()
    for weight in (0.0, 1.0):
        ContinuousFlow(lambda t, y: 0.01 * (30 * t + y).sin(), normal(), jacobian=weight).loss(x)
        ContinuousFlow(lambda t, y: 5 * (y - 2 * t).sin(), normal(), jacobian=weight, solver={"rtol": 1e-7}).loss(x)
    assert seen[1][1] < seen[3][1]
