"""The README is true: its code runs, and its commands are the ones that CI runs."""

import re
from pathlib import Path

import pytest
import torch

import sdeflow

ROOT = Path(sdeflow.__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    """The README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def run(code):
    """The names that the README's code leaves behind."""
    names = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def tour():
    return run("".join(blocks("python")))


def test_the_tour_samples_the_data(tour):
    samples, data = tour["samples"], tour["data"]
    error = (samples.mean(0) - data.mean).abs() / (data.variance / len(samples)).sqrt()
    assert error.max() < 6  # standard errors: a false alarm at 4e-9 for the two means


def test_the_tour_states_its_error(tour):
    estimate, exact = tour["estimate"], tour["data"].log_prob(tour["samples"][:5])
    assert ((estimate.value - exact).abs() <= estimate.solver_error).all()
    assert (estimate.solver_error < 1e-2).all()


def test_the_process_and_its_density_belong_together(tour):
    assert tour["residual"].abs().max() < 1e-9  # float64, relative to ∂ₜ log p of order 1 to 100


def test_a_broken_example_is_noticed():
    with pytest.raises(sdeflow.SdeflowError):
        run("".join(blocks("python")).replace("steps=500", "step=500"))


def test_ci_runs_the_test_command_of_the_readme():
    demo, test = blocks("sh")
    assert test.strip() in (ROOT / ".ci" / "run").read_text().splitlines()
    assert demo.strip().endswith("/sdeflow demo --out demo")


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
