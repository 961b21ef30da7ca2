"""``sdeflow train``, ``sample`` and ``likelihood``: data in, pictures and figures out, interruption, refusals."""

import json
import signal

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sdeflow as sf
from sdeflow.cli.app import app
from sdeflow.cli.data_files import read, write
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
    ],
)
def test_every_kind_of_model_trains_and_samples(kind, sampling, tmp_path):
    run("train", "checkerboard", "--kind", *kind, "--out", tmp_path, *SMALL, "--no-pictures")
    run("sample", tmp_path, "-n", 7, *sampling, "--out", tmp_path / "x.pt")
    x = torch.load(tmp_path / "x.pt", weights_only=True)
    assert x.shape == (7, 2) and x.isfinite().all()


def test_ctrl_c_and_the_same_command_with_resume(tmp_path, monkeypatch):
    command = ("train", "moons", *SMALL, "--no-pictures", "--held-out", 0, "--out")
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
    np.save("x.npy", np.random.default_rng(0).normal(size=(30, 2)))


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
        (["train", "x.npy", "--conditional"], "no labels"),
        (["train", "x.npy", "--learning-rate", "-1"], "learning_rate=-1.0"),
        (["sample", "."], "give --out"),
        (["sample", ".", "--out", "y.npy"], "there is no checkpoint"),
        (["likelihood", "."], "there is no checkpoint"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(files, arguments, words):
    assert words in run(*arguments, code=1)
