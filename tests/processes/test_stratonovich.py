"""A process keeps its law when it is written in the other calculus."""

import pytest
import torch

import sdeflow as sf


@pytest.mark.parametrize(
    "process",
    [
        sf.processes.GeometricBrownianMotion(0.3, 0.6),
        sf.processes.OrnsteinUhlenbeck(),
        sf.processes.VariancePreserving(),
    ],
    ids=lambda process: type(process).__name__,
)
def test_the_law_is_that_of_the_process(process):
    x0 = torch.full((3, 2), 1.2)
    converted = process.to_stratonovich()
    law, expected = converted.marginal(x0, 0.7, 0.1), process.marginal(x0, 0.7, 0.1)
    assert torch.equal(law.mean, expected.mean) and torch.equal(law.variance, expected.variance)
    if not isinstance(process, sf.processes.GeometricBrownianMotion):
        assert torch.equal(converted.prior((2,)).variance, process.prior((2,)).variance)


def test_a_law_that_does_not_exist_is_refused_in_the_words_of_the_process():
    sde = sf.SDE(lambda t, x: -x, lambda t, x: x)
    with pytest.raises(sf.ArgumentError, match=r"^SDE has no transition law"):
        sde.to_stratonovich().marginal(torch.ones(1, 1), 0.5)
    with pytest.raises(sf.ArgumentError, match=r"^SDE has no prior"):
        sde.to_stratonovich().prior((1,))
