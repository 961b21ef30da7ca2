"""Labels that are left out in training: as often as said, again in a run that is taken up, never in what is held out."""

import pytest
import torch

import sdeflow as sf
from sdeflow.errors import ArgumentError


class Watching(sf.networks.MLP):
    """A network that keeps the labels it was given."""

    def __init__(self):
        super().__init__(2, width=8, depth=1, classes=3)
        self.seen = {True: [], False: []}

    def forward(self, t, x, *, label=None, context=None):
        self.seen[self.training].append(label.clone())
        return super().forward(t, x, label=label)


X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
LABEL = torch.arange(300) % 3


def trained(steps=60, drop=0.3, **options):
    torch.manual_seed(0)
    model = sf.models.FlowMatching(Watching(), sf.paths.LinearPath().base((2,)))
    run = sf.fit(
        model, (X, LABEL), steps, names=("x", "label"), batch_size=100, seed=0, drop_labels=drop, progress=False,
        criterion="loss", **options,
    )  # fmt: skip
    return model.net.seen, run


def test_as_many_labels_as_said_are_none():
    """30 % of 6000, within 6 standard errors; the others are left alone."""
    seen, _ = trained(held_out=(X[:50], LABEL[:50]), evaluate_every=30)
    labels = torch.cat(seen[True])
    part = float((labels == -1).double().mean())
    assert abs(part - 0.3) < 6 * (0.3 * 0.7 / 6000) ** 0.5
    assert set(labels.unique().tolist()) == {-1, 0, 1, 2}
    held_out = torch.cat(seen[False])
    assert len(held_out) >= 100 and (held_out >= 0).all()
    plain, _ = trained(drop=None)
    assert (torch.cat(plain[True]) >= 0).all()


def test_a_run_in_two_parts_leaves_out_the_same(tmp_path):
    whole, run = trained(40)
    first, _ = trained(25, folder=tmp_path)
    second, resumed = trained(40, folder=tmp_path, resume=True)
    assert torch.equal(torch.cat(whole[True]), torch.cat(first[True] + second[True]))
    assert torch.equal(run.losses, resumed.losses)
    with pytest.raises(ArgumentError, match=r"drop_labels=0\.3, and now drop_labels=0\.2"):
        trained(50, 0.2, folder=tmp_path, resume=True)


@pytest.mark.parametrize("part", [0.0, 1.0, -0.1, float("nan")])
def test_a_part_is_between_0_and_1(part):
    with pytest.raises(ArgumentError, match="drop_labels"):
        trained(1, part)


def test_there_are_labels_to_drop():
    model = sf.models.FlowMatching(sf.networks.MLP(2), sf.paths.LinearPath().base((2,)))
    with pytest.raises(ArgumentError, match="needs labels"):
        sf.fit(model, X, 1, drop_labels=0.1, progress=False)


def test_another_recipe_is_not_taken_up(tmp_path):
    recipe = {"kind": "score", "event": [2], "network": {"name": "mlp", "width": 8, "depth": 1}}
    options = {"seed": 0, "progress": False, "folder": tmp_path}
    sf.fit(sf.training.build(recipe, seed=0), X, 2, recipe=recipe, **options)
    other = {**recipe, "process": "ve"}
    with pytest.raises(ArgumentError, match="with process=None, and now process='ve'"):
        sf.fit(sf.training.build(other, seed=0), X, 4, recipe=other, resume=True, **options)
