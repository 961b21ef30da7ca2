"""What a diffusion does, for each shape of noise, against the matrices written out."""

import pytest
import torch

from sdeflow.calculus import NOISES, apply_covariance, apply_diffusion, covariance, noise_terms

EVENTS = {"diagonal": [(3,), (2, 2)], "scalar": [(3,), (2, 2)], "general": [(3,)]}
CASES = [(noise, event) for noise in NOISES for event in EVENTS[noise]]
every_case = pytest.mark.parametrize(("noise", "event"), CASES, ids=str)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix(noise, g, x):
    """σ row by row, ``(B, D, M)``, with loops."""
    if noise == "general":
        return g
    flat = g.expand_as(x).reshape(len(x), -1)
    if noise == "scalar":
        return flat[:, :, None]
    rows = torch.zeros(len(x), flat.shape[1], flat.shape[1], dtype=x.dtype)
    for i in range(flat.shape[1]):
        rows[:, i, i] = flat[:, i]
    return rows


def diffusions(noise, event):
    """Every form in which a diffusion may come: whole, and broadcasting."""
    if noise == "general":
        return [normal(4, *event, m, seed=m) for m in (1, 2, 5)]
    return [
        normal(4, *event),
        normal(*event),
        normal(4, *[1] * len(event)),
        normal(1, *event),
        torch.tensor(0.7).double(),
    ]


@every_case
def test_sigma_dw_and_sigma_v_and_sigma_sigma(noise, event):
    x, v = normal(4, *event, seed=1), normal(4, *event, seed=2)
    for g in diffusions(noise, event):
        sigma = matrix(noise, g, x)
        increment = normal(4, sigma.shape[2], seed=3)
        shaped = {"diagonal": (4, *event), "scalar": (4, *[1] * len(event)), "general": (4, sigma.shape[2])}[noise]
        moved = apply_diffusion(noise, g, increment.reshape(shaped))
        torch.testing.assert_close(moved.expand_as(x).flatten(1), (sigma @ increment[:, :, None])[:, :, 0])
        product = sigma @ sigma.mT
        torch.testing.assert_close(covariance(noise, g, x), product)
        pushed = apply_covariance(noise, g, v)
        assert pushed.shape == v.shape
        torch.testing.assert_close(pushed.flatten(1), (product @ v.flatten(1)[:, :, None])[:, :, 0])


def state_dependent(noise, event):
    """A curved diffusion, and the same as a matrix-valued function of one flat row."""
    size = torch.Size(event).numel()
    W = normal(size, size, seed=4)
    V = normal(size, 2, size, seed=5)

    def diffusion(x):
        flat = x.flatten(1)
        if noise == "general":
            return torch.sin(torch.einsum("dmj,bj->bdm", V, flat))
        return torch.cos(flat @ W.mT).reshape(x.shape)

    def rows(row):
        x = row.reshape(1, *event)
        return matrix(noise, diffusion(x), x)[0]

    return diffusion, rows


@every_case
def test_noise_terms_are_their_definitions(noise, event):
    """c = Σ_k (∂σ_k)σ_k, d = Σ_k σ_k(∇·σ_k), and c + d = ∇·Σ, each from a Jacobian of one row."""
    diffusion, rows = state_dependent(noise, event)
    x = normal(3, *event, seed=6)
    c, d = noise_terms(noise, diffusion, x)
    assert c.shape == d.shape == x.shape
    for b, row in enumerate(x.flatten(1)):
        sigma = rows(row)
        J = torch.autograd.functional.jacobian(rows, row)  # (D, M, D)
        expected_c = torch.einsum("ikj,jk->i", J, sigma)
        expected_d = torch.einsum("ik,jkj->i", sigma, J)
        torch.testing.assert_close(c[b].flatten(), expected_c)
        torch.testing.assert_close(d[b].flatten(), expected_d)
        K = torch.autograd.functional.jacobian(lambda r: rows(r) @ rows(r).mT, row)
        torch.testing.assert_close((c + d)[b].flatten(), torch.einsum("ijj->i", K))


@pytest.mark.parametrize("noise", NOISES)
def test_noise_terms_of_a_constant_are_zero(noise):
    x = normal(3, 2)
    g = torch.ones(3, 2, 2, dtype=x.dtype) if noise == "general" else torch.tensor(2.0, dtype=x.dtype)
    for term in noise_terms(noise, lambda y: g, x):
        assert term.shape == x.shape and not term.any()


@pytest.mark.parametrize("noise", ["diagonal", "scalar"])
def test_a_diffusion_that_broadcasts_is_as_good_as_a_whole_one(noise):
    x = normal(3, 4)
    whole = noise_terms(noise, lambda y: y.sum(1, keepdim=True).expand_as(y), x)
    torch.testing.assert_close(noise_terms(noise, lambda y: y.sum(1, keepdim=True), x), whole)
    if noise == "diagonal":
        torch.testing.assert_close(whole[0], x.sum(1, keepdim=True).expand_as(x))


@pytest.mark.parametrize("noise", NOISES)
def test_noise_terms_train_and_leave_no_graph_otherwise(noise):
    x = normal(3, 2)
    w = torch.tensor(1.5, dtype=x.dtype, requires_grad=True)

    def diffusion(y):
        return w * (y[:, :, None] * y[:, None, :] if noise == "general" else y.square())

    c, d = noise_terms(noise, diffusion, x)
    (slope,) = torch.autograd.grad((c + d).sum(), w)
    torch.testing.assert_close(slope, 2 * (c + d).sum().detach() / w.detach())  # both are quadratic in w
    with torch.no_grad():
        assert not any(term.requires_grad for term in noise_terms(noise, diffusion, x))
    w.requires_grad_(False)
    assert not any(term.requires_grad for term in noise_terms(noise, diffusion, x))
