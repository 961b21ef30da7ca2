"""Profiles of real ground: windows, their scale, and what is refused."""

import pytest
import torch

import sdeflow as sf
from sdeflow.errors import ArgumentError


def test_windows_have_mean_0_and_together_deviation_1():
    x = sf.data.terrain(64, stride=32, dtype=torch.float64)
    assert x.shape == (344 * 11, 1, 64) and x.dtype is torch.float64
    assert x.mean(2).abs().max() < 1e-12
    assert x.std() == pytest.approx(1.0)


def test_windows_are_parts_of_lines():
    """Half a window on, the same ground is seen: equal but for the mean of the window."""
    x = sf.data.terrain(64, stride=32, dtype=torch.float64).reshape(344, 11, 64)
    first, second = x[:, 0, 32:], x[:, 1, :32]
    shift = first - second
    assert (shift - shift[:, :1]).abs().max() < 1e-12


def test_ground_is_smooth():
    """Neighbouring points are alike, far ones are not: it is a function and not noise."""
    x = sf.data.terrain(64).flatten(1)
    near, far = ((x[:, lag:] * x[:, :-lag]).mean() / x.square().mean() for lag in (1, 40))
    assert near > 0.95 and far < 0.5


@pytest.mark.parametrize("options", [{"length": 404}, {"length": 0}, {"length": 1}, {"stride": 0}, {"length": 64.0}])
def test_refusals(options):
    with pytest.raises(ArgumentError, match="give"):
        sf.data.terrain(**options)
