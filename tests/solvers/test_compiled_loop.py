"""compile=True for adaptive steps: the answers, counts and failures of the plain engine, and a warning where it cannot be.

The loop is compiled in three tests only. The others run the same function in Python, which is as good for what it computes.
"""

from importlib import import_module

import pytest
import torch

import sdeflow as sf
from sdeflow.errors import ArgumentError, MethodError, SdeflowWarning


@pytest.fixture
def interpreted(monkeypatch):
    """The loop as Python runs it."""

    def loop(going, body, values):
        while bool(going(*values)):
            values = body(*values)
        return values

    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(import_module("torch._higher_order_ops.while_loop"), "while_loop", loop)


def oscillator(t, x):
    y, v = x.unbind(-1)
    return torch.stack([v, torch.cos(3 * t).expand_as(x)[..., 0] - 4 * y - y**3], -1)


def states(batch, seed=0, dtype=torch.float64):
    return torch.randn(batch, 2, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def both(process, x, **options):
    with torch.no_grad():
        return sf.solve(process, x, **options), sf.solve(process, x, compile=True, **options)


def agree(plain, compiled, tolerance=1e-9):
    torch.testing.assert_close(compiled.x, plain.x, rtol=tolerance, atol=tolerance, equal_nan=True)
    assert torch.equal(compiled.status, plain.status) and torch.equal(compiled.t, plain.t)
    for name in ("accepted", "rejected"):
        assert torch.equal(torch.as_tensor(compiled.stats[name]), torch.as_tensor(plain.stats[name]))


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
@pytest.mark.parametrize("method", ["tsit5", "dopri5", "bosh3", "dopri8"])
@pytest.mark.parametrize("times", [(0.0, 4.0), (4.0, 0.0), [0.0, 0.01, 0.02, 1.3, 2.5, 3.9, 4.0]])
def test_steps_answers_and_save_times_are_those_of_the_plain_engine(interpreted, method, stepping, times):
    process = sf.ODE(oscillator, interval=(0.0, 4.0))
    plain, compiled = both(process, states(5), t=times, method=method, stepping=stepping, rtol=1e-6)
    agree(plain, compiled)
    assert compiled.stats["compiled_steps"] >= int(torch.as_tensor(plain.stats["accepted"]).max())


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
def test_segments_end_at_the_breakpoints(interpreted, stepping):
    """At one of them the velocity jumps, and a save time is there too: its state is that of the end of the step."""
    process = sf.ODE(lambda t, x: torch.where(t < 0.5, 1.0, -3.0) * x)
    x, times = torch.tensor([[1.0], [2.0]], dtype=torch.float64), [0.0, 0.25, 0.5, 0.75, 1.0]
    options = {"t": times, "rtol": 1e-8, "stepping": stepping, "breakpoints": [0.5], "method": "tsit5"}
    plain, compiled = both(process, x, **options)
    agree(plain, compiled)
    exact = torch.exp(torch.tensor([0.0, 0.25, 0.5, -0.25, -1.0], dtype=torch.float64))[:, None, None] * x
    torch.testing.assert_close(compiled.x, exact, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
def test_who_fails_fails_alike(interpreted, stepping):
    """x' = x² is infinite at 1 / x0: of own clocks only those whom it concerns."""
    process = sf.ODE(lambda t, x: x**2)
    x = torch.tensor([[0.5], [2.0], [0.9], [4.0]], dtype=torch.float64)
    options = {"rtol": 1e-6, "stepping": stepping, "method": "tsit5", "on_failure": "return"}
    for limits in ({}, {"max_steps": 5}, {"min_step": 0.01, "t": [0.0, 0.2, 1.0]}):
        plain, compiled = both(process, x, **options, **limits)
        assert torch.equal(plain.status, compiled.status) and not bool(plain.success.all())
        torch.testing.assert_close(compiled.x[:, plain.success], plain.x[:, plain.success], rtol=1e-9, atol=0.0)
        assert compiled.x.shape == plain.x.shape
        assert torch.equal(compiled.x.isnan(), plain.x.isnan())


def test_the_mask_of_a_process_counts(interpreted):
    class Ignoring(sf.ODE):
        error_mask = torch.tensor([1.0, 0.0])

    agree(*both(Ignoring(oscillator, interval=(0.0, 4.0)), states(3), rtol=1e-5, method="tsit5"))


def test_a_compiled_loop_is_kept_for_other_tolerances_and_save_times():
    """Truly compiled, shared, with two save times inside; then with others, which is nothing new to compile."""
    process, x = sf.ODE(oscillator, interval=(0.0, 4.0)), states(6)
    plain, compiled = both(process, x, t=[0.0, 1.0, 2.0, 4.0], rtol=1e-6, method="tsit5")
    agree(plain, compiled)
    assert compiled.stats["compile_seconds"] > 0
    plain, compiled = both(process, x, t=[0.0, 0.5, 3.0, 3.5], rtol=1e-7, method="tsit5")
    agree(plain, compiled)
    assert compiled.stats["compile_seconds"] == 0 and compiled.stats["compiled_steps"] > 0


def test_a_compiled_loop_of_own_clocks_with_a_network():
    """In float32 its sums are rounded otherwise, so that steps may differ; the answers do so by less than the tolerance."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    process = sf.ODE(lambda t, x: net(x) * (1 + t), interval=(0.0, 2.0))
    plain, compiled = both(process, states(7, dtype=torch.float32), rtol=1e-5, stepping="per-sample", method="tsit5")
    assert compiled.stats["compiled_steps"] > 0
    torch.testing.assert_close(compiled.final, plain.final, rtol=1e-4, atol=1e-4)
    assert (compiled.stats["accepted"] - plain.stats["accepted"]).abs().max() <= 1


def test_a_compiled_loop_of_a_class_that_is_solved_backward(recwarn):
    """Truly compiled, through the guard of a subclass and the flipped clock, with times that are prepared on the way."""

    class Oscillator(sf.ODE):
        def velocity(self, t, x):
            return oscillator(t, x)

    process = Oscillator(interval=(0.0, 2.0))
    plain, compiled = both(process, 0.3 * states(4, dtype=torch.float32), t=(2.0, 0.0), rtol=1e-5, method="bosh3")
    assert compiled.stats["compiled_steps"] > 0 and not [w for w in recwarn if "lru_cache" in str(w.message)]
    torch.testing.assert_close(compiled.final, plain.final, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_compiled_is_solved_without_and_said(monkeypatch):
    tried = []

    def refuse(*arguments):
        tried.append(1)
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    process, x = sf.ODE(oscillator), states(3)
    plain = sf.solve(process, x, rtol=1e-5)
    for _ in range(2):  # the second time it is not even tried
        with pytest.warns(SdeflowWarning, match=r"no C\+\+ compiler.*goes on without") as caught:
            solution = sf.solve(process, x, rtol=1e-5, compile=True)
        assert caught[0].filename == __file__
        assert torch.equal(solution.x, plain.x) and solution.stats["compiled_steps"] == 0
    assert len(tried) == 1


def test_gradients_are_had_without(interpreted):
    process, x = sf.ODE(oscillator), states(3).requires_grad_()
    with pytest.warns(SdeflowWarning, match="gradients are wanted"):
        compiled = sf.solve(process, x, rtol=1e-5, compile=True)
    gradient, plain = (torch.autograd.grad(s.final.sum(), x)[0] for s in (compiled, sf.solve(process, x, rtol=1e-5)))
    assert torch.equal(gradient, plain)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"method": "rodas5p"}, MethodError, "none that are alike"),
        ({"method": "torchdiffeq:dopri5"}, MethodError, "none that are alike"),
        ({"gradient": "checkpoint"}, ArgumentError, "Give one"),
        ({"dense": True}, ArgumentError, "neither events nor dense"),
        ({"event": lambda t, x: x[:, 0]}, ArgumentError, "neither events nor dense"),
    ],
)
def test_what_does_not_go_together_is_refused(options, error, sentence):
    with pytest.raises(error, match=sentence):
        sf.solve(sf.ODE(oscillator), states(2), rtol=1e-5, compile=True, **options)


def test_adaptive_steps_of_an_sde_are_not_compiled():
    with pytest.raises(MethodError, match="where it adapts them"):
        sf.solve(sf.processes.OrnsteinUhlenbeck(), states(2), rtol=1e-3, seed=0, compile=True)
