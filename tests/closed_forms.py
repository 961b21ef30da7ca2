"""What several tests of models need: a mixture, normal bases, small networks."""

import torch

import sdeflow as sf

LAW = sf.laws.GaussianMixture(
    [0.4, 0.6], torch.tensor([[-1.2, 0.4], [1.0, -0.3]], dtype=torch.float64), torch.tensor([0.15, 0.3]).double()
)


def normal(dims=2, deviation=1.0, mean=0.0):
    centre = torch.full((dims,), mean, dtype=torch.float64)
    return torch.distributions.Independent(torch.distributions.Normal(centre, torch.full_like(centre, deviation)), 1)


def network(seed=0, **options):
    torch.manual_seed(seed)
    return sf.networks.MLP(2, width=16, depth=2, **options).double()


def close(value, expected, tolerance=1e-10):
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
