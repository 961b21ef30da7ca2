"""``sdeflow bench`` and ``sdeflow order``: a user's own process, interruption, comparison, refusals."""

import importlib
import json
import sys

import pytest
from typer.testing import CliRunner

import sdeflow as sf
from sdeflow.cli import comparison as module
from sdeflow.cli import own_process
from sdeflow.cli.app import app

order_module = importlib.import_module("sdeflow.cli.order")  # its name is the command's in the package


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module of the user's, which is the current one."""
    (tmp_path / "my_models.py").write_text(
        "import sdeflow as sf\n"
        "my_sde = sf.SDE(lambda t, x: 0.3 * (1 - x), lambda t, x: 0.4 * x)\n"
        "def make():\n    return sf.ODE(lambda t, x: -x)\n"
        "number = 3\n"
        "wrong = sf.SDE(lambda t, x: x.nothing, lambda t, x: x)\n"
        "def fails():\n    raise OSError('too early')\n"
    )
    (tmp_path / "unreadable.py").write_text("sde = (:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_models", None)


def test_ones_own_sde_over_five_methods_ends_with_a_sentence(own):
    said = run(
        "bench", "--process", "my_models:my_sde", "--x0", "1.0", "--quick", "--paths", 50, "--at", 0.02, "--out", "o"
    )
    stored = json.loads((own / "o" / "my_sde.json").read_text())
    assert len({r["method"] for r in stored["runs"]}) == 5
    assert stored["settings"]["complete"] and stored["settings"]["seed"] == 0
    assert {"torch", "processor", "threads"} <= set(stored["environment"]) and stored["environment"]["threads"] == 1
    assert "At an error of 0.02 on my_sde" in said.splitlines()[-1] and "is best" in said
    assert (own / "o" / "my_sde.png").stat().st_size > 5000


def test_an_ode_against_other_libraries(own):
    said = run(
        "bench", "--process", "my_models:make", "--x0", "1.0", "--methods", "rk4,dopri5", "--against", "torchdiffeq,zuko",
        "--tolerances", "1e-3,1e-6", "--dts", "0.25", "--repeats", 0, "--out", "o",
    )  # fmt: skip
    runs = json.loads((own / "o" / "make.json").read_text())["runs"]
    assert [r["method"] for r in runs][:3] == ["rk4", "dopri5", "dopri5"]
    assert "peer:torchdiffeq:dopri5" in said and "peer:zuko:dopri45" in said


def test_what_does_not_fit_a_problem_is_a_row_that_says_why(own):
    said = run(
        "bench", "gbm", "--methods", "dopri5,euler-maruyama", "--against", "zuko,scipy", "--dts", "0.5", "--repeats", 0,
        "--paths", 10, "--out", "o",
    )  # fmt: skip
    rows = {line.split()[0]: line for line in said.splitlines() if " dt 0.5 " in line}
    assert list(rows) == ["dopri5", "euler-maruyama", "peer:zuko:dopri45", "peer:scipy:DOP853"]
    assert "failed: " in rows["dopri5"] and "it is for ODEs" in rows["dopri5"]
    assert "  not run: scipy solves ODEs" in rows["peer:scipy:DOP853"] and "failed" not in rows["peer:scipy:DOP853"]
    assert (own / "o" / "gbm.png").stat().st_size > 5000  # without times there is one panel


def test_the_truth_of_ones_own_sde_is_finer_than_the_finest_step(own):
    coarse = own_process.problem_of(None, "my_models:my_sde", [1.0], 5, 64)
    fine = own_process.problem_of(None, "my_models:my_sde", [1.0], 5, 64, [0.25, 1 / 1024])
    assert coarse.reference["steps"] == 8 * 64 and fine.reference["steps"] == 8 * 1024


