"""Training: seeds, resumption to the bit, interruption, divergence, early stopping, and refusals in a sentence."""

import json
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import sdeflow as sf

DATA = sf.data.moons(300, seed=0)
LABELS = (DATA[:, 1] > 0.25).long()


def model(seed=0, **options):
    torch.manual_seed(seed)
    return sf.models.FlowMatching(sf.networks.MLP(2, width=16, depth=2, **options), sf.paths.LinearPath().base((2,)))


def fit(made, data=DATA, steps=12, **options):
    return sf.fit(made, data, steps, **{"seed": 3, "batch_size": 64, "progress": False, **options})


def weights(made):
    return torch.cat([value.detach().flatten() for value in made.parameters()])


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_a_run_is_a_function_of_its_seed_and_leaves_the_global_generators_alone():
    one, two, other = model(), model(), model()
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    before = torch.rand(3), np.random.rand(), random.random()
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    first = fit(one)
    after = torch.rand(3), np.random.rand(), random.random()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    torch.rand(100)
    again, another = fit(two), fit(other, seed=4)
    assert torch.equal(first.losses, again.losses) and torch.equal(weights(one), weights(two))
    assert not torch.equal(first.losses, another.losses)


def test_without_a_seed_a_run_says_which_it_took():
    one = fit(model(), seed=None)
    again = fit(model(), seed=one.seed)
    assert torch.equal(one.losses, again.losses)
    other = model()
    torch.manual_seed(1)
    assert not torch.equal(one.losses, fit(other, seed=None).losses)


class Noisy(sf.models.FlowMatching):
    """A model with dropout, which draws from torch's global generator."""

    def prediction(self, t, x, **condition):
        return super().prediction(t, torch.nn.functional.dropout(x, 0.2, self.training), **condition)


def test_every_row_comes_once_in_an_epoch_and_each_epoch_has_an_order_of_its_own():
    rows = torch.arange(10.0)[:, None]
    batches = sf.training.batches.Rows([rows], 4, seed=0)
    seen = torch.cat([batches.take()[0] for _ in range(5)]).flatten()  # two epochs
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


# --- interrupted and taken up again ------------------------------------------------------------------------------------


class Transformed(Dataset):
    """A data set that augments what it reads, by three generators."""

    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        shift = torch.randn(2) + float(np.random.rand()) + random.random()
        return DATA[index] + 0.1 * shift, LABELS[index]


class Stream(IterableDataset):
    """A data set without indices."""

    def __iter__(self):
        for row in DATA[:100]:
            yield row + 0.1 * torch.randn(2)


SOURCES = {
    "tensor": (lambda: DATA, {}),
    "tensors": (lambda: (DATA, LABELS), {"names": ("x", "label")}),
    "dictionary": (lambda: {"label": LABELS, "x": DATA.double()}, {}),
    "tensor data set": (lambda: TensorDataset(DATA, LABELS), {"names": ("x", None)}),
    "data set": (Transformed, {"names": ("x", "label")}),
    "loader": (lambda: DataLoader(Transformed(), batch_size=70, shuffle=True), {"names": ("x", "label")}),
    "loader with a generator": (
        lambda: DataLoader(TensorDataset(DATA), batch_size=70, shuffle=True, generator=torch.Generator()),
        {},
    ),
    "stream": (Stream, {"batch_size": 30}),
    "law": (sf.data.eight_gaussians, {}),
}
OPTIMISERS = {
    "adam": {},
    "adamw, cosine": {"optimiser": "adamw", "schedule": "cosine", "warmup": 3},
    "sgd": {"optimiser": torch.optim.SGD, "learning_rate": 0.01, "clip": 0.5, "ema": 0.0},
    "amsgrad": {"optimiser": lambda parameters, lr: torch.optim.Adam(parameters, lr, amsgrad=True)},
    "bfloat16": {"precision": "bf16-mixed"},
}


def interrupted_after(steps, made, folder, *arguments, monkeypatch, **options):
    """A run that is ended by Ctrl-C after so many steps."""
    import signal

    from sdeflow.training.training import Training

    real = Training.advance

    def advance(self):
        done = real(self)
        if self.step == steps:
            signal.raise_signal(signal.SIGINT)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", advance)
        with pytest.raises(KeyboardInterrupt, match=f"stopped at step {steps} of 12.*resume=True"):
            fit(made, *arguments, folder=folder, **options)


