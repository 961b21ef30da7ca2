"""``sdeflow demo --quick``, run once: its files are whole, and its figures keep what theory and the library promise."""

import json
import re
import sys
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sdeflow.cli import main
from sdeflow.cli.app import app
from sdeflow.cli.demo import likelihoods, race
from sdeflow.cli.demo.setting import Sizes, prepare
from sdeflow.errors import SolveError
from sdeflow.solvers import Solution

PICTURES = {"round_trip.png", "trajectories.png", "samples.png", "likelihood.png", "race.png", "marginals.png"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "made" / "here"
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, ["demo", "--quick", "--seed", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert torch.get_num_threads() == threads
    return result.output, out


@pytest.fixture(scope="module")
def results(ran):
    return json.loads((ran[1] / "results.json").read_text(encoding="utf-8"))


def test_every_file_is_there_and_nothing_else(ran):
    assert {path.name for path in ran[1].iterdir()} == PICTURES | {"results.json", "index.html"}


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_pictures_show_something(ran, name):
    image = matplotlib.image.imread(ran[1] / name)[..., :3]
    assert min(image.shape[:2]) > 300
    assert image.std() > 0.05 and len(np.unique(image.reshape(-1, 3), axis=0)) > 20


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.open, self.tables = {}, [], 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images[attributes["src"]] = attributes["alt"]
        elif tag not in ("meta", "br"):
            self.open.append(tag)
        self.tables += tag == "table"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_shows_every_picture_with_a_text_and_is_well_formed(ran):
    text = (ran[1] / "index.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.images.keys() == PICTURES and all(len(alt) > 20 for alt in page.images.values())
    assert page.open == [] and page.tables == 6
    assert not re.search(r"https?://|<script", text)  # nothing is fetched and nothing runs


def test_the_terminal_shows_the_tables(ran):
    output = ran[0]
    for word in ("Digits to noise and back", "Hutchinson", "euler-maruyama", "torchsde:srk", "dopri5", "index.html"):
        assert word in output


def test_results_say_how_they_were_come_by(results):
    assert results["versions"].keys() == {"sdeflow", "torch", "torchsde", "torchdiffeq", "python"}
    assert (results["seed"], results["device"], results["threads"]) == (1, "cpu", 1)
    seconds = dict(results["seconds"])
    total = seconds.pop("total")
    assert len(seconds) == 8 and total == pytest.approx(sum(seconds.values())) and min(seconds.values()) > 0


def test_both_clocks_agree_to_rounding(results):
    assert results["round_trip"]["clock_difference"] <= 1e-5  # float32, pixels of order 1


def test_samples_are_as_likely_as_draws_of_the_law(results):
    groups = results["round_trip"]["groups"]
    drawn = groups.pop("drawn from the law")
    groups.pop("held-out digits")
    assert len(groups) == 3
    for name, group in groups.items():
        # Five standard errors of the difference: three comparisons, false alarms below 2e-6 in normal theory.
        bar = 5 * (group["stderr"] ** 2 + drawn["stderr"] ** 2) ** 0.5
        assert abs(group["log_prob"] - drawn["log_prob"]) < bar < 10, name  # noise itself has log p of about −400
        assert group["nearest"] == pytest.approx(drawn["nearest"], rel=0.1), name


def test_the_closed_form_is_recovered_within_the_claimed_error(results):
    closed, hutchinson, autodiff = results["likelihood"]["ways"]
    assert (
        closed["count"] == 64 and closed["covered"] >= 0.95 * closed["count"]
    )  # what the solver's bars are said to cover
    assert closed["error_max"] <= closed["solver_error_max"] < 2 and closed["error_median"] < 0.01
    assert autodiff["count"] == 8 and autodiff["covered"] >= 7 and autodiff["error_median"] < 0.2
    assert closed["stderr_mean"] == autodiff["stderr_mean"] == 0 < hutchinson["stderr_mean"]
    # At least what Student's t promises, less six binomial standard errors; solver errors only widen the bars.
    expected, count = results["likelihood"]["expected_coverage"], hutchinson["count"]
    assert expected == pytest.approx(0.909, abs=1e-3)
    assert hutchinson["covered"] >= count * expected - 6 * (count * expected * (1 - expected)) ** 0.5
    assert hutchinson["covered"] > 0.7 * count


def test_the_prior_is_nearly_the_law_at_the_end(results):
    shift = results["likelihood"]["prior_shift"]
    # KL(p₁ ‖ N(0, I)) ≤ ½ a² E|x|² with a = exp(−5.025), |x|² ≤ 64·(1 + bandwidth²): .0015; plus six standard errors.
    assert -6 * shift["kl_stderr"] <= shift["kl"] <= 0.0015 + 6 * shift["kl_stderr"]
    assert abs(shift["mean"]) <= shift["max"] < 0.2


def test_bits_per_pixel_are_those_of_a_code(results):
    bits = results["likelihood"]["bits_per_dim"]
    exact = bits["exact probability of the bins"]
    assert 2 < exact < np.log2(17)
    assert bits["density × bin, closed form"] == pytest.approx(exact, abs=0.02)
    assert bits["density × bin, probability flow"] == pytest.approx(bits["density × bin, closed form"], abs=1e-3)
    assert exact < bits["dequantised digits, closed form"] < exact + 0.1  # Jensen's inequality, in the mean


def test_the_probability_of_bins_is_what_draws_fall_into():
    setting = prepare(Sizes(fitted=20, held_out=5), seed=0)
    one, h, w = setting.held_out.images[:1].double(), setting.bandwidth, setting.train.bin_width
    normal = torch.distributions.Normal(0.0, h)
    x, m = one.flatten(1), setting.train.images.flatten(1).double()
    pixels = normal.cdf(x - m + w / 2) - normal.cdf(x - m - w / 2)
    expected = pixels.clamp_min(1e-300).log().sum(1).logsumexp(0) - np.log(20)
    assert likelihoods.bin_log_prob(setting, one).item() == pytest.approx(expected.item(), rel=1e-4)


def test_in_the_race_errors_fall_with_evaluations(results):
    lanes = results["race"]["lanes"]
    assert [len(lane) for lane in lanes.values()] == [6, 7]
    for lane in lanes.values():
        for runner in lane:
            assert runner["failure"] == "" and len(runner["runs"]) >= 3, runner
            first, last = runner["runs"][0], runner["runs"][-1]
            assert last["evaluations"] > 2 * first["evaluations"] and last["seconds"] > 0, runner
            assert last["error_median"] < first["error_median"] / 2, runner  # four times the steps: 1/4 at order one
    flow = {runner["method"]: runner["runs"][-1]["error_median"] for runner in lanes["Probability flow"]}
    assert flow["rk4"] < flow["heun"] < flow["euler"]
    sde = {runner["method"]: [run["error_median"] for run in runner["runs"]] for runner in lanes["Reversed SDE"]}
    np.testing.assert_allclose(sde["euler-maruyama"], sde["torchsde:euler"], rtol=1e-6)  # one method, one path
    assert sde["torchsde:srk"][-1] < sde["euler-maruyama"][-1]


def test_three_processes_have_one_law(results):
    marginals = results["marginals"]
    for name, distance in marginals["distances"].items():
        # P(√N D > 2.8) = 3e-7 (Kolmogorov) at one time; 3 × 2 times.
        bar = 2.8 / marginals["particles"] ** 0.5
        assert max(distance["start"], distance["end"]) < bar, name
    assert 2.8 / marginals["particles"] ** 0.5 < 0.05  # a forgotten factor 2 in the score moves it by .1 and more


def test_a_file_in_the_way_is_refused_politely(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below"):
        result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(out)])
        assert result.exit_code == 1 and "--out" in result.output and "Traceback" not in result.output
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("module", ["matplotlib", "sklearn"])
def test_a_missing_extra_of_the_demo_is_a_sentence(module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "new")])
    assert result.exit_code == 1 and not (tmp_path / "new").exists()
    assert f"needs {module}" in result.output and 'pip install "sdeflow[demo]"' in result.output


