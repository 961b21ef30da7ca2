"""``sdeflow train``, ``sample`` and ``likelihood``: data in, pictures and figures out, interruption, refusals."""

import json
import re
import signal
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sdeflow as sf
from sdeflow.cli.app import app
from sdeflow.cli.data_files import read, write
from sdeflow.cli.sample import annealed_langevin
from sdeflow.training.checkpoint import read as read_checkpoint
from sdeflow.training.recipes import KINDS
from sdeflow.training.training import Training

SMALL = ("--steps", 6, "--batch-size", 32, "--width", 8, "--depth", 1, "--evaluate-every", 3)


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.output.replace("\n", " ")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Columns in units far from 1, in each kind of file."""
    folder = tmp_path_factory.mktemp("table")
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.tensor([1000.0, -3.0]) + torch.tensor([50.0, 0.01]) * x
    np.save(folder / "x.npy", x.numpy())
    np.savez(folder / "x.npz", x=x.numpy(), label=(x[:, 0] > 1000).long().numpy())
    torch.save({"x": x, "label": (x[:, 0] > 1000).long()}, folder / "x.pt")
    write(folder / "x.csv", x, ["height", "width"])
    return folder


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt", "x.csv"])
def test_a_file_is_read_as_it_was_written(table, name):
    found, expected = read(str(table / name)), np.load(table / "x.npy")
    assert found.x.dtype is torch.float32
    np.testing.assert_allclose(found.x, expected, rtol=1e-6)
    assert found.columns == (["height", "width"] if name == "x.csv" else [])
    assert (found.label is not None) == (name in ("x.npz", "x.pt"))


def test_windows_that_overlap_are_not_on_both_sides_of_the_split():
    terrain = read("terrain")
    learned, held_out = terrain.split(220, seed=0)
    assert torch.equal(learned.x, terrain.x[:-220].flip(0)) and torch.equal(held_out.x.flip(0), terrain.x[-220:])
    moons, same = read("moons"), read("moons").split(100, seed=0)[1]
    assert not torch.equal(same.x, moons.x[-100:].flip(0)) and torch.equal(same.x, moons.split(100, seed=0)[1].x)


def test_units_go_in_and_come_back_out(table, tmp_path):
    said = run("train", table / "x.csv", "--out", tmp_path / "r", *SMALL)
    assert "180 rows of 2, 20 held out" in said and "Finished after 6 steps" in said
    for name in ("loss.png", "samples.png"):
        assert (tmp_path / "r" / name).stat().st_size > 5000
    run(
        "sample", tmp_path / "r", "-n", 400, "--steps", 10, "--out", tmp_path / "s.csv", "--picture", tmp_path / "s.png"
    )
    made = read(str(tmp_path / "s.csv"))
    assert made.columns == ["height", "width"] and (tmp_path / "s.png").stat().st_size > 5000
    # an untrained flow is nearly the identity, so its samples are near N(mean, deviation²) of the data
    assert (made.x.mean(0) - torch.tensor([1000.0, -3.0])).abs().lt(torch.tensor([25.0, 0.005])).all()
    assert 30 < made.x[:, 0].std() < 80 and 0.006 < made.x[:, 1].std() < 0.016
    said = run(
        "likelihood", tmp_path / "r", table / "x.npy", "--out", tmp_path / "l.npy", "--picture", tmp_path / "l.png"
    )
    assert (tmp_path / "l.png").stat().st_size > 5000
    value = float(said.split("mean log p")[1].split()[0])
    trained = sf.load(tmp_path / "r")
    data = read(str(table / "x.npy"))
    learned = data.split(20, 0)[0].x
    z = (data.x - learned.mean(0)) / learned.std(0)
    with torch.no_grad():
        expected = trained.log_prob(z).double() - learned.std(0).log().sum().double()
    assert value == pytest.approx(float(expected.mean()), abs=2e-3)
    np.testing.assert_allclose(np.load(tmp_path / "l.npy")[:, 0], expected, atol=1e-2)
    assert "bits per dim" not in said


def test_images_have_bits_per_dimension(tmp_path):
    sizes = ("--steps", 2, "--batch-size", 16, "--network", "mlp", "--width", 8, "--depth", 1)
    run("train", "digits", "--conditional", "--out", tmp_path, *sizes, "--no-pictures")
    said = run("likelihood", tmp_path, "--rows", 6, "--conditional", "--rtol", 1e-2, "--probes", 2)
    nats, bits = (float(said.split(words)[1].split()[0]) for words in ("mean log p", "bits per dim"))
    assert bits == pytest.approx(-nats / (64 * np.log(2)) + np.log2(17 / 2.125), abs=1e-3)
    run("sample", tmp_path, "-n", 3, "--label", 4, "--steps", 3, "--out", tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").shape == (3, 8, 8)
    assert "labels from 0 to 9" in run("sample", tmp_path, "--label", 10, "--out", tmp_path / "x.npy", code=1)


@pytest.mark.parametrize(
    ("kind", "sampling"),
    [
        (["score", "--process", "ve", "--option", "weighting=edm"], ["--sde", "--steps", 5]),
        (["rectified-flow"], ["--steps", 5]),
        (
            ["continuous-flow", "--option", "kinetic=0.1", "--option", 'solver={"steps":3,"method":"heun"}'],
            ["--rtol", 1e-2],
        ),
        (["bridge-matching", "--option", "sigma=0.5", "--base", "eight-gaussians"], ["--steps", 5]),
        (["interpolant"], ["--epsilon", 0.1, "--steps", 5]),
        (["action-matching"], ["--steps", 5, "--method", "heun"]),
        (["edm"], ["--steps", 5, "--method", "edm-heun"]),
        (["edm"], ["--steps", 8, "--annealed", 4]),
        (["score", "--option", "time=levels", "--option", "time.count=6"], ["--sde", "--steps", 5]),
        (["score-matching", "--option", "method=sliced", "--option", "length=0.1"], []),
        (["learned-reversal", "--process", "ou", "--option", "steps=5"], ["--sde", "--steps", 5]),
        (["schrodinger-bridge", "--option", "sigma=0.5"], ["--sde", "--steps", 5]),
    ],
)
def test_every_kind_of_model_trains_and_samples(kind, sampling, tmp_path):
    run("train", "checkerboard", "--kind", *kind, "--out", tmp_path, *SMALL, "--no-pictures", "--held-out", 0)
    run("sample", tmp_path, "-n", 7, *sampling, "--out", tmp_path / "x.pt")
    x = torch.load(tmp_path / "x.pt", weights_only=True)
    assert x.shape == (7, 2) and x.isfinite().all()


OWN = """
import torch
import sdeflow as sf

