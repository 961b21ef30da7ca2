"""The digits: what they are, how they are split, and the sentence where scikit-learn is missing."""

import sys

import pytest
import torch

from sdeflow.data import digits
from sdeflow.errors import ArgumentError, SdeflowError
from sdeflow.extras import MissingExtraError, require


def test_digits_are_the_1797_images_on_17_levels_between_minus_one_and_one():
    data = digits()
    assert data.images.shape == (1797, 8, 8) and data.labels.shape == (1797,)
    assert len(data) == 1797 and data.labels.unique().tolist() == list(range(10))
    assert torch.equal(data.images.unique(), torch.linspace(-1.0, 1.0, 17))
    assert data.bin_width == 0.125 and data.data_range == (-1.0625, 1.0625)
    # A known image: the first of the set is a zero, with paper in its middle and ink at its top.
    assert data.labels[0] == 0 and data.images[0, 3, 3] == -1 and data.images[0, 0, 3] == 13 / 8 - 1


def test_digits_come_in_the_dtype_that_was_asked_for():
    assert digits().images.dtype == torch.get_default_dtype()
    assert digits(dtype=torch.float64).images.dtype == torch.float64


def test_a_split_is_a_partition_and_a_function_of_the_seed():
    data = digits()
    rest, held_out = data.split(297, seed=3)
    assert (len(rest), len(held_out)) == (1500, 297)
    together = torch.cat([rest.images, held_out.images]).flatten(1)
    assert torch.equal(together.sum(0), data.images.flatten(1).sum(0))  # sums of multiples of 1/8 are exact
    assert torch.equal(
        torch.cat([rest.labels, held_out.labels]).bincount(minlength=10), data.labels.bincount(minlength=10)
    )
    again, other = data.split(297, seed=3)[1], data.split(297, seed=4)[1]
    assert torch.equal(again.images, held_out.images) and not torch.equal(other.images, held_out.images)


def test_a_split_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    digits().split(10, seed=0)[1].dequantised(seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("held_out", [0, -1, 1797])
def test_a_split_that_leaves_nothing_is_refused(held_out):
    with pytest.raises(ArgumentError, match="1797 images"):
        digits().split(held_out, seed=0)


def test_dequantising_moves_every_pixel_uniformly_within_its_bin():
    data = digits(dtype=torch.float64)
    shift = (data.dequantised(seed=0).images - data.images) / data.bin_width
    assert shift.abs().max() <= 0.5
    # The standard error of the mean of 115,008 uniform numbers is 8.5e-4, of their mean square 2.2e-4: six of each.
    assert abs(shift.mean()) < 6 * 8.5e-4 and abs(shift.square().mean() - 1 / 12) < 6 * 2.2e-4


def test_without_scikit_learn_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r'needs sklearn, .*pip install "sdeflow\[demo\]"') as caught:
        digits()
    assert isinstance(caught.value, (SdeflowError, ImportError)) and caught.value.__suppress_context__


def test_an_error_inside_an_installed_package_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there") as caught:
        require("broken_package", extra="demo", purpose="this test")
    assert not isinstance(caught.value, MissingExtraError)
