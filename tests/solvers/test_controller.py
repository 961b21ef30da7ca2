"""The step-size controller by itself."""

import pytest
import torch

from sdeflow.solvers.controller import next_factor


@pytest.mark.parametrize("order", [3, 5, 8])
def test_a_factor_does_not_depend_on_the_size_of_the_batch(order):
    """Bitwise, for every slice of a batch: torch's powers differ in the last digit between slices of one tensor."""
    generator = torch.Generator().manual_seed(0)
    error = torch.rand(64, generator=generator, dtype=torch.float64) * 3 + 1e-3
    accepted, previous = error <= 1, error.flip(0)
    whole = next_factor(error, previous, accepted, order)
    for size in range(1, 20):
        for start in range(40):
            part = slice(start, start + size)
            assert torch.equal(next_factor(error[part], previous[part], accepted[part], order), whole[part])


def test_the_factor_grows_shrinks_and_is_bounded():
    error = torch.tensor([1e-12, 0.5, 1.0, 2.0, 1e6, float("nan")], dtype=torch.float64)
    factor = next_factor(error, torch.ones_like(error), error <= 1, 5)
    assert factor[0] == 10.0 and factor[1] > factor[2] > 0.8 and factor[2] <= 1.0
    assert factor[3] < 1.0 and factor[4] == pytest.approx(0.2) and factor[5] == pytest.approx(0.2)