@pytest.mark.parametrize("source", SOURCES)
def test_an_interrupted_run_has_the_losses_of_one_that_was_not(source, tmp_path, monkeypatch):
    make, options = SOURCES[source]
    classes = 2 if "label" in options.get("names", ()) or source == "dictionary" else 0
    whole = model(classes=classes)
    expected = fit(whole, make(), **options)
    interrupted_after(7, model(classes=classes), tmp_path, make(), monkeypatch=monkeypatch, **options)
    resumed = model(seed=5, classes=classes)  # other first weights: those of the checkpoint count
    run = fit(resumed, make(), folder=tmp_path, resume=True, **options)
    assert torch.equal(run.losses, expected.losses) and run.status == "finished"
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_state_of_every_optimiser_comes_back(name, tmp_path, monkeypatch):
    options = OPTIMISERS[name]
    whole, resumed = Noisy(model().net, sf.paths.LinearPath().base((2,))), model(seed=5)
    expected = fit(whole, **options)
    first = Noisy(model().net, sf.paths.LinearPath().base((2,)))
    interrupted_after(5, first, tmp_path, monkeypatch=monkeypatch, **options)
    resumed = Noisy(resumed.net, sf.paths.LinearPath().base((2,)))
    run = fit(resumed, folder=tmp_path, resume=True, **options)
    assert torch.equal(run.losses, expected.losses)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_finished_run_may_go_on_and_is_as_one_of_all_its_steps(tmp_path):
    whole, parts = model(), model()
    expected = fit(whole, steps=12)
    fit(parts, steps=5, folder=tmp_path)
    run = fit(parts, steps=12, folder=tmp_path, resume=True)
    assert torch.equal(run.losses, expected.losses) and torch.equal(weights(parts), weights(whole))
    again = fit(model(seed=9), steps=12, folder=tmp_path, resume=True)  # nothing is left to do
    assert torch.equal(again.losses, expected.losses) and torch.equal(weights(again.model), weights(whole))


def test_workers_load_what_no_workers_load():
    own = DataLoader(Transformed(), batch_size=70, shuffle=True)
    two = DataLoader(Transformed(), batch_size=70, shuffle=True, num_workers=1)
    runs = [fit(model(classes=2), loader, steps=3, names=("x", "label")) for loader in (own, two)]
    assert torch.equal(runs[0].losses, runs[1].losses)


# --- weights -----------------------------------------------------------------------------------------------------------


def test_the_average_is_the_exponential_one(tmp_path):
    made = model()
    fit(made, steps=1, ema=0.0, folder=tmp_path / "one")
    start = weights(model())
    history = [weights(made)]
    for steps in range(2, 6):
        trained = model()
        fit(trained, steps=steps, ema=0.0)
        history.append(weights(trained))
    average = start
    for k, value in enumerate(history, 1):
        decay = min(0.5, k / (9 + k))
        average = decay * average + (1 - decay) * value
    averaged = model()
    fit(averaged, steps=5, ema=0.5, folder=tmp_path / "five")
    torch.testing.assert_close(weights(averaged), average)
    last = sf.load(tmp_path / "five", model(seed=4), which="last")
    assert torch.equal(weights(last), history[-1])
    assert torch.equal(weights(sf.load(tmp_path / "five", model(seed=4))), weights(averaged))


def test_a_gradient_is_no_longer_than_the_bound():
    plain, bounded = model(), model()
    fit(plain, steps=1, optimiser=torch.optim.SGD, learning_rate=1.0, clip=None, ema=0.0)
    fit(bounded, steps=1, optimiser=torch.optim.SGD, learning_rate=1.0, clip=0.1, ema=0.0)
    start = weights(model())
    step, short = weights(plain) - start, weights(bounded) - start
    assert step.norm() > 0.2
    torch.testing.assert_close(short, 0.1 * step / step.norm(), rtol=1e-4, atol=1e-6)


def test_the_rate_warms_up_and_falls(tmp_path):
    def moved(**options):
        made = model()
        fit(made, optimiser=torch.optim.SGD, learning_rate=0.1, clip=None, ema=0.0, **options)
        return weights(made)

    start = weights(model())
    plain = moved(steps=1) - start
    torch.testing.assert_close(moved(steps=1, warmup=4) - start, plain / 4, rtol=1e-4, atol=1e-7)
    assert torch.equal(moved(steps=2, schedule="linear", warmup=1), moved(steps=2, schedule="cosine", warmup=1))
    assert not torch.equal(moved(steps=4, schedule="linear"), moved(steps=4, schedule="cosine"))


