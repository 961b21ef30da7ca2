"""compile=True: the same solve in fewer calls, a warning where it cannot be, and nothing compiled twice."""

import copy
import pickle

import pytest
import torch

import sdeflow as sf
from sdeflow.errors import ArgumentError, MethodError, SdeflowWarning


class Damped(sf.SDE):
    """A module of a user's, so that pickles can find it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.rate = torch.nn.Parameter(torch.tensor(0.5))

    def drift(self, t, x):
        return -self.rate * x * (1 + t)

    def diffusion(self, t, x):
        return 0.3 + 0.1 * t if self.additive else 0.3 * x


def compiled_and_not(process, x, **options):
    plain = sf.solve(process, x, seed=0, **options)
    fused = sf.solve(process, x, seed=0, compile=True, **options)
    return plain, fused


@pytest.mark.parametrize(("method", "additive"), [("euler-maruyama", False), ("shark", True)])
def test_the_path_and_the_answer_are_the_same(method, additive):
    """Also with a value handed from step to step, save times and jumps inside; the second time nothing is compiled."""
    sde, x = Damped(additive=additive), torch.ones(4, 3, dtype=torch.float64)
    options = {"method": method, "steps": 60, "t": [0.0, 0.15, 1.0], "breakpoints": [0.7]}
    with torch.no_grad():
        plain, fused = compiled_and_not(sde, x, **options)
        again = sf.solve(sde, x, seed=0, compile=True, **options)
    torch.testing.assert_close(fused.x, plain.x, rtol=1e-12, atol=1e-12)
    assert fused.stats["compiled_steps"] == 16 * 3  # none before node 9, two to 42, one to 60
    assert fused.stats["compile_seconds"] > 0
    assert again.stats["compile_seconds"] == 0
    assert torch.equal(again.x, fused.x)
    assert {k: fused.stats[k] for k in ("nfe_drift", "accepted")} == {
        k: plain.stats[k] for k in ("nfe_drift", "accepted")
    }


def test_gradients_go_through():
    sde, x = Damped(), torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    gradients = []
    for solution in compiled_and_not(sde, x, steps=20, method="euler-maruyama"):
        gradients.append(torch.autograd.grad(solution.final.square().sum(), [x, sde.rate]))
    for fused, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-12)


def test_what_cannot_be_compiled_is_solved_without_and_said(monkeypatch):
    x, options = torch.ones(2, 2), {"steps": 40, "seed": 0, "method": "euler-maruyama"}
    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    with pytest.warns(
        SdeflowWarning, match=r"could not be compiled \(RuntimeError: no C\+\+ compiler.*goes on without"
    ):
        solution = sf.solve(Damped(), x, compile=True, **options)
    assert torch.equal(solution.x, sf.solve(Damped(), x, **options).x)
    assert solution.stats["compiled_steps"] == 0


def refuse(*arguments):
    raise RuntimeError("no C++ compiler was found")


def test_copies_and_pickles_leave_the_compiled_steps_behind():
    sde = Damped()
    sde.__dict__["_fused"] = {"key": refuse}
    assert "_fused" not in copy.deepcopy(sde).__dict__
    assert "_fused" not in pickle.loads(pickle.dumps(sde)).__dict__
    assert torch.equal(copy.deepcopy(sde).rate, sde.rate)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"compile": 1}, ArgumentError, "neither True nor False"),
        ({"compile": True, "method": "torchsde:euler"}, MethodError, "fuses native steps"),
        ({"compile": True, "method": "implicit-euler-maruyama"}, MethodError, "none that are alike"),
        ({"compile": True, "method": "euler-maruyama", "gradient": "checkpoint"}, ArgumentError, "Give one"),
    ],
)
def test_what_does_not_go_together_is_refused(options, error, sentence):
    with pytest.raises(error, match=sentence):
        sf.solve(Damped(), torch.ones(2, 2), steps=10, **options)
