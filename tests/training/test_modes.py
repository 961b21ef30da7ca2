"""Training mode while a model is trained, evaluation mode afterwards."""

import pytest
import torch

import sdeflow as sf

DATA = sf.data.moons(300, seed=0)


class Dropping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
        self.drop, self.modes = torch.nn.Dropout(0.3), []

    def forward(self, t, x):
        self.modes.append((self.training, self.norm.training))
        return self.last(self.drop(self.norm(self.first(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], 1)))))


def model():
    torch.manual_seed(0)
    return sf.models.FlowMatching(Dropping(), sf.paths.LinearPath().base((2,)))


def fit(made, steps=6, **options):
    return sf.fit(made, DATA, steps, **{"seed": 3, "batch_size": 64, "progress": False, **options})


def test_a_model_that_was_trained_or_loaded_is_ready_for_use(tmp_path):
    """Samples are a function of the seed, and neither they nor likelihoods move running statistics."""
    made = model()
    fit(made, folder=tmp_path)
    for ready in (made, sf.load(tmp_path, model())):
        assert not any(part.training for part in ready.modules())
        before = {name: value.clone() for name, value in ready.state_dict().items()}
        first, again = (ready.sample(4, seed=0, solver={"steps": 3}) for _ in range(2))
        assert torch.equal(first, again)
        assert ready.log_prob(DATA[:3], solver={"steps": 3, "method": "heun"}).isfinite().all()
        assert all(torch.equal(value, before[name]) for name, value in ready.state_dict().items())


def test_a_model_in_evaluation_mode_is_trained_in_training_mode():
    """So a second run, or one that goes on with the same model, has dropout as the first."""
    one, other = model(), model().eval()
    assert torch.equal(fit(one).losses, fit(other).losses)
    assert one.net.modes == other.net.modes == 6 * [(True, True)]


def test_frozen_parts_of_a_model_in_training_mode_stay_frozen():
    made = model()
    made.net.norm.eval()
    fit(made)
    assert made.net.modes == 6 * [(True, False)] and int(made.net.norm.num_batches_tracked) == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_it_is_in_evaluation_mode_however_training_ends(error, monkeypatch):
    made = model()
    monkeypatch.setattr(made.net, "forward", lambda t, x: (_ for _ in ()).throw(error))
    with pytest.raises(error):
        fit(made)
    assert not made.training
