"""The names that every docstring's example may use."""

import pytest
import torch

import sdeflow as sf


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict) -> None:
    doctest_namespace["sf"] = sf
    doctest_namespace["torch"] = torch