def reverting(theta=1.0):
    level = torch.tensor([1000.0, -3.0])
    return sf.SDE(lambda t, x: theta * (level - x), lambda t, x: 0.01 * x.abs())

"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module of the user's, which is the current one."""
    (tmp_path / "own_sde.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("own_sde", None)


def test_the_table_of_kinds_has_all():
    """Every row of the documentation's table begins with a kind that there is, and none is left out."""
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    named = re.findall(r"\| `--kind ([a-z-]+)", text)
    assert set(named) == set(KINDS)


def test_ones_own_process_is_reversed_in_its_own_units(table, own):
    """Train, resume, sample, likelihood; the process that was learned from moves the rows as they are in the file."""
    command = ("train", table / "x.csv", "--kind", "learned-reversal", "--process", "own_sde:reverting", *SMALL)
    command = (*command, "--option", "process.theta=0.5", "--option", "steps=8", "--out", "r")
    run(*command)
    assert (own / "r" / "samples.png").stat().st_size > 5000
    recipe = json.loads((own / "r" / "run.json").read_text())["recipe"]
    assert recipe["process"] == {"name": "own_sde:reverting", "theta": 0.5} and set(recipe["code"]) == {
        "own_sde:reverting"
    }
    mean, (variance, _) = recipe["base"]["mean"], recipe["base"]["covariance"][0]
    # deviations of 50 and 10: e^{−½·2}·2500 + 100·(1 − e^{−1}) within 20 %, where units of the model would give about 1
    assert mean == pytest.approx([1000.0, -3.0], rel=0.02) and variance == pytest.approx(983, rel=0.2)
    for way in ([], ["--sde", "--steps", 8]):
        run("sample", "r", "-n", 300, *way, "--own-code", "--out", "s.csv")
        made = read("s.csv")
        assert made.columns == ["height", "width"] and 900 < made.x[:, 0].mean() < 1100 and made.x[:, 0].std() > 15
    value = float(run("likelihood", "r", "--own-code").split("mean log p")[1].split()[0])
    assert -8 < value < 0  # that of the data is −ln 2πe − ln 50 − ln 0.01 = −2.1
    assert "held out" in run(*command, "--resume")
    assert "with options={" in run(*command, "--resume", "--option", "shift=0", code=1)
    with pytest.warns(sf.errors.SdeflowWarning, match="has changed"):
        (own / "own_sde.py").write_text(OWN + "# more\n")
        run("sample", "r", "-n", 2, "--own-code", "--out", "s.csv")
    sys.modules.pop("own_sde")
    (own / "own_sde.py").unlink()
    assert "no module 'own_sde'" in run("sample", "r", "-n", 2, "--own-code", "--out", "s.csv", code=1)


def test_a_folder_from_somebody_else_runs_no_code(table, own):
    """What a recipe names is neither imported nor called until that is allowed."""
    run("train", table / "x.csv", "--kind", "learned-reversal", "--process", "own_sde:reverting", *SMALL,
        "--option", "steps=4", "--out", "r", "--no-pictures")  # fmt: skip
    (own / "trap.py").write_text("open('sprung', 'w').close()\n")
    checkpoint = read_checkpoint("r")
    checkpoint.record["recipe"]["process"] = "trap:door"
    with (
        mock.patch("sdeflow.training.load.read", return_value=checkpoint),
        pytest.raises(sf.ArgumentError, match=r"made with trap:door, .* own_code=True"),
    ):
        sf.load("r")
    assert "own_sde:reverting, which loading would import" in run("sample", "r", "-n", 2, "--out", "s.csv", code=1)
    assert "--own-code" in run("likelihood", "r", code=1) and not (own / "sprung").exists()


def test_a_positive_process_starts_from_a_log_normal_law(tmp_path):
    x = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).mul(0.3).exp()
    np.save(tmp_path / "x.npy", x.numpy())
    options = ("--option", "process.sigma=0.5", "--option", "steps=5", "--base", "log-normal")
    run("train", tmp_path / "x.npy", "--kind", "learned-reversal", "--process", "gbm", *options, *SMALL,
        "--out", tmp_path / "r", "--no-pictures")  # fmt: skip
    base = sf.load(tmp_path / "r").base
    recipe = json.loads((tmp_path / "r" / "run.json").read_text())["recipe"]
    smallest = -recipe["data"]["shift"][0] / recipe["data"]["scale"][0]  # where x is 0
    assert base.sample((1000,)).min() > smallest
    assert "mean log p" in run("likelihood", tmp_path / "r", "--rows", 5)