def test_an_interrupt_keeps_what_was_done_and_the_same_command_goes_on(own, monkeypatch):
    command = ("bench", "gbm", "--methods", "euler-maruyama", "--dts", "0.5,0.25,0.125", "--paths", 20, "--out", "o")
    real, calls = module.work_precision, []

    def interrupted(problem, methods, *, on_run, **options):
        def counting(made, number, total):
            on_run(made, number, total)
            calls.append(number)
            if len(calls) == 2:
                raise KeyboardInterrupt

        return real(problem, methods, on_run=counting, **options)

    monkeypatch.setattr(module, "work_precision", interrupted)
    said = run(*command, code=130)
    assert "2 of 3 runs" in said and "goes on" in said.replace("\n", " ")
    kept = json.loads((own / "o" / "gbm.json").read_text())
    assert len(kept["runs"]) == 2 and not kept["settings"]["complete"] and "in o." in said
    monkeypatch.setattr(module, "work_precision", real)
    run(*command)
    whole = json.loads((own / "o" / "gbm.json").read_text())
    assert whole["runs"][:2] == kept["runs"] and len(whole["runs"]) == 3  # times too: they were not made again
    run(*command[:-4], "--paths", 30, "--out", "o")  # other settings: all anew
    assert json.loads((own / "o" / "gbm.json").read_text())["runs"][0]["error"] != kept["runs"][0]["error"]


def test_after_an_interrupt_whole_problems_are_taken_over_too(own, monkeypatch):
    command = (
        "bench",
        "gbm",
        "additive",
        "--methods",
        "euler-maruyama",
        "--dts",
        "0.5,0.25",
        "--paths",
        20,
        "--out",
        "o",
    )
    real = module.work_precision

    def interrupted(problem, *arguments, **options):
        if problem.name == "additive":
            raise KeyboardInterrupt
        return real(problem, *arguments, **options)

    monkeypatch.setattr(module, "work_precision", interrupted)
    assert "2 of 4 runs" in run(*command, code=130)
    before = json.loads((own / "o" / "gbm.json").read_text())["runs"]
    monkeypatch.setattr(module, "work_precision", real)
    run(*command)
    assert json.loads((own / "o" / "gbm.json").read_text())["runs"] == before
    run(*command)  # done: the next time all is measured again
    assert json.loads((own / "o" / "gbm.json").read_text())["runs"] != before


def test_a_process_that_has_changed_is_not_taken_over(own, monkeypatch):
    command = (
        "bench",
        "--process",
        "my_models:my_sde",
        "--methods",
        "euler-maruyama",
        "--dts",
        "0.5,0.25",
        "--paths",
        20,
    )
    monkeypatch.setattr(module.Comparison, "finish", lambda self, result: None)  # as after an interrupt at the end
    errors = []
    # Of another length: Python tells bytecode that is old by the size of the source and by its time in whole seconds.
    for start, text in (("1.0", ""), ("1.0", ""), ("1.0", "0.4 * x->0.85 * x"), ("2.0", "")):
        if text:
            file = own / "my_models.py"
            file.write_text(file.read_text().replace(*text.split("->")))
            sys.modules.pop("my_models", None)
            importlib.invalidate_caches()
        run(*command, "--x0", start, "--out", "o")
        errors.append(json.loads((own / "o" / "my_sde.json").read_text())["runs"])
    assert errors[0] == errors[1] and errors[1][0]["error"] != errors[2][0]["error"] != errors[3][0]["error"]


def test_one_page_with_the_orders(own):
    said = run(
        "bench", "--process", "my_models:my_sde", "--x0", "1.0", "--methods", "euler-maruyama,milstein",
        "--against", "torchsde", "--quick", "--repeats", 0, "--paths", 60, "--html", "out",
    )  # fmt: skip
    page = (own / "out" / "index.html").read_text()
    assert "out/index.html" in said and "Measured orders on my_sde" in page and "At an error of 0.01 on my_sde" in page
    assert (own / "out" / "my_sde.json").exists() and (own / "out" / "order-my_sde.json").exists()


