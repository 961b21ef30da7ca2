"""Whether all values are finite, which a sum says but for where it overflows."""

import pytest
import torch

from sdeflow.calculus import all_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_one_value_that_is_not_finite_is_found(dtype, bad):
    x = torch.ones(3, 4, 5, dtype=dtype)
    assert all_finite(x)
    x[1, 2, 3] = bad
    assert not all_finite(x)
    x[0, 0, 0] = -bad  # ∞ − ∞ is no number either
    assert not all_finite(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sum_that_overflows_says_nothing(dtype):
    assert all_finite(torch.full((4, 4), torch.finfo(dtype).max, dtype=dtype))