def test_naive_score_matching_has_samples_and_no_likelihood(tmp_path):
    run("train", "moons", "--kind", "score-matching", "--option", "length=0.1", "--out", tmp_path, *SMALL)
    assert (tmp_path / "samples.png").stat().st_size > 5000 and (tmp_path / "loss.png").stat().st_size > 5000
    said = run("likelihood", tmp_path, code=1)
    assert (
        "no flow from a base and no likelihood" in said
        and "--kind score has all three" in said
        and "DenoisingScore" not in said
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Three classes in a .csv file, one far to the right of another."""
    folder = tmp_path_factory.mktemp("labelled")
    noise = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    label = torch.arange(300) % 3
    rows = torch.cat([noise[:, :1] + 10 * label[:, None], label[:, None], noise[:, 1:]], dim=1)
    write(folder / "x.csv", rows, ["right", "label", "up"])
    return folder / "x.csv"


def test_labels_are_a_column(labelled):
    found = read(str(labelled))
    assert found.columns == ["right", "up"] and found.x.shape == (300, 2)
    assert torch.equal(found.label, torch.arange(300) % 3)


def test_guidance_goes_towards_a_label(labelled, tmp_path):
    """The mean of class 1's neighbours: with w = 3 class 2 is overshot, in units of the data; with w = 0 it is that of all."""
    guided = ("--kind", "flow-matching", "--conditional", "--drop-labels", 0.3, "--learning-rate", 0.01)
    sizes = ("--steps", 150, "--warmup", 0, "--ema", 0.9, "--width", 32, "--depth", 2, "--evaluate-every", 150)
    run("train", labelled, *guided, *sizes, "--out", tmp_path / "r", "--no-pictures")

    def right(*options):
        run(
            "sample",
            tmp_path / "r",
            "-n",
            400,
            *options,
            "--steps",
            20,
            "--method",
            "heun",
            "--out",
            tmp_path / "s.npy",
        )
        return float(np.load(tmp_path / "s.npy")[:, 0].mean())

    plain, one, none, sharp = (
        right("--label", 2, *w) for w in ([], ["--guidance", 1], ["--guidance", 0], ["--guidance", 3])
    )
    assert one == pytest.approx(plain, abs=1e-3) and none == pytest.approx(right(), abs=1e-3)
    assert none < plain - 4 and sharp > plain + 1
    assert "say towards which label" in run("sample", tmp_path / "r", "--guidance", 2, "--out", "s.npy", code=1)
    assert "labels from 0 to 2" in run(
        "sample", tmp_path / "r", "--guidance", 2, "--label", 3, "--out", "s.npy", code=1
    )
    assert "mean log p" in run("likelihood", tmp_path / "r", "--rows", 5)


def test_a_model_of_labels_only_is_not_asked_without(labelled, tmp_path):
    run("train", labelled, "--conditional", *SMALL, "--out", tmp_path, "--no-pictures")
    for refused, words in (
        (["sample", tmp_path, "--guidance", 2, "--label", 1, "--out", tmp_path / "s.npy"], "--drop-labels 0.1"),
        (["likelihood", tmp_path], "say --conditional"),
    ):
        assert words in run(*refused, code=1)
    every = sf.cli.trained.Trained.of(tmp_path)
    assert every.condition(None, 4)["label"].tolist() == [0, 1, 2, 0] and not every.knows_no_label


def test_annealed_langevin_goes_from_the_noise_to_the_data(tmp_path):
    """On both clocks the levels fall; a model without levels, and a second noise, are refused."""
    command = ("train", "moons", *SMALL, "--held-out", 0, "--no-pictures")
    for kind, first, last in (("score", 1.0, 1e-3), ("flow-matching", 1e-3, 1.0)):
        run(*command, "--kind", kind, "--out", tmp_path / kind)
        process = annealed_langevin(sf.load(tmp_path / kind), 5, {})
        assert process.times[0] == pytest.approx(first, abs=2e-3) and process.times[-1] == pytest.approx(last, abs=2e-3)
    to = ("--out", tmp_path / "x.npy")
    run(*command, "--kind", "bridge-matching", "--out", tmp_path / "r")
    assert "this model has no noise levels" in run("sample", tmp_path / "r", "--annealed", 5, *to, code=1)
    assert "leave out --sde" in run("sample", tmp_path / "score", "--annealed", 5, "--sde", *to, code=1)


def test_another_recipe_is_not_taken_up(tmp_path):
    command = ("train", "moons", "--kind", "score", *SMALL, "--out", tmp_path, "--no-pictures", "--held-out", 0)
    run(*command)
    said = run(*command, "--process", "ve", "--resume", code=1)
    assert "process=None, and now process='ve'" in said


@pytest.mark.parametrize(
    "what",
    [
        ["moons"],
        ["moons", "--kind", "learned-reversal", "--process", "ou", "--option", "steps=4"],
        ["moons", "--kind", "score-matching", "--option", "method=sliced"],
        ["moons", "--kind", "edm"],
        ["digits", "--network", "mlp", "--conditional", "--drop-labels", 0.3],
    ],
)
def test_ctrl_c_and_the_same_command_with_resume(what, tmp_path, monkeypatch):
    command = ("train", *what, *SMALL, "--no-pictures", "--held-out", 0, "--out")
    run(*command, tmp_path / "whole")
    real = Training.advance

    def advance(self):
        done = real(self)
        if self.step == 4:
            signal.raise_signal(signal.SIGINT)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", advance)
        said = run(*command, tmp_path / "parts", code=130)
    assert "stopped at step 4 of 6" in said and "--resume" in said
    assert "--resume" in run(*command, tmp_path / "parts", code=1)  # not by accident
    run(*command, tmp_path / "parts", "--resume")
    one, two = (sf.training.checkpoint.read(tmp_path / name).tensors for name in ("whole", "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="errors have notes from Python 3.11 on")
def test_an_error_in_the_middle_says_that_the_steps_before_are_kept(tmp_path, monkeypatch):
    real = Training.attempt

    def attempt(self):
        if self.step == 4:
            raise sf.ArgumentError("A row is no row.")
        return real(self)

    command = ("train", "moons", *SMALL, "--no-pictures", "--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "attempt", attempt)
        said = run(*command, code=1)
    assert "A row is no row. sf.fit stopped at step 4 of 6. All of it is in" in said
    assert "the same command with --resume" in said
    assert "inished after 6 steps" in run(*command, "--resume")


def test_the_model_is_in_json(tmp_path):
    run("train", "s-curve", "--path", "cosine", "--out", tmp_path, *SMALL, "--no-pictures")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["recipe"]["kind"] == "flow-matching" and record["recipe"]["path"] == "cosine"
    assert record["recipe"]["network"] == {"name": "mlp", "width": 8, "depth": 1}
    rebuilt = sf.training.build(record["recipe"])
    assert sum(p.numel() for p in rebuilt.parameters()) == sum(p.numel() for p in sf.load(tmp_path).parameters())


@pytest.fixture
def files(tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.csv").write_text("a,b\n1,2\n3,four\n")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3\n")
    (tmp_path / "empty.csv").write_text("\n")
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(print))
    np.save("nan.npy", np.array([[0.0, np.nan], [1.0, 2.0], [1.0, 2.0]]))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "half.csv").write_text("a,label\n1,0\n2,0.5\n")
    (tmp_path / "their_sde.py").write_text(
        "import sdeflow as sf\nnumber = 3\n"
        "broken = sf.SDE(\n    lambda t, x: x.nothing, lambda t, x: x\n)\n"
        "back = sf.processes.VariancePreserving().reverse(lambda t, x: -x, clock='backward')\n"
    )
    np.savez("x.npz", x=np.random.default_rng(0).normal(size=(30, 2)), label=np.arange(30) % 2)
    np.save("x.npy", np.random.default_rng(0).normal(size=(30, 2)))
    yield
    sys.modules.pop("their_sde", None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "moonz"], "Did you mean 'moons'"),
        (["train", "nowhere.npy"], "no file nowhere.npy"),
        (["train", "words.csv"], "row 2 of data: could not convert string to float: 'four'"),
        (["train", "ragged.csv"], "row 2 of data has 1 values, and the first has 2"),
        (["train", "empty.csv"], "it is empty"),
        (["train", "objects.npy"], "cannot be read"),
        (["train", "pickled.pt"], "cannot be read"),
        (["train", "nan.npy"], "1 rows with values that are not finite"),
        (["train", "x.npy", "--kind", "scor"], "Did you mean 'score'"),
        (["train", "x.npy", "--path", "linea"], "Did you mean 'linear'"),
        (["train", "x.npy", "--kind", "score", "--path", "vp"], "no part of a recipe"),
        (["train", "x.npy", "--option", "cupling=optimal-transport"], "Did you mean 'coupling'"),
        (["train", "x.npy", "--option", "coupling"], "NAME=VALUE"),
        (["train", "x.npy", "--option", "bass.deviation=2"], "'bass' is no part of a model"),
        (["train", "x.npy", "--base", "normal", "--option", "base=normal"], "the base is given twice"),
        (["train", "x.npy", "--option", "base.deviation=wide"], "does not fit an event"),
        (["train", "x.npy", "--kind", "doob"], "a Doob transform is no model of rows"),
        (["train", "x.npy", "--kind", "learned-reversal"], "made for a process, and none is given"),
        (["train", "x.npy", "--kind", "score", "--process", "gbm"], "there is --kind learned-reversal"),
        (["train", "x.npy", "--kind", "learned-reversal", "--process", "nowhere:x:"], "nowhere:x:: there is no module"),
        (["train", "x.npy", "--kind", "learned-reversal", "--process", "their_sde:broken"], "AttributeError in "),
        (["train", "x.npy", "--kind", "learned-reversal", "--process", "their_sde:broken"], "their_sde.py, line 4: "),
        (["train", "x.npy", "--kind", "learned-reversal", "--process", "their_sde:number"], "the process is int"),
        (["train", "x.npy", "--kind", "learned-reversal", "--process", "their_sde:back"], "that runs forward"),
        (
            ["train", "x.npy", "--kind", "learned-reversal", "--process", "gbm", "--base", "log-normal"],
            "positive numbers",
        ),
        (["train", "x.npy", "--drop-labels", "0.1"], "with --conditional only"),
        (["train", "x.npz", "--conditional", "--drop-labels", "1.5"], "drop_labels=1.5"),
        (["train", "half.csv", "--conditional"], "the label 0.5 is no class"),
        (["train", "x.npy", "--conditional"], "no labels"),
        (["train", "x.npy", "--learning-rate", "-1"], "learning_rate=-1.0"),
        (["sample", "."], "give --out"),
        (["sample", ".", "--out", "y.npy"], "there is no checkpoint"),
        (["likelihood", "."], "there is no checkpoint"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(files, arguments, words):
    assert words in run(*arguments, code=1)
