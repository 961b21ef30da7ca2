"""What solve() is told about steps, and where it is called from."""

import pytest
import torch
from torch.autograd import forward_ad

import sdeflow as sf
from sdeflow.errors import ArgumentError, MethodError


def decay(t, x):
    return -x


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
@pytest.mark.parametrize("method", ["tsit5", "rodas5p"])
def test_no_step_is_shorter_than_min_step(method, stepping):
    """Near 1 / x0 = 0.5 a step can be but a part of the distance to it: the sample ends where that would be too short."""
    ode, x = sf.ODE(lambda t, x: x**2), torch.tensor([[2.0], [2.0]], dtype=torch.float64)
    sol = sf.solve(ode, x, rtol=1e-6, method=method, stepping=stepping, min_step=1e-4, on_failure="return")
    assert sol.status.tolist() == [sf.Status.STEP_TOO_SMALL] * 2
    left = 0.5 - sol.stats["t_reached"]
    assert bool(((left > 1e-4) & (left < 1e-2)).all())


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
def test_a_min_step_that_is_met_changes_nothing(stepping):
    x = torch.ones(3, 1, dtype=torch.float64)
    options = {"rtol": 1e-6, "stepping": stepping, "t": [0.0, 0.1, 0.1001, 1.0]}
    plain, bounded = (sf.solve(sf.ODE(decay), x, min_step=least, **options) for least in (None, 1e-6))
    assert torch.equal(plain.x, bounded.x)


def test_min_step_ends_an_sde_too():
    sde = sf.SDE(lambda t, x: x**3, lambda t, x: 0.1 * torch.ones_like(x), additive=True, interval=(0.0, 1.0))
    sol = sf.solve(
        sde, torch.full((2, 1), 3.0, dtype=torch.float64), rtol=1e-3, seed=0, min_step=1e-3, on_failure="return"
    )
    assert sol.status.tolist() == [sf.Status.STEP_TOO_SMALL] * 2


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"rtol": 1e-5, "min_step": 0}, ArgumentError, "min_step=0 is not a positive number"),
        ({"rtol": 1e-5, "min_step": True}, ArgumentError, "min_step=True"),
        ({"rtol": 1e-5, "first_step": float("inf")}, ArgumentError, "first_step=inf"),
        ({"steps": 10, "min_step": 1e-3, "method": "euler"}, ArgumentError, "fixed size"),
        ({"rtol": 1e-5, "min_step": 1e-3, "method": "torchdiffeq:dopri5"}, MethodError, "native methods"),
        ({"rtol": 1e-5, "min_step": 0.1, "first_step": 0.01}, ArgumentError, "shorter than min_step"),
    ],
)
def test_steps_that_are_none_are_refused(options, error, sentence):
    with pytest.raises(error, match=sentence):
        sf.solve(sf.ODE(decay), torch.ones(2, 1), **options)


def test_inside_of_vmap_fixed_steps_are_taken_and_the_rest_is_refused():
    x = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(0))

    def final(x, **options):
        return sf.solve(sf.ODE(decay), x, **options).final

    mapped = torch.func.vmap(lambda x: final(x, steps=5, on_failure="return"))(x)
    torch.testing.assert_close(mapped, torch.stack([final(row, steps=5) for row in x]))
    for options in ({"steps": 5}, {"rtol": 1e-5, "on_failure": "return"}):
        with pytest.raises(ArgumentError, match=r"torch\.func\.vmap.*stepping='per-sample'"):
            torch.func.vmap(lambda x, options=options: final(x, **options))(x)


@pytest.mark.parametrize("options", [{"rtol": 1e-6}, {"rtol": 1e-6, "stepping": "per-sample"}, {"method": "rodas5p"}])
def test_adaptive_steps_are_not_differentiated_in_forward_mode(options):
    ode, x = sf.ODE(lambda t, x: -x), torch.ones(2, 2)
    with pytest.raises(ArgumentError, match=r"forward mode.*Give steps= or dt="):
        torch.func.jvp(lambda x: sf.solve(ode, x, **options).final, (x,), (x,))
    with forward_ad.dual_level(), pytest.raises(ArgumentError, match="forward mode"):
        sf.solve(ode, forward_ad.make_dual(x, x), **options)