def test_comparing_two_results_tells_what_got_slower(tmp_path):
    def stored(name, seconds):
        made = sf.analysis.Run("rk4", "dt", 0.1, 1e-3, 1e-5, 40, 0, seconds, 0.01)
        sf.analysis.WorkPrecision("p", [made], {"torch": name}).to_json(tmp_path / f"{name}.json")
        return tmp_path / f"{name}.json"

    old, new = stored("old", 1.0), stored("new", 2.0)
    said = run("bench", "--compare", old, new, code=1)
    assert "rk4, dt 0.1: slower, 2 times the time" in said and "torch: old → new" in said
    assert "Nothing changed" in run("bench", "--compare", old, old)


def test_order_measures_and_stores(tmp_path):
    said = run("order", "additive", "--methods", "euler-maruyama,heun", "--paths", 200, "--out", tmp_path)
    assert "euler-maruyama" in said and "claim" in said
    stored = json.loads((tmp_path / "order-additive.json").read_text())
    assert [o["method"] for o in stored["orders"]] == ["euler-maruyama", "heun"]
    assert stored["orders"][0]["fit"]["slope"] == pytest.approx(1.0, abs=0.1)
    assert (tmp_path / "order-additive-heun.png").exists()


def test_an_interrupted_order_keeps_what_was_measured_and_names_the_rest(tmp_path, monkeypatch):
    real = order_module.measure

    def interrupted(problem, name, *others, **options):
        if name == "milstein":
            raise KeyboardInterrupt
        return real(problem, name, *others, **options)

    monkeypatch.setattr(order_module, "measure", interrupted)
    methods = "euler-maruyama,milstein,sriw1"
    said = run("order", "gbm", "--methods", methods, "--paths", 20, "--out", tmp_path, code=130)
    assert "1 of 3 methods" in said and "--methods milstein,sriw1" in said and "euler-maruyama" in said
    stored = json.loads((tmp_path / "order-gbm.json").read_text())
    assert [o["method"] for o in stored["orders"]] == ["euler-maruyama"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "gmb"], "Did you mean 'gbm'"),
        (["bench", "gbm", "--against", "torchsd"], "'torchsde'"),
        (["bench", "gbm", "--methods", "euler-mayurama"], "'euler-maruyama'"),
        (["bench", "gbm", "--dts", "a,b"], "numbers with commas"),
        (["bench", "gbm", "--methods", "euler-maruyama", "--at", "-1", "--repeats", "0"], "not a positive error"),
        (["bench", "gbm", "--dts", "0.1,0"], "must be positive"),
        (["bench", "gbm", "--tolerances", "nan"], "must be positive"),
        (["bench", "gbm", "--process", "my_models:my_sde", "--x0", "1"], "not both"),
        (["bench", "gbm", "--x0", "1"], "--x0 goes with --process"),
        (["order", "gbm", "--x0", "1"], "--x0 goes with --process"),
        (["order", "gbm", "--dts", "-0.1,0.2,0.3"], "must be positive"),
        (["bench", "--process", "my_models:wrong", "--x0", "1", "--quick"], "AttributeError in "),
        (["order", "--process", "my_models:wrong", "--x0", "1"], "my_models.py, line 6: "),
        (["bench", "--process", "my_models:fails", "--x0", "1"], "my_models.py, line 8: too early"),
        (["bench", "--process", "unreadable:sde", "--x0", "1"], "SyntaxError in "),
        (["bench", "--process", "my_models"], "MODULE:NAME"),
        (["bench", "--process", "my_model:my_sde", "--x0", "1"], "no module 'my_model'"),
        (["bench", "--process", "my_models:your_sde", "--x0", "1"], "no 'your_sde'"),
        (["bench", "--process", "my_models:number", "--x0", "1"], "is int"),
        (["bench", "--process", "my_models:my_sde"], "give --x0"),
        (["bench", "--compare", "a.json", "b.json"], "cannot be read"),
        (["order"], "name of a reference problem"),
        (["order", "gbm", "--methods", "rk4"], "rk4"),
        (["order", "gbm", "--methods", "euler-maruyama", "--dts", "0.3,0.2,0.1"], "does not divide"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(own, arguments, words):
    assert words in run(*arguments, code=1).replace("\n", " ")
