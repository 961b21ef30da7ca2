"""The reference problems: what they say is right is right, by means of their own."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import sdeflow as sf
from sdeflow.analysis.library.deterministic import STORED

problems = sf.analysis.problems
NAMES = list(problems.keys())
COARSE, FINE = 15, 1020  # 0.4, where the coefficients of one of them jump, is a node of both
PATHWISE = [n for n in problems.fitting(truth="exact") if problems.build(n, batch=1).is_stochastic]
EXACT_ODES = problems.fitting(noise="none", truth="exact")


def test_there_are_twenty_of_all_kinds():
    assert len(problems) >= 20
    for noise in ("none", "additive", "diagonal", "scalar", "general"):
        assert problems.fitting(noise=noise)
    for tag in ("stiff", "chaotic", "high-dimensional", "jump", "commuting", "non-commuting", "diffusion-model"):
        assert problems.fitting(tag=tag)
    assert problems.fitting(calculus="stratonovich") and {"robertson", "van-der-pol-1000"} <= set(
        problems.fitting(tag="stiff", truth="stored")
    )


@pytest.mark.parametrize("name", NAMES)
def test_each_is_named_sourced_and_whole(name):
    problem = problems.build(name, batch=3)
    assert problem.name == name and problem.source and problem.x0.dtype == torch.float64
    assert problem.process.drift(problem.span[0], problem.x0).isfinite().all()
    if problem.is_stochastic:
        assert len(problem.x0) == 3


@pytest.mark.parametrize("name", PATHWISE)
def test_pathwise_solutions_are_those_of_the_equation(name):
    """A plain scheme of the right calculus comes to them as steps halve: a wrong correction would leave a distance."""
    problem = problems.build(name, batch=20 if "high-dimensional" in problems.build(name, batch=1).tags else 200)
    method = "euler-maruyama" if problem.process.calculus == "ito" else "heun"
    path = problem.path(FINE, seed=0, levy=False)
    far, near = (
        (problem.solve(method=method, steps=n, brownian=path).final - problem.truth(path)).square().mean().sqrt()
        for n in (COARSE, FINE)
    )
    size = problem.truth(path).std()
    assert near < 0.02 * size and near < 0.2 * far  # a factor of 8.2 at order one half


@pytest.mark.parametrize("name", [n for n in NAMES if problems.build(n, batch=1).moments and n != "gbm-256"])
def test_moments_are_those_of_the_equation(name):
    """The weak error of Euler–Maruyama at 256 steps is far below 6 standard errors of 4,000 paths."""
    problem = problems.build(name, batch=4000)
    method = "euler-maruyama" if problem.process.calculus == "ito" else "heun"
    steps = 1024 if "stiff" in problem.tags or "diffusion-model" in problem.tags else 256
    end = problem.solve(method=method, steps=steps, seed=1).final
    for moment in problem.moments.values():
        values, expected = moment.function(end), moment.value(problem.span[1])
        bias = 2e-3 * abs(expected) if steps == 256 else 1.5e-2 * abs(expected)
        assert abs(values.mean().item() - expected) < 6 * values.std().item() / math.sqrt(len(values)) + bias
        assert moment.value(problem.span[0]) == pytest.approx(
            moment.function(problem.x0).mean().item(),
            abs=6 * moment.function(problem.x0).std().item() / 4000**0.5 + 1e-12,
        )


@pytest.mark.parametrize("name", EXACT_ODES)
def test_exact_ends_of_odes(name):
    problem = problems[name]
    end = problem.solve(method="dopri5", rtol=1e-10, atol=1e-10).final
    assert torch.allclose(end, problem.truth(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", STORED)
def test_stored_ends_are_made_again(name):
    """By another method than the one that made them, within the accuracy that they claim and this run's own."""
    problem = problems[name]
    run = solve_ivp(
        lambda t, y: problem.process.drift(t, torch.as_tensor(y)[None])[0].numpy(),
        problem.span,
        problem.x0[0].numpy(),
        method="LSODA",
        rtol=1e-13,
        atol=1e-15 if "stiff" in problem.tags else 1e-13,
    )
    off = float(np.sqrt(np.mean((run.y[:, -1] - problem.truth()[0].numpy()) ** 2)))
    assert off <= problem.accuracy < 1e-9


def test_one_dimensional_flow_keeps_quantiles():
    problem = problems["mixture-flow-1d"]
    before, after = problem.x0[:, 0], problem.truth()[:, 0]
    assert torch.equal(before.argsort(), after.argsort())


def test_the_table_filters_and_prints():
    text = repr(problems)
    assert all(name in text for name in NAMES)
    assert problems.fitting(noise="general", truth="exact") == ["commuting"]
    assert "gbm" in problems and "gmb" not in problems
    assert [p.name for p in problems] == NAMES


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: problems["gmb"], "Did you mean 'gbm'"),
        (lambda: problems.build("gbm", batch=0), "batch=0"),
        (lambda: problems.fitting(noise="loud"), "noise='loud'"),
        (lambda: problems.fitting(tag="stif"), "'stiff'"),
        (lambda: problems["ornstein-uhlenbeck"].truth(), "only moments are known"),
        (lambda: sf.analysis.Problem(problems["gbm"].process, torch.ones(1, 1)), "either exact="),
        (
            lambda: sf.analysis.Problem(problems["gbm"].process, torch.ones(1, 1), exact=torch.ones(1, 1)),
            "function of the path",
        ),
    ],
)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises(sf.errors.ArgumentError, match=words):
        call()
