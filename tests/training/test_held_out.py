"""Held-out data: what is wrong with them is known before the first step, and looking leaves no trace in the run."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import sdeflow as sf
from sdeflow.training.training import Training

DATA = sf.data.moons(300, seed=0)
HELD_OUT = sf.data.moons(40, seed=1)


def model(seed=0, **options):
    torch.manual_seed(seed)
    return sf.models.FlowMatching(sf.networks.MLP(2, width=16, depth=2, **options), sf.paths.LinearPath().base((2,)))


def fit(made, data=DATA, steps=12, **options):
    return sf.fit(made, data, steps, **{"seed": 3, "batch_size": 64, "progress": False, **options})


def weights(made):
    return torch.cat([value.detach().flatten() for value in made.parameters()])


def wide():
    process = sf.processes.VariancePreserving()
    return sf.models.DenoisingScoreMatching(sf.networks.MLP(100, width=8, depth=1), process, (100,))


def of_one_law():
    return sf.models.ScoreMatching(sf.networks.MLP(2, width=8, depth=1), sf.paths.LinearPath().base((2,)))


@pytest.mark.parametrize(
    ("make", "data", "options", "words"),
    [
        pytest.param(
            wide, torch.zeros(9, 100), {"held_out": torch.zeros(9, 100)}, "Choose: divergence=", id="divergence"
        ),
        pytest.param(of_one_law, DATA, {"held_out": HELD_OUT}, "no likelihood", id="no likelihood"),
        pytest.param(model, DATA, {"held_out": torch.zeros(9, 3)}, r"event_shape \(2,\)", id="shape"),
        pytest.param(
            lambda: model(classes=2),
            (DATA, torch.zeros(300, dtype=torch.long)),
            {"held_out": HELD_OUT, "names": ("x", "label")},
            "a batch has 1 parts",
            id="no label",
        ),
    ],
)
def test_what_is_wrong_with_them_is_said_before_the_first_step(make, data, options, words, tmp_path):
    made = make()
    before = weights(made)
    with pytest.raises(sf.ArgumentError, match=f"held_out cannot be evaluated: .*{words}"):
        fit(made, data, evaluate_every=10, folder=tmp_path, **options)
    assert torch.equal(weights(made), before) and not list(tmp_path.iterdir())


class Restless(torch.nn.Module):
    """Dropout, running statistics, a buffer that changes in evaluation mode as well, and draws of numpy's global generator."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
        self.frozen = torch.nn.BatchNorm1d(8).eval()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, t, x):
        self.calls += 1
        h = self.frozen(self.norm(self.first(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], 1))))
        h = torch.nn.functional.dropout(h * (1 + 0.01 * self.calls), 0.2, self.training)
        return self.last(h) + np.random.rand()


def restless():
    torch.manual_seed(0)
    return sf.models.FlowMatching(Restless(), sf.paths.LinearPath().base((2,)))


@pytest.mark.parametrize("criterion", ["log_prob", "loss"])
def test_the_rows_that_are_tried_first_change_nothing(criterion, monkeypatch):
    """To the last bit, in losses, looks, weights and buffers."""

    def run():
        made = restless()
        np.random.seed(7)
        generator = torch.Generator().manual_seed(5)
        held_out = DataLoader(TensorDataset(HELD_OUT), batch_size=16, shuffle=True, generator=generator)
        solver = {"steps": 3, "method": "heun"} if criterion == "log_prob" else None
        result = fit(made, held_out=held_out, evaluate_every=5, criterion=criterion, ema=0.0, solver=solver)
        return result, made.state_dict()

    tried, state = run()
    monkeypatch.setattr(Training, "try_look", lambda self: None)
    untried, same = run()
    assert torch.equal(tried.losses, untried.losses) and tried.held_out == untried.held_out
    assert all(torch.equal(value, same[name]) for name, value in state.items())
    assert state["net.norm.num_batches_tracked"] == 12


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="from torch 2.6 on")
def test_the_rows_that_are_tried_first_compile_nothing():
    """Code for two rows makes torch.compile look for code for all sizes, which may round otherwise."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(inputs[1].shape)
        return graph.forward

    made = model()
    made.net = torch.compile(made.net, backend=backend)
    with pytest.raises(sf.ArgumentError, match=r"of shape \(B, 2\)"):
        fit(made, DATA[:, :1], held_out=HELD_OUT, criterion="loss")
    assert not compiled
    fit(made, steps=1)
    assert compiled


def test_a_look_leaves_parts_in_the_mode_in_which_they_were():
    """A normalisation that the user froze stays frozen after the first look."""
    looked, plain = restless(), restless()
    fit(plain, steps=6, ema=0.0)
    fit(looked, steps=6, ema=0.0, held_out=HELD_OUT, evaluate_every=2, criterion="loss")
    for made in (looked, plain):
        assert int(made.net.frozen.num_batches_tracked) == 0 and int(made.net.norm.num_batches_tracked) == 6


# --- early stopping of runs in parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("short", [3, 7, 11])
@pytest.mark.parametrize("rate", [0.05, 1e-3])
def test_a_run_that_goes_on_stops_where_one_of_all_its_steps_does(short, rate, tmp_path):
    """The look at the end of the short run, the best one so far at the lower rate, is none of the long one."""
    options = {"held_out": HELD_OUT, "evaluate_every": 5, "patience": 2, "criterion": "loss"}
    options |= {"ema": 0.0, "learning_rate": rate}
    whole, first, second = model(), model(), model(seed=4)
    expected = fit(whole, steps=30, **options)
    ended = fit(first, steps=short, folder=tmp_path, **options)
    assert ended.held_out[-1]["step"] == short
    again = fit(model(seed=5), steps=short, folder=tmp_path, resume=True, **options)
    assert again.held_out == ended.held_out and torch.equal(weights(again.model), weights(first))
    run = fit(second, steps=30, folder=tmp_path, resume=True, **options)
    assert run.held_out == expected.held_out and run.status == expected.status
    assert torch.equal(run.losses, expected.losses) and torch.equal(weights(second), weights(whole))


def test_the_best_weights_are_those_of_a_look_that_the_run_has(tmp_path, monkeypatch):
    """The end of the short run is the best of all, so what was best before it has to come back."""
    values = {5: 1.0, 7: 9.0, 10: 0.5, 15: 0.2}
    real = Training.look

    def look(self):
        if self.held_out is not None:
            self.held_out.evaluate = lambda *arguments: (values[self.step], 0.0)
        return real(self)

    monkeypatch.setattr(Training, "look", look)

    def run(made, steps, **options):
        return fit(made, steps=steps, held_out=HELD_OUT, evaluate_every=5, patience=2, ema=0.0, **options)

    whole, parts = model(), model()
    expected = run(whole, 40)
    run(model(), 7, folder=tmp_path)
    run(model(), 7, folder=tmp_path, resume=True)
    result = run(parts, 40, folder=tmp_path, resume=True)
    assert [look["step"] for look in result.held_out] == [look["step"] for look in expected.held_out] == [5, 10, 15]
    five = model()
    fit(five, steps=5, ema=0.0)
    for made in (whole, parts, sf.load(tmp_path, model(seed=8))):
        assert torch.equal(weights(made), weights(five))