def test_training_learns():
    made = model()
    held_out = sf.data.moons(60, seed=1)
    with torch.no_grad():
        before = made.log_prob(held_out).mean()
    run = fit(made, steps=150, learning_rate=1e-2, ema=0.9, batch_size=128, held_out=held_out, evaluate_every=60)
    assert [look["step"] for look in run.held_out] == [60, 120, 150]
    with torch.no_grad():
        after = made.log_prob(held_out).mean()
    assert after > before + 0.3
    assert run.held_out[-1]["value"] == pytest.approx(float(after), abs=1e-4)
    assert "finished after 150 steps" in str(run)


def test_early_stopping_keeps_the_best_weights(tmp_path):
    options = {"held_out": DATA[:50], "evaluate_every": 2, "patience": 2, "criterion": "loss"}
    made = model()
    run = fit(
        made, DATA[:50], steps=200, optimiser=torch.optim.SGD, learning_rate=0.3, clip=None, folder=tmp_path, **options
    )
    values = [look["value"] for look in run.held_out]
    best = max(range(len(values)), key=values.__getitem__)
    assert run.status == "stopped early" and best == len(values) - 3 and run.steps == 2 * len(values) < 200
    again = model()
    stopped = fit(
        again, DATA[:50], steps=run.held_out[best]["step"], optimiser=torch.optim.SGD, learning_rate=0.3, clip=None
    )
    assert torch.equal(weights(made), weights(again)) and stopped.steps == 2 * (best + 1)
    assert torch.equal(weights(sf.load(tmp_path, model(seed=4))), weights(made))
    same = fit(  # the same call once more finds that there is nothing left to do
        model(seed=5),
        DATA[:50],
        steps=200,
        optimiser=torch.optim.SGD,
        learning_rate=0.3,
        clip=None,
        folder=tmp_path,
        resume=True,
        **options,
    )
    assert same.status == "stopped early" and same.steps == run.steps
    assert torch.equal(weights(same.model), weights(made))


def test_images_are_dequantised_anew_in_each_step():
    images = sf.data.LevelImages(torch.zeros(4, 2, 2), torch.arange(4), levels=17)
    batches = sf.training.batches.as_batches(images, 4, 0, ("x", "label"))
    (one, labels), (two, _) = batches.take(), batches.take()
    assert not torch.equal(one, two) and one.abs().max() <= images.bin_width / 2 and sorted(labels) == [0, 1, 2, 3]


# --- what goes wrong ------------------------------------------------------------------------------------------------


class Diverging(sf.models.FlowMatching):
    """Its loss is NaN from the fifth step on."""

    calls, where = 0, "loss"

    def losses(self, x, x0, draws, **condition):
        self.calls += 1
        value = super().losses(x, x0, draws, **condition)
        bad = self.calls >= 5
        if self.where == "gradient":  # a finite loss with an infinite slope
            weight = self.net.last.bias[0]
            return value + ((weight - weight.detach()).abs().sqrt() if bad else 0.0)
        return value * (float("nan") if bad else 1.0)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights(where, tmp_path):
    made = Diverging(model().net, sf.paths.LinearPath().base((2,)))
    made.where = where
    good = model()
    expected = fit(good, steps=4)
    with pytest.raises(sf.TrainingError, match=r"in step 5, which was not taken.*lower learning_rate") as caught:
        fit(made, folder=tmp_path)
    assert torch.equal(weights(made), weights(good))
    assert torch.equal(caught.value.run.losses, expected.losses) and caught.value.run.status == "diverged"
    assert torch.equal(weights(sf.load(tmp_path, model(seed=2))), weights(good))
    with pytest.raises(sf.ArgumentError, match=r"diverged in step 5.*another folder"):
        fit(model(), folder=tmp_path, resume=True)


class Normalised(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)

    def forward(self, t, x):
        return self.last(self.norm(self.first(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], 1))))


