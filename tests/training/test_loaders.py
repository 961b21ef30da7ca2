"""Loaders: batches that are dictionaries, and generators that are the user's."""

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

import sdeflow as sf

DATA = sf.data.moons(120, seed=0)
LABELS = torch.arange(120) % 3


class Dictionaries(Dataset):
    def __init__(self, *keys):
        self.keys = keys

    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        row = {"x": DATA[index], "label": LABELS[index], "index": index}
        return {key: row[key] for key in self.keys}


class Stream(IterableDataset):
    def __iter__(self):
        yield from map(Dictionaries("x", "label").__getitem__, range(120))


class Seeing(sf.networks.MLP):
    """What labels come to it."""

    def __init__(self):
        super().__init__(2, width=8, depth=1, classes=3)
        self.seen = []

    def forward(self, t, x, *, label=None):
        self.seen.append(label)
        return super().forward(t, x, label=label)


def model():
    torch.manual_seed(0)
    return sf.models.FlowMatching(Seeing(), sf.paths.LinearPath().base((2,)))


def fit(made, data, **options):
    return sf.fit(made, data, 3, **{"seed": 3, "batch_size": 40, "progress": False, **options})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dictionaries("x", "label"),
        lambda: DataLoader(Dictionaries("x", "label"), batch_size=40),
        Stream,
    ],
    ids=["data set", "loader", "stream"],
)
def test_a_part_of_a_dictionary_is_not_left_out_in_silence(make):
    with pytest.raises(sf.ArgumentError, match=r"have 'x', 'label', and names= does not say.*names=\('x', 'label'\)"):
        fit(model(), make())
    labelled, plain = model(), model()
    fit(labelled, make(), names=("x", "label"))
    assert all(label is not None and len(label) == 40 for label in labelled.net.seen)
    fit(plain, make(), names=("x",))  # on purpose
    assert plain.net.seen == 3 * [None]


def test_a_dictionary_of_x_alone_needs_no_names():
    made, same = model(), model()
    assert torch.equal(fit(made, Dictionaries("x")).losses, fit(same, Dictionaries("x", "index"), names=("x",)).losses)
    assert made.net.seen == 3 * [None]


def test_a_dictionary_without_x_is_refused():
    with pytest.raises(sf.ArgumentError, match="have no 'x'; there are: 'label', 'index'"):
        fit(model(), Dictionaries("label", "index"))


def generators():
    rows = TensorDataset(DATA)
    return {
        "of the loader": lambda g: DataLoader(rows, batch_size=40, shuffle=True, generator=g),
        "of the sampler": lambda g: DataLoader(rows, batch_size=40, sampler=RandomSampler(rows, generator=g)),
        "of the batches' sampler": lambda g: DataLoader(
            rows, batch_sampler=BatchSampler(RandomSampler(rows, generator=g), 40, False)
        ),
        "of rows without batches": lambda g: DataLoader(
            TensorDataset(DATA.reshape(3, 40, 2)), batch_size=None, shuffle=True, generator=g
        ),
    }


@pytest.mark.parametrize("name", generators())
def test_the_generators_of_a_loader_are_the_users(name, tmp_path):
    """A run neither depends on their state nor changes it, whether it ends well or not."""
    runs = []
    for seed in (5, 6):
        generator = torch.Generator().manual_seed(seed)
        torch.rand(3, generator=generator)
        before = generator.get_state()
        loader = generators()[name](generator)
        runs.append(fit(model(), loader, held_out=loader, evaluate_every=1, criterion="loss"))
        assert torch.equal(generator.get_state(), before)
        with pytest.raises(sf.ArgumentError):
            fit(model(), loader, names=("x", "label"))
        assert torch.equal(generator.get_state(), before)
    assert torch.equal(runs[0].losses, runs[1].losses) and runs[0].held_out == runs[1].held_out
