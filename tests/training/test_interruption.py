"""Real signals to a real process: whenever they come, nothing is lost."""

import json
import os
import signal
import time

import pytest
import torch
from training_process import STEPS, Process, train

import sdeflow as sf

FILE = "checkpoint.safetensors"


def losses(folder):
    return sf.training.checkpoint.read(folder).tensors["losses"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The losses of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return losses(folder)


@pytest.mark.parametrize(
    ("number", "word", "slow", "code", "steps"),
    [
        pytest.param(signal.SIGTERM, 10, (0.2, 0.0), 143, [11], id="terminated between two checkpoints"),
        pytest.param(signal.SIGTERM, FILE, (0.0, 0.5), 143, [8], id="terminated while one is written"),
        pytest.param(signal.SIGINT, 10, (0.2, 0.0), 1, [11], id="ctrl-c"),
        pytest.param(signal.SIGKILL, FILE, (0.0, 0.5), -signal.SIGKILL, [], id="killed while the first is written"),
        pytest.param(signal.SIGKILL, 20, (0.05, 0.0), -signal.SIGKILL, [16], id="killed between two"),
    ],
)
def test_a_run_that_was_ended_goes_on_as_if_it_was_not(number, word, slow, code, steps, whole, tmp_path):
    folder = tmp_path / "run"
    process = Process(folder, *slow)
    process.wait_for(word)
    os.kill(process.pid, number)
    ended, errors = process.end()
    assert ended == code, errors
    if number != signal.SIGKILL:
        assert f"of {STEPS}. All of it is in {folder}: the same call with resume=True" in errors
        assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    if steps:
        kept = losses(folder)
        assert len(kept) in steps and torch.equal(kept, whole[: len(kept)])
    else:
        assert not (folder / FILE).exists()
    train(folder)
    assert torch.equal(losses(folder), whole)


def test_the_checkpoint_before_stays_until_the_next_is_complete(whole, tmp_path):
    folder = tmp_path / "run"
    process = Process(folder, slow_write=0.3)
    process.wait_for(16)
    process.wait_for(FILE)
    assert (folder / (FILE + ".partial")).exists()  # being written
    os.kill(process.pid, signal.SIGKILL)
    assert process.end()[0] == -signal.SIGKILL
    assert torch.equal(losses(folder), whole[:16])


def test_a_second_signal_is_obeyed_at_once(tmp_path):
    process = Process(tmp_path / "run", slow_step=30.0)
    process.wait_for(0)
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.3)
    assert process.process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    code, _ = process.end()
    assert code == -signal.SIGTERM and time.monotonic() - begun < 20
