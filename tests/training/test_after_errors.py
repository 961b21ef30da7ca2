"""Errors in the middle of a run: what was computed is kept, and the error says where."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import sdeflow as sf

DATA = sf.data.moons(300, seed=0)


class Normalised(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)

    def forward(self, t, x):
        return self.last(self.norm(self.first(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], 1))))


class Failing(sf.models.FlowMatching):
    """Its loss raises in its seventh call, after the running statistics have seen the batch."""

    calls, at = 0, 7

    def losses(self, x, x0, draws, **condition):
        value = super().losses(x, x0, draws, **condition)
        self.calls += 1
        if self.calls == self.at:
            raise RuntimeError("a device went away")
        return value


def model(kind=sf.models.FlowMatching, seed=0):
    torch.manual_seed(seed)
    return kind(Normalised(), sf.paths.LinearPath().base((2,)))


def fit(made, data=DATA, steps=12, **options):
    return sf.fit(made, data, steps, **{"seed": 3, "batch_size": 64, "progress": False, **options})


def same(one, other):
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def said(caught, capsys):
    """The note of an error, which Python 3.10 has on stderr."""
    return " ".join([*getattr(caught.value, "__notes__", []), capsys.readouterr().err])


class Breaking(Dataset):
    """Rows of which one cannot be read, the first time."""

    broken = True

    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        if index == 150 and self.broken:
            raise OSError("the disk was away")
        return DATA[index]


@pytest.mark.parametrize("what", ["the loss", "the data"])
def test_a_run_goes_on_after_an_error_as_if_there_was_none(what, tmp_path, capsys):
    kind = Failing if what == "the loss" else sf.models.FlowMatching
    source = Breaking()
    data = DATA if what == "the loss" else DataLoader(source, batch_size=20)
    whole, resumed = model(), model(seed=4)
    source.broken = False
    expected = fit(whole, data)
    source.broken = True
    with pytest.raises(RuntimeError if what == "the loss" else OSError, match="away") as caught:
        fit(model(kind), data, folder=tmp_path)
    step = 6 if what == "the loss" else 7
    note = said(caught, capsys)
    assert f"stopped at step {step} of 12. All of it is in {tmp_path}: the same call with resume=True" in note
    source.broken = False
    run = fit(resumed, data, folder=tmp_path, resume=True)
    assert torch.equal(run.losses, expected.losses) and same(resumed, whole)


def test_an_error_in_a_look_keeps_the_steps_before_it(tmp_path, monkeypatch, capsys):
    from sdeflow.training.held_out import HeldOut

    options = {"held_out": DATA[:20], "evaluate_every": 5, "criterion": "loss"}
    whole = model()
    expected = fit(whole, **options)
    real = HeldOut.evaluate

    def evaluate(self, model, device, rows=None):
        if rows is None:
            raise MemoryError("too many rows")
        return real(self, model, device, rows)

    with monkeypatch.context() as patch, pytest.raises(MemoryError) as caught:
        patch.setattr(HeldOut, "evaluate", evaluate)
        fit(model(), folder=tmp_path, **options)
    assert "stopped at step 5 of 12" in said(caught, capsys)
    resumed = model(seed=4)
    run = fit(resumed, folder=tmp_path, resume=True, **options)
    assert torch.equal(run.losses, expected.losses) and run.held_out == expected.held_out and same(resumed, whole)


def test_without_a_folder_the_model_has_the_average_of_the_steps_that_were_taken(capsys):
    made, six = model(Failing), model()
    with pytest.raises(RuntimeError) as caught:
        fit(made)
    assert "at step 6 of 12. The model has the weights it came to" in said(caught, capsys)
    fit(six, steps=6)
    assert same(made, six)


def test_an_error_in_the_first_step_leaves_a_folder_for_the_next_try(tmp_path, capsys):
    made = model(Failing)
    made.at = 1
    with pytest.raises(RuntimeError) as caught:
        fit(made, folder=tmp_path)
    assert said(caught, capsys) == "" and not list(tmp_path.iterdir())


def test_a_step_that_was_half_taken_is_not_written(tmp_path):
    class Halting(torch.optim.SGD):
        def step(self, closure=None):
            super().step()
            if sum(1 for _ in calls) >= 3:
                raise MemoryError
            calls.append(0)

    calls = []
    with pytest.raises(MemoryError):
        fit(model(), folder=tmp_path, optimiser=Halting, save_every=2)
    assert sf.training.checkpoint.read(tmp_path).record["step"] == 2


def test_an_error_stays_itself_where_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    from sdeflow.training import checkpoint

    def full(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(checkpoint, "put_in_place", full)
    with pytest.raises(RuntimeError, match="went away") as caught:
        fit(model(Failing), folder=tmp_path)
    note = said(caught, capsys)
    assert "could not be written" in note and "resume" not in note


@pytest.mark.parametrize("coupling", ["independent", "optimal-transport", "entropic"])
def test_data_that_are_not_numbers_are_said_to_be_so_with_any_coupling(coupling):
    data = DATA.clone()
    data[:] = float("nan")
    made = sf.models.FlowMatching(Normalised(), sf.paths.LinearPath().base((2,)), coupling=coupling)
    with pytest.raises(sf.TrainingError, match="not finite in step 1"):
        fit(made, data)
