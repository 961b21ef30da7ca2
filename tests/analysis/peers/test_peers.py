"""Peers: the call that their users write, on our path for errors; what is missing or does not fit is a row."""

import os
import sys
from importlib.util import find_spec

import pytest
import torch
import torchdiffeq
import torchsde
from torch.utils.benchmark import Timer

import sdeflow as sf
from sdeflow.analysis.peers import peer
from sdeflow.analysis.peers.call import Call
from sdeflow.analysis.peers.diffrax import INTERPRETER

problems = sf.analysis.problems


def compare(name, methods, batch=50, **options):
    return sf.analysis.work_precision(problems.build(name, batch=batch), methods, repeats=0, **options).runs


@pytest.mark.parametrize("name", ["gbm", "scalar-gbm", "commuting", "stratonovich-gbm", "additive"])
def test_torchsde_raw_agrees_with_torchsde_through_us(name):
    ito = problems.build(name, batch=1).process.calculus == "ito"
    method = "euler" if ito else "midpoint"
    raw, ours = compare(name, [f"peer:torchsde:{method}", f"torchsde:{method}"], dts=[1 / 32])
    assert not raw.message and raw.error == pytest.approx(ours.error, rel=1e-6)
    assert raw.nfe_drift in (ours.nfe_drift, ours.nfe_drift + 1)  # torchsde's final time is in float64


def test_torchdiffeq_raw_agrees_with_torchdiffeq_through_us():
    raw, ours = compare("lotka-volterra", ["peer:torchdiffeq:rk4", "torchdiffeq:rk4"], dts=[10 / 256])
    assert raw.error == pytest.approx(ours.error, rel=1e-5) and raw.nfe_drift == ours.nfe_drift


@pytest.mark.parametrize(
    ("method", "package"),
    [
        ("scipy:LSODA", "scipy"),
        ("torchode:tsit5", "torchode"),
        ("zuko:dopri45", "zuko"),
        ("flow_matching:dopri5", "flow_matching"),
    ],
)
def test_libraries_for_odes_are_right_or_say_why_not(method, package):
    (run,) = compare("lotka-volterra", [f"peer:{method}"], tolerances=[1e-8])
    if find_spec(package):
        assert run.error < 1e-5 and run.nfe_drift > 100
    else:
        assert run.message == f"not run: {package} is not installed"


def test_diffrax_runs_in_an_interpreter_of_its_own_or_says_why_not(monkeypatch):
    if not (os.environ.get(INTERPRETER) or find_spec("diffrax")):
        (run,) = compare("gbm", ["peer:diffrax:Euler"], dts=[1 / 16])
        assert run.message == "not run: diffrax is not installed"
        monkeypatch.setenv(INTERPRETER, "/nowhere/python")
        (run,) = compare("gbm", ["peer:diffrax:Euler"], dts=[1 / 16])
        assert "did not answer" in run.message
    else:
        euler, tsit = compare("gbm", ["peer:diffrax:Euler"], dts=[1 / 16])[0], None
        assert 0.01 < euler.error < 0.2
        (tsit,) = compare("lotka-volterra", ["peer:diffrax:Tsit5"], tolerances=[1e-8])
        assert tsit.error < 1e-5


def test_an_interpreter_without_diffrax_is_a_row(monkeypatch):
    if find_spec("diffrax"):
        pytest.skip("this interpreter has diffrax")
    monkeypatch.setenv(INTERPRETER, sys.executable)
    (run,) = compare("gbm", ["peer:diffrax:Euler"], dts=[1 / 16])
    assert "diffrax failed: ModuleNotFoundError" in run.message


@pytest.mark.parametrize(
    ("name", "method", "words"),
    [
        ("lotka-volterra", "peer:torchsde:euler", "this is an ODE"),
        ("gbm", "peer:torchdiffeq:rk4", "this is an SDE"),
        ("gbm", "peer:scipy:RK45", "this is an SDE"),
        ("stratonovich-gbm", "peer:torchsde:euler", "for ito SDEs"),
        ("commuting", "peer:torchsde:srk", "not for general noise"),
        ("harmonic-langevin", "peer:torchsde:euler", "wants states"),
    ],
)
def test_what_does_not_fit_is_a_row(name, method, words):
    problem = problems.build(name, batch=5)
    if problem.truth_is != "moments":
        (run,) = sf.analysis.work_precision(problem, [method], dts=[1 / 8], tolerances=[1e-3], repeats=0).runs[:1]
        assert run.message.startswith("not run") and words in run.message
    library, word = peer(method)
    assert words in library.misfit(problem, word)


def test_what_a_peer_raises_is_a_row():
    stiff = sf.ODE(lambda t, x: 1 / (x - x))
    problem = sf.analysis.Problem(stiff, torch.ones(1, 1).double(), exact=torch.ones(1, 1).double())
    runs = sf.analysis.work_precision(
        problem, ["peer:torchdiffeq:dopri5", "peer:torchdiffeq:euler"], dts=[0.5], tolerances=[1e-3], repeats=0
    ).runs
    assert "AssertionError" in runs[0].message and "infinite or NaN" in runs[1].message


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("peer:torchsd:euler", "'torchsde'"),
        ("peer:torchsde:eulerian", "no method 'eulerian'"),
        ("peer:torchsde", "LIBRARY:METHOD"),
    ],
)
def test_names_that_mean_nothing_are_refused(method, words):
    with pytest.raises(sf.errors.MethodError, match=words):
        compare("gbm", [method], dts=[0.5])


class Bare(torch.nn.Module):
    """Geometric Brownian motion as a user of torchsde writes it."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t, y):
        return 0.5 * y

    def g(self, t, y):
        return 0.6 * y


def ratio(adapter, bare, rounds=15):
    """Of the medians of interleaved times: what drifts on a busy machine drifts for both."""
    adapter(), bare()
    times = [(Timer("f()", globals={"f": f}).timeit(1).mean for f in (adapter, bare)) for _ in range(rounds)]
    a, b = torch.tensor([tuple(pair) for pair in times]).median(0).values.tolist()
    return a / b


def test_the_adapters_add_no_tax():
    """Their share of a solve of 50 steps, in which what they do once shows, is within the noise of a busy machine, a fifth."""
    gbm = problems.build("gbm", batch=256)
    call = peer("peer:torchsde:euler")[0].prepare(gbm, "euler", "dt", 1 / 50, None, False)
    assert isinstance(call, Call)
    sde, times = Bare(), torch.tensor([0.0, 1.0], dtype=torch.float64)

    def bare():
        with torch.no_grad():
            return torchsde.sdeint(sde, gbm.x0, times, dt=1 / 50, method="euler")[-1]

    assert ratio(call.solve, bare) < 1.2
    lotka = problems["lotka-volterra"]
    call = peer("peer:torchdiffeq:rk4")[0].prepare(lotka, "rk4", "dt", 10 / 50, None, False)
    velocity, span = lotka.process.velocity_function, torch.tensor([0.0, 10.0], dtype=torch.float64)

    def bare_ode():
        with torch.no_grad():
            return torchdiffeq.odeint(velocity, lotka.x0, span, method="rk4", options={"step_size": 10 / 50})[-1]

    assert ratio(call.solve, bare_ode) < 1.2
