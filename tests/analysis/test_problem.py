"""A problem's truth: a reference solution is made once for what it depends on, and again when that changes."""

import pytest
import torch
from typer.testing import CliRunner

import sdeflow as sf
from sdeflow.cli.app import app

FINE = 512
DTS = [2.0**-k for k in range(1, 5)]


class Growth(sf.SDE):
    def __init__(self):
        super().__init__(noise="diagonal")
        self.rate = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def drift(self, t, x):
        return self.rate * x.sin()

    def diffusion(self, t, x):
        return 0.3 * x.cos()


def growth(batch=30):
    x0 = torch.ones(batch, 1, dtype=torch.float64)
    return sf.analysis.Problem(Growth(), x0, reference={"method": "sriw1", "steps": FINE}, name="growth")


@pytest.fixture
def references(monkeypatch):
    """The steps of every solve that is finer than what is measured."""
    solved = []
    solve = sf.analysis.Problem.solve

    def counted(problem, **options):
        if options.get("method") == "sriw1" and options.get("steps", 0) >= FINE // 2:
            solved.append(options["steps"])
        return solve(problem, **options)

    monkeypatch.setattr(sf.analysis.Problem, "solve", counted)
    return solved


def test_methods_that_are_measured_one_by_one_share_a_reference(references):
    problem = growth()
    for method in ("euler-maruyama", "torchsde:milstein", "torchsde:srk"):  # the last asks for a path with Lévy area
        sf.analysis.order(problem, method, DTS)
    assert sorted(references) == [FINE // 2, FINE]


def test_a_page_with_orders_solves_one_reference(references, monkeypatch, tmp_path):
    (tmp_path / "mine_shared.py").write_text(
        "import torch, sdeflow as sf\n"
        "sde = sf.SDE(lambda t, x: x.sin(), lambda t, x: 0.3 * x.cos())\n"
        "problem = sf.analysis.Problem(sde, torch.ones(20, 1).double(), name='mine',\n"
        f"    reference={{'method': 'sriw1', 'steps': {FINE}}})\n"
    )
    monkeypatch.chdir(tmp_path)
    command = "bench --process mine_shared:problem --methods euler-maruyama,torchsde:milstein,heun --dts .25,.125,.0625"
    done = CliRunner().invoke(app, [*command.split(), "--repeats", "0", "--html", "page"])
    assert done.exit_code == 0, done.output
    assert sorted(references) == [FINE // 2, FINE]


@pytest.mark.parametrize("change", ["seed", "parameter", "x0", "cells"])
def test_what_the_truth_depends_on_makes_another(references, change):
    problem = growth()
    path = problem.path(FINE, seed=0, levy=True)
    before = problem.truth(path)
    assert torch.equal(problem.truth(problem.path(FINE, seed=0, levy=True)), before) and references == [FINE]
    if change == "parameter":
        with torch.no_grad():
            problem.process.rate.add_(1.0)
    if change == "x0":
        problem.x0.add_(0.5)
    again = problem.truth(problem.path(2 * FINE if change == "cells" else FINE, seed=int(change == "seed"), levy=True))
    assert references == [FINE, FINE] and not torch.allclose(again, before)


def test_a_truth_that_is_changed_in_place_stays_true():
    problem = growth()
    path = problem.path(FINE, seed=0, levy=True)
    problem.truth(path).zero_()
    assert problem.truth(path).abs().min() > 0
