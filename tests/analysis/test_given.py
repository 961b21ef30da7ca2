"""Given noise: one step of it, nothing inside, and a quadrature that is exact for polynomials."""

import math

import pytest
import torch

import sdeflow as sf
from sdeflow.analysis.given import GivenIncrement, normal_quadrature

W = torch.tensor([[0.3], [-0.2]], dtype=torch.float64)


def test_it_answers_for_its_step_only():
    path = GivenIncrement(W, W / 7, 0.0, 0.5)
    assert torch.equal(path(0.0, 0.5), W) and torch.equal(path.cell(0), W)
    assert all(torch.equal(a, b) for a, b in zip(path.levy(0.0, 0.5), (W, W / 7), strict=True))
    assert torch.equal(path.reverse()(0.0, 0.5), -W)
    path(0.0, 0.5).zero_()  # an answer is the caller's own
    assert torch.equal(path(0.0, 0.5), W)
    with pytest.raises(sf.errors.ArgumentError, match="nothing inside"):
        path(0.0, 0.25)
    with pytest.raises(sf.errors.ArgumentError, match="Lévy area"):
        path.area(0.0, 0.5)
    with pytest.raises(sf.errors.ArgumentError, match="none"):
        GivenIncrement(W, None, 0.0, 1.0).levy(0.0, 1.0)


def test_a_solve_takes_the_noise_it_is_given():
    sde = sf.SDE(lambda t, x: 0.0 * x, lambda t, x: 2.0 + 0.0 * x, additive=True)
    sol = sf.solve(
        sde, torch.ones_like(W), steps=1, method="euler-maruyama", brownian=GivenIncrement(W, None, 0.0, 1.0)
    )
    assert torch.allclose(sol.final, 1 + 2 * W)


@pytest.mark.parametrize("nodes", [2, 5, 12])
def test_quadrature_is_exact_to_its_degree(nodes):
    z, w = normal_quadrature(nodes, 2)
    for a in range(0, 2 * nodes, 2):
        for b in (0, 2):
            if b < 2 * nodes:
                exact = math.prod(range(1, a, 2)) * math.prod(range(1, b, 2))  # double factorials
                assert (w * z[:, 0] ** a * z[:, 1] ** b).sum().item() == pytest.approx(exact, rel=1e-10)
    assert w.sum().item() == pytest.approx(1)
    above = (w * z[:, 0] ** (2 * nodes)).sum().item()
    assert abs(above / math.prod(range(1, 2 * nodes, 2)) - 1) > 1e-7  # and not beyond
