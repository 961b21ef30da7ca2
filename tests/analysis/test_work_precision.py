"""Work–precision runs: errors are those of the truth, failures are rows, and paths are shared."""

import json
import math

import pytest
import torch

import sdeflow as sf

X0 = torch.full((200, 1), 0.8, dtype=torch.float64)


def gbm():
    process = sf.processes.GeometricBrownianMotion(0.4, 0.7)
    return sf.analysis.Problem(
        process, X0, exact=lambda path: X0 * torch.exp((0.4 - 0.245) + 0.7 * path(0.0, 1.0)), name="gbm"
    )


def test_errors_fall_at_the_order_of_the_method():
    result = sf.analysis.work_precision(
        gbm(), ["euler-maruyama", "torchsde:milstein"], dts=[2**-4, 2**-6, 2**-8], repeats=0
    )
    euler, milstein = (result.curve(name) for name in ("euler-maruyama", "torchsde:milstein"))
    assert euler[0].error / euler[2].error == pytest.approx(4, rel=0.35)  # order .5 over a factor of 16
    assert milstein[0].error / milstein[2].error == pytest.approx(16, rel=0.35)
    assert [run.nfe_drift for run in euler] == [16, 64, 256]
    assert euler[0].spread < euler[0].error


def test_a_reference_on_the_same_path_takes_the_place_of_an_exact_solution():
    exact = gbm()
    problem = sf.analysis.Problem(exact.process, X0, reference={"method": "torchsde:srk", "steps": 512}, name="gbm")
    dts = [2**-4, 2**-5]
    # the path's cells are the finest step in sight, so give the exact problem the same ones
    a = sf.analysis.work_precision(problem, ["euler-maruyama"], dts=dts, repeats=0).runs
    b = sf.analysis.work_precision(exact, ["euler-maruyama"], dts=[*dts, 1 / 512], repeats=0).runs
    assert [r.error for r in a] == pytest.approx([r.error for r in b[:2]], rel=0.02)


def test_a_reversal_on_the_backward_clock_can_be_a_problem():
    ou = sf.processes.OrnsteinUhlenbeck()
    problem = sf.analysis.Problem(
        ou.reverse(lambda t, x: -2 * x, clock="backward"), X0, reference={"method": "heun", "steps": 256}
    )
    runs = sf.analysis.work_precision(problem, ["euler-maruyama", "heun"], dts=[1 / 16, 1 / 64], repeats=0).runs
    assert runs[1].error < runs[0].error and runs[3].error < runs[2].error < runs[0].error


def test_failures_are_rows():
    explosive = sf.ODE(lambda t, x: x**2, interval=(0.0, 2.0))
    problem = sf.analysis.Problem(explosive, X0 + 1, exact=torch.ones_like(X0))
    result = sf.analysis.work_precision(
        problem, ["rk4", "torchdiffeq:dopri5", "heun"], dts=[0.1], tolerances=[1e-3], repeats=0
    )
    assert [bool(run.message) for run in result.runs] == [True, True, True]
    assert "failed" in result.table() and not result.curve("rk4")


def test_it_times_tells_and_draws(tmp_path):
    ode = sf.ODE(lambda t, x: -x)
    problem = sf.analysis.Problem(ode, X0, exact=X0 * math.exp(-1), name="decay")
    result = sf.analysis.work_precision(
        problem, ["rk4", "torchdiffeq:dopri5"], dts=[0.5, 0.25], tolerances=[1e-3, 1e-6], repeats=3
    )
    assert all(run.seconds > 0 and run.interquartile >= 0 for run in result.runs)
    result.to_json(tmp_path / "r.json")
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["runs"][0]["error"] == result.runs[0].error and stored["environment"]["torch"] == torch.__version__
    result.plot().savefig(tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 5000
    assert "torchdiffeq:dopri5" in result.table()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: sf.analysis.work_precision(p, ["euler-maruyama"]), "dts="),
        (lambda p: sf.analysis.work_precision(p, ["euler-maruyama"], tolerances=[1e-3]), "no use for tolerances"),
        (lambda p: sf.analysis.work_precision(p, ["euler-mayurama"], dts=[0.1]), "'euler-maruyama'"),
        (lambda p: sf.analysis.Problem(p.process, p.x0), "either exact="),
    ],
)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises(sf.SdeflowError, match=words):
        call(gbm())