def test_a_missing_command_line_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("sdeflow: the command line needs typer")


def test_an_interrupt_keeps_what_was_done_and_exits_with_130(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(likelihoods, "estimate", interrupted)
    result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(tmp_path / "demo")])
    assert result.exit_code == 130
    assert "Interrupted after" in result.output and "digits to noise and back" in result.output
    kept = json.loads((tmp_path / "demo" / "results.json").read_text(encoding="utf-8"))
    assert "round_trip" in kept and "likelihood" not in kept
    assert "round_trip.png" in (tmp_path / "demo" / "index.html").read_text(encoding="utf-8")


def test_a_method_that_fails_is_a_row_of_the_table():
    def solve_with(method, steps):
        if steps > 8:
            raise SolveError("it blew up")
        return Solution(torch.zeros(1), torch.zeros(1, 3, 2), torch.zeros(3), {"seconds": 1.0, "nfe_drift": steps})

    rules = [(f"{n} steps", {"steps": n}) for n in (8, 16, 32)]
    runner = race.enter(solve_with, torch.ones(3, 2), "heun", rules)
    assert [run.point.error for run in runner.runs] == [1.0] and runner.runs[0].lost == 1.0
    assert runner.failure == "16 steps: it blew up"
    table = race.table(race.Lane("A race", [runner]))
    assert table.rows[-1][:2] == ["heun", "failed at 16 steps: it blew up"]
