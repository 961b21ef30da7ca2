"""In inference mode, where torch drops every derivative, the answers are the same; and a hidden derivative is refused."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

import sdeflow as sf

X = torch.tensor([[0.5, 1.5]], dtype=torch.float64)
SDE = sf.SDE(lambda t, x: -x, lambda t, x: 0.6 * t * x)


def flow(**options):
    base = Independent(Normal(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)), 1)
    return sf.Flow(sf.ODE(lambda t, x: 2 * torch.sin(x) + t), base, rtol=1e-6, **options)


ANSWERS = {
    "log_prob": lambda: flow().log_prob(X),
    "hutchinson": lambda: flow(divergence="hutchinson", probes=4, seed=1).log_prob_with_error(X).value,
    "reversed drift": lambda: SDE.reverse(lambda t, x: -x).drift(0.3, X),
    "stratonovich drift": lambda: SDE.to_stratonovich().drift(0.3, X),
    "reversed solve": lambda: sf.solve(SDE.reverse(lambda t, x: -x), X, steps=10, seed=1).final,
    "milstein": lambda: sf.solve(SDE, X, steps=10, seed=1, method="torchsde:milstein").final,
    "residual": lambda: sf.fokker_planck_residual(SDE, lambda t, x: -x.square().sum(1) * t.flatten(), 0.5, X),
    "custom schedule": lambda: sf.processes.CustomSchedule(lambda t: 1 - t, lambda t: t).a_dot(
        torch.tensor(0.5).double()
    ),
    "divergence": lambda: sf.calculus.divergence(lambda x: x**3, X)[1],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_inference_mode_changes_nothing(name):
    expected = ANSWERS[name]().detach()
    with torch.inference_mode():
        assert torch.equal(ANSWERS[name](), expected)
    assert expected.abs().max() > 0


def test_a_derivative_that_autograd_cannot_see_is_refused():
    @torch.no_grad()
    def hidden(t, x):
        return 0.6 * x

    with pytest.raises(sf.ArgumentError, match="no_grad"):
        sf.SDE(lambda t, x: -x, hidden).reverse(lambda t, x: -x).drift(0.3, X)
    with pytest.raises(sf.ArgumentError, match="no_grad"):
        sf.Flow(sf.ODE(hidden), flow().base).log_prob(X)


def test_a_field_that_ignores_the_state_has_no_derivative():
    constant = sf.SDE(lambda t, x: -x, lambda t, x: 0.6 * torch.ones_like(x))
    assert (constant.diffusion_divergence(0.3, X) == 0).all()
    assert flow().log_prob(X).item() != math.inf
