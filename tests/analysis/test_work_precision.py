"""Work–precision runs: errors are those of the truth, failures are rows, and paths are shared."""

import json
import math

import pytest
import torch

import sdeflow as sf

X0 = torch.full((200, 1), 0.8, dtype=torch.float64)


def gbm(paths=200):
    process, x0 = sf.processes.GeometricBrownianMotion(0.4, 0.7), X0[:1].repeat(paths, 1)
    return sf.analysis.Problem(
        process, x0, exact=lambda path: x0 * torch.exp((0.4 - 0.245) + 0.7 * path(0.0, 1.0)), name="gbm"
    )


def test_errors_fall_at_the_order_of_the_method():
    """By 4 and by 16 over a factor of 16 in the steps, within six standard errors; the other's is further away than that."""
    result = sf.analysis.work_precision(
        gbm(5000), ["euler-maruyama", "torchsde:milstein"], dts=[2**-4, 2**-6, 2**-8], repeats=0
    )
    curves = [result.curve(name) for name in ("euler-maruyama", "torchsde:milstein")]
    for runs, expected, other in zip(curves, (4, 16), (16, 4), strict=True):
        fall = runs[0].error / runs[2].error
        deviation = math.hypot(*(run.spread / run.error for run in (runs[0], runs[2])))
        assert abs(math.log(fall / expected)) < 6 * deviation < abs(math.log(fall / other))
    assert [run.nfe_drift for run in curves[0]] == [16, 64, 256]


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
    assert {run.method for run in result.runs} == {"rk4", "torchdiffeq:dopri5", "heun"}
    assert all(run.message for run in result.runs)
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
    assert sf.analysis.WorkPrecision.from_json(tmp_path / "r.json") == result


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


def cheap(method, error, seconds=None, nfe=10, **more):
    return sf.analysis.Run(method, "dt", 0.1, error, 0.01 * error, nfe, 0, seconds, 0.01 * (seconds or 0), **more)


def test_the_best_is_the_cheapest_that_is_accurate_enough():
    runs = [cheap("a", 1e-2, 1.0), cheap("b", 1e-4, 3.0), cheap("c", 1e-5, 2.0), cheap("a", 1e-5, 5.0)]
    runs.append(sf.analysis.Run("d", "dt", 0.1, message="it failed"))
    result = sf.analysis.WorkPrecision("decay", runs)
    assert [run.method for run in result.best(at=1e-3).ranking] == ["c", "b", "a"]
    sentence = str(result.best(at=1e-3))
    assert "c is best: 2 s" in sentence and "b comes next at 1.5 " in sentence
    assert "without a result: d" in sentence and "not accurate" not in sentence
    assert "not accurate enough as run: b;" in str(result.best(at=5e-5))
    assert result.best(at=0.1).ranking[0].method == "a"
    assert "No method reaches" in str(result.best(at=1e-9))
    untimed = sf.analysis.WorkPrecision("decay", [cheap("a", 1e-2, nfe=50), cheap("b", 1e-2, nfe=40)])
    assert "b is best: 40 evaluations" in str(untimed.best(at=0.1))


def test_changes_beyond_noise_are_told():
    old = sf.analysis.WorkPrecision("p", [cheap(n, 1e-3, 1.0) for n in "abcdef"])
    new = sf.analysis.WorkPrecision(
        "p",
        [
            cheap("a", 1e-3, 1.02),  # noise
            cheap("b", 1e-3, 1.5),
            cheap("c", 2e-3, 1.0),
            sf.analysis.Run("d", "dt", 0.1, message="it failed"),
            cheap("e", 1e-3, 0.5),
            cheap("g", 1e-3, 9.0),  # not there before
        ],
    )
    changes = sf.analysis.compare(old, new)
    assert [(c.new.method, c.what) for c in changes] == [
        ("b", "slower"),
        ("c", "less accurate"),
        ("d", "fails"),
        ("e", "faster"),
    ]
    assert "1.5 times the time" in str(changes[0]) and "it failed" in str(changes[2])
    assert sf.analysis.compare(old, old) == []
    with pytest.raises(sf.errors.ArgumentError, match="like with like"):
        sf.analysis.compare(old, sf.analysis.WorkPrecision("q", []))


def test_runs_that_were_made_are_not_made_again():
    seen = []
    first = sf.analysis.work_precision(gbm(), ["euler-maruyama"], dts=[0.25, 0.125], repeats=0)
    again = sf.analysis.work_precision(
        gbm(),
        ["euler-maruyama"],
        dts=[0.25, 0.125, 0.0625],
        repeats=0,
        done=first.runs,
        on_run=lambda run, number, total: seen.append((run.value, number, total)),
    )
    assert again.runs[:2] == first.runs and seen == [(0.25, 1, 3), (0.125, 2, 3), (0.0625, 3, 3)]


def test_metrics_and_memory_are_columns():
    result = sf.analysis.work_precision(
        gbm(),
        ["euler-maruyama"],
        dts=[0.25],
        repeats=0,
        memory=True,
        metrics={"W2": sf.analysis.metrics.wasserstein, "largest": lambda x, truth: (x - truth).abs().max()},
    )
    (run,) = result.runs
    assert 0 < run.metrics["W2"] <= run.error < run.metrics["largest"] and run.peak_bytes >= X0.nbytes
    assert {"W2", "largest", "MB"} <= set(result.rows()[0])


def test_another_reference_takes_the_place_of_the_truth():
    problem = gbm()
    own = sf.analysis.work_precision(
        problem, ["euler-maruyama"], dts=[1 / 64], repeats=0, reference={"method": "euler-maruyama", "steps": 64}
    )
    assert own.runs[0].error == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "not a stored comparison"),
        ("/nowhere/r.json", "cannot be read"),
        ('{"problem": 1, "runs": [{"x": 1}]}', "not a"),
    ],
)
def test_a_file_that_is_something_else_is_refused(text, words):
    with pytest.raises(sf.errors.ArgumentError, match=words):
        sf.analysis.WorkPrecision.from_json(text)