def test_running_statistics_are_as_they_were_before_the_step_that_was_not_taken(tmp_path):
    """One NaN in the data spoils them in the forward pass, before there is a loss."""
    data = DATA.clone()
    data[7] = float("nan")
    torch.manual_seed(0)
    made = sf.models.FlowMatching(Normalised(), sf.paths.LinearPath().base((2,)))
    with pytest.raises(sf.TrainingError) as caught:
        fit(made, data, steps=100, folder=tmp_path)
    assert len(caught.value.run.losses) == int(made.net.norm.num_batches_tracked)
    loaded = sf.load(tmp_path, sf.models.FlowMatching(Normalised(), sf.paths.LinearPath().base((2,)))).eval()
    for model in (made.eval(), loaded):
        assert model.sample(3, seed=0, solver={"steps": 3}).isfinite().all()


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    from safetensors.torch import save_file

    fit(model(), steps=3, folder=tmp_path)
    file = tmp_path / "checkpoint.safetensors"
    content = file.read_bytes()
    for change in (content[: len(content) // 2], b"", bytes([*content[:-7], content[-7] ^ 4, *content[-6:]])):
        file.write_bytes(change)
        with pytest.raises(sf.ArgumentError, match="damaged"):
            sf.load(tmp_path, model())
        with pytest.raises(sf.ArgumentError, match="damaged"):
            fit(model(), steps=3, folder=tmp_path, resume=True)
    file.write_bytes(content.replace(b'\\"seed\\": 3', b'\\"seed\\": 4'))
    with pytest.raises(sf.ArgumentError, match="checksum"):
        sf.load(tmp_path, model())
    save_file({"weight": torch.zeros(3)}, str(file))
    with pytest.raises(sf.ArgumentError, match=r"was not written by sf\.fit"):
        sf.load(tmp_path, model())
    with pytest.raises(sf.ArgumentError, match="there is no checkpoint"):
        sf.load(tmp_path / "nowhere", model())
    file.write_bytes(content)
    with pytest.raises(sf.ArgumentError, match=r"those of another model: net\.first\.weight is float32"):
        sf.load(tmp_path, sf.models.FlowMatching(sf.networks.MLP(2, width=8), sf.paths.LinearPath().base((2,))))
    with pytest.raises(sf.ArgumentError, match="no recipe"):
        sf.load(tmp_path)


def test_another_run_is_not_taken_up(tmp_path):
    fit(model(), steps=3, folder=tmp_path)
    with pytest.raises(sf.ArgumentError, match="holds a run already: pass resume=True"):
        fit(model(), folder=tmp_path)
    for change, words in (
        ({"batch_size": 32}, "batch_size=64, and now batch_size=32"),
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"seed": 5}, "seed=5 was given"),
        ({"data": DATA + 1}, "other data"),
        ({"made": model(classes=2)}, "another model"),
    ):
        with pytest.raises(sf.ArgumentError, match=words):
            fit(**{"made": model(), "folder": tmp_path, "resume": True, **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"optimiser": "adm"}, "Did you mean 'adam'"),
        ({"schedule": "cosin"}, "'cosine'"),
        ({"precision": "half"}, "precision"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"names": "x"}, "one word"),
        ({"names": ("y",)}, "one of them 'x'"),
        ({"names": ("x", "label")}, r"has 1 parts"),
        ({"data": (DATA, LABELS)}, "has 2 parts"),
        ({"data": (DATA, LABELS[:5]), "names": ("x", "label")}, "as many of each"),
        ({"data": "moons"}, "the data are str"),
        ({"data": DATA[:0]}, "at least one"),
        ({"data": {"y": DATA}}, "one of them 'x'"),
        ({"data": DATA[:, :1]}, r"of shape \(B, 2\)"),
        ({"made": torch.nn.Linear(2, 2)}, "a method loss"),
        ({"made": sf.models.FlowMatching(lambda t, x: x, sf.paths.LinearPath().base((2,)))}, "nothing to train"),
        ({"patience": 3}, "held_out="),
        ({"optimiser": torch.optim.LBFGS}, "one loss"),
        ({"resume": True}, "folder="),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(change, words):
    with pytest.raises(sf.ArgumentError, match=words):
        fit(**{"made": model(), **change})


def test_the_record_is_json_that_a_person_can_read(tmp_path):
    fit(model(), steps=3, folder=tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["step"] == 3 and record["status"] == "finished" and record["seed"] == 3
    assert record["settings"]["batch_size"] == 64 and record["data"]["rows"] == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.safetensors", "run.json"]
