"""``sdeflow methods`` prints the registry, and its filters are solve()'s own answers."""

import json
import runpy
import sys

import pytest
from typer.testing import CliRunner

import sdeflow as sf
from sdeflow.cli.app import app


def run(*arguments):
    return CliRunner().invoke(app, ["methods", *arguments])


def names(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [row["method"] for row in json.loads(result.output)]


def test_the_table_has_a_line_for_every_method():
    result = run()
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines() if line.strip()]
    assert {line[0] for line in lines} >= set(sf.methods().keys())
    assert f"{len(sf.methods())} of {len(sf.methods())} methods" in result.output


def test_json_is_the_registry():
    assert json.loads(run("--json").output) == sf.methods().rows()


@pytest.mark.parametrize(
    ("arguments", "process"),
    [
        (("--process-noise", "none"), sf.ODE(lambda t, x: x)),
        (("--process-noise", "general", "--calculus", "ito"), sf.SDE(None, None, noise="general")),
        (
            ("--process-noise", "scalar", "--calculus", "stratonovich"),
            sf.SDE(None, None, noise="scalar", calculus="stratonovich"),
        ),
        (("--process-noise", "additive", "--calculus", "ito"), sf.SDE(None, None, additive=True)),
    ],
)
def test_filters_list_what_solve_accepts(arguments, process):
    listed = names(*arguments)
    assert listed == sf.methods().fitting(process) and 0 < len(listed) < len(sf.methods())


def test_filters_combine():
    adaptive = names("--process-noise", "none", "--steps", "adaptive", "--engine", "torchdiffeq")
    assert "torchdiffeq:dopri5" in adaptive and all(
        sf.methods()[name].adaptive and sf.methods()[name].engine == "torchdiffeq" for name in adaptive
    )
    assert "milstein" not in " ".join(names("--process-noise", "general"))


def test_a_calculus_alone_means_any_noise():
    assert "euler-heun" in names("--calculus", "stratonovich")
    assert "rk4" not in names("--calculus", "stratonovich")


def test_words_that_are_not_known_are_refused_with_those_that_are():
    result = run("--engine", "jax")
    assert result.exit_code == 2 and "native" in result.output
    assert run("--process-noise", "loud").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--version"], f"sdeflow {sf.__version__}"), (["methods", "--engine", "native"], "rk4")]
)
def test_python_dash_m_is_the_same_program(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sdeflow", *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("sdeflow", run_name="__main__")
    assert caught.value.code == 0 and said in capsys.readouterr().out
