"""The drift-implicit method: stiffness, Newton's method, and what it says where it fails."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf

D = torch.float64
METHOD = "implicit-euler-maruyama"


def linear(A, **options):
    return sf.SDE(lambda t, x: x @ A.to(x).mT, lambda t, x: 0.1 + 0 * x[:, :1], noise="diagonal", **options)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 5))
def test_a_linear_drift_takes_one_linear_solve(seed, size):
    """x₁ = (I − hA)⁻¹(x + σW), by Newton's method and by the process's own resolvent."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(size, size, generator=generator, dtype=D) - 2 * torch.eye(size, dtype=D)
    b, x0 = torch.randn(2, 3, size, generator=generator, dtype=D)
    eye, h = torch.eye(size, dtype=D), 0.1

    class Linear(sf.SDE):
        def drift(self, t, x):
            return x @ A.mT + b

        def diffusion(self, t, x):
            return 0.3 + 0 * x

        def drift_resolvent(self, t, h, v):
            return torch.linalg.solve(eye - h * A, v[..., None])[..., 0]

    path = sf.BrownianPath((3, size), 0.0, h, seed=1, dtype=D)
    wanted = torch.linalg.solve(eye - h * A, (x0 + 0.3 * path(0.0, h) + h * b)[..., None])[..., 0]
    plain = sf.SDE(lambda t, x: x @ A.mT + b, lambda t, x: 0.3 + 0 * x)
    for process, evaluations in ((Linear(), 1), (plain, None)):
        sol = sf.solve(process, x0, (0.0, h), steps=1, method=METHOD, brownian=path)
        assert torch.allclose(sol.final, wanted, atol=1e-10)
        assert evaluations is None or sol.stats["nfe_drift"] == evaluations


def test_ornstein_uhlenbeck_gives_its_resolvent():
    """With θ a number or one for each coordinate; and a subclass with another drift does not inherit it."""
    for theta in (2.0, torch.tensor([1.0, 30.0], dtype=D)):
        ou = sf.processes.OrnsteinUhlenbeck(theta, 0.5, 0.3)
        plain = sf.SDE(ou.drift, ou.diffusion, additive=True)
        x0 = torch.ones(4, 2, dtype=D)
        a, b = (sf.solve(process, x0, steps=10, method=METHOD, seed=0) for process in (ou, plain))
        assert torch.allclose(a.final, b.final, atol=1e-10)
        assert a.stats["nfe_drift"] == 10 < b.stats["nfe_drift"]

    class Cubic(sf.processes.OrnsteinUhlenbeck):
        def drift(self, t, x):
            return -(x**3)

    plain = sf.SDE(lambda t, x: -(x**3), lambda t, x: 1.0, additive=True)
    x0 = torch.ones(4, 2, dtype=D)
    a, b = (sf.solve(process, x0, steps=10, method=METHOD, seed=0).final for process in (Cubic(), plain))
    assert torch.equal(a, b)


def test_a_stiff_drift_is_stable_where_the_explicit_method_is_not():
    """−1000 (x − cos t) with steps of 1/20: explicit Euler multiplies errors by 49, the implicit one divides them by 51."""
    process = sf.SDE(lambda t, x: -1000 * (x - torch.cos(t)), lambda t, x: 0.01 * x)
    x0 = torch.ones(50, 2, dtype=D)
    implicit = sf.solve(process, x0, steps=20, method=METHOD, seed=0)
    assert implicit.success.all() and (implicit.final - math.cos(1.0)).abs().max() < 0.01
    explicit = sf.solve(process, x0, steps=20, method="euler-maruyama", seed=0, on_failure="return").final
    assert explicit.abs().max() > 1e6


def test_any_event_shape():
    process = sf.SDE(lambda t, x: -(x**3) + x.mean((1, 2), keepdim=True), lambda t, x: 0.2 * x)
    x0 = torch.linspace(-1, 1, 24, dtype=D).reshape(4, 2, 3)
    sol = sf.solve(process, x0, steps=5, method=METHOD, seed=0)
    flat = sf.SDE(lambda t, x: -(x**3) + x.mean(1, keepdim=True), lambda t, x: 0.2 * x)
    same = sf.solve(flat, x0.flatten(1), steps=5, method=METHOD, seed=0)
    assert torch.allclose(sol.final.flatten(1), same.final, atol=1e-14)
    single = sf.solve(process, x0.float(), steps=5, method=METHOD, seed=0)
    assert torch.allclose(single.final.double(), sol.final, atol=1e-5)


def test_gradients_by_the_implicit_function_theorem():
    def final(x0, theta):
        process = sf.SDE(lambda t, x: -theta * x**3 - torch.sin(x.flip(1)), lambda t, x: 0.3 * theta * x)
        path = sf.BrownianPath((3, 2), 0.0, 1.0, seed=1, cells=4, dtype=D)
        return sf.solve(process, x0, steps=4, method=METHOD, brownian=path).final

    x0 = torch.linspace(0.5, 1.0, 6, dtype=D).reshape(3, 2).requires_grad_()
    theta = torch.tensor(1.3, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(final, (x0, theta), fast_mode=True)
    with torch.no_grad():
        assert not final(x0, theta).requires_grad


def test_a_sample_does_not_depend_on_its_batch_mates():
    process = sf.SDE(lambda t, x: -5 * x**5, lambda t, x: 0.1 * x)
    x0 = torch.tensor([[0.1], [3.0], [50.0]], dtype=D)
    whole = sf.solve(process, x0, steps=4, method=METHOD, seed=0).final
    for row in range(3):
        path = sf.BrownianPath((1, 1), 0.0, 1.0, seed=0, cells=4, first_row=row, dtype=D)
        alone = sf.solve(process, x0[row : row + 1], steps=4, method=METHOD, brownian=path).final
        assert torch.equal(alone, whole[row : row + 1])


def test_an_equation_without_a_solution_ends_its_sample_with_a_sentence():
    """z = x + h z² has no real solution where 4 h x > 1: for one of the three samples, from its first step on."""
    process = sf.SDE(lambda t, x: x**2, lambda t, x: 0 * x, interval=(0.0, 0.2))
    x0 = torch.tensor([[0.1], [20.0], [-1.0]], dtype=D)
    with pytest.raises(sf.SolveError, match=r"no solution of its equation.*t = 0, for 1 of 3 samples") as failure:
        sf.solve(process, x0, [0.0, 0.1, 0.2], dt=0.05, method=METHOD, seed=0)
    partial = failure.value.solution
    assert partial.status.tolist() == [sf.Status.SUCCESS, sf.Status.NOT_CONVERGED, sf.Status.SUCCESS]
    assert partial.x[:, [0, 2]].isfinite().all() and partial.x[1:, 1].isnan().all()
    exact = x0[[0, 2]] / (1 - 0.2 * x0[[0, 2]])
    assert torch.allclose(partial.final[[0, 2]], exact, atol=0.03)
