"""The native methods: orders, evaluations, and what one seed means.

Strong orders: the root-mean-square error on one Brownian path over step sizes 2⁻⁴ … 2⁻⁸, against the exact solution of that
path; the slope's standard error, by the bootstrap over paths, is below .02, so the bounds are more than 6 of them wide.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf

FIXED = settings(derandomize=True, deadline=None, max_examples=25)
LEVELS = range(4, 9)
PATHS = 4000


def slope(errors, steps):
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


ODE_METHODS = [("euler", 1), ("heun", 2), ("midpoint", 2), ("rk4", 4)]


# --- ODEs ------------------------------------------------------------------------------------------------------------


@FIXED
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 4))
@pytest.mark.parametrize(("method", "order"), ODE_METHODS)
def test_ode_order_on_random_linear_systems_with_time(method, order, seed, dim):
    """dx/dt = A x + b cos t: the solution is that of a linear system with two more unknowns, by the matrix exponential."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    b = torch.randn(dim, generator=generator, dtype=torch.float64)
    x0 = torch.randn(1, dim, generator=generator, dtype=torch.float64)
    big = torch.zeros(dim + 2, dim + 2, dtype=torch.float64)  # (x, cos t, sin t)
    big[:dim, :dim], big[:dim, dim] = A, b
    big[dim, dim + 1], big[dim + 1, dim] = -1.0, 1.0
    exact = torch.linalg.matrix_exp(big) @ torch.cat([x0[0], torch.tensor([1.0, 0.0], dtype=torch.float64)])
    ode = sf.ODE(lambda t, x: x @ A.T + b * torch.cos(t))
    steps = [2**k for k in (5, 6, 7)]
    errors = [(sf.solve(ode, x0, steps=n, method=method).final[0] - exact[:dim]).norm().item() for n in steps]
    assert -slope(errors, steps) >= order - 0.25


@pytest.mark.parametrize(("method", "order"), ODE_METHODS)
def test_ode_order_is_sharp(method, order):
    """x' = t x²... with no lucky cancellation: x = 1/(1 + .5 − t²/2 …) on a pinned problem."""
    ode = sf.ODE(lambda t, x: -t * x**2 - torch.sin(3 * t) * x)
    x0 = torch.ones(1, 1, dtype=torch.float64)
    reference = sf.solve(ode, x0, steps=4096, method="rk4").final
    steps = [2**k for k in (4, 5, 6)]
    errors = [(sf.solve(ode, x0, steps=n, method=method).final - reference).abs().item() for n in steps]
    assert abs(-slope(errors, steps) - order) < 0.5


def test_decreasing_solves_retrace_increasing_ones():
    ode = sf.ODE(lambda t, x: torch.cos(t) * x - x**3, interval=(0.5, 2.0))
    x0 = torch.rand(3, 2, 2, dtype=torch.float64)
    there = sf.solve(ode, x0, steps=400, method="rk4")
    back = sf.solve(ode, there.final, (2.0, 0.5), steps=400, method="rk4")
    assert back.t.tolist() == [2.0, 0.5]
    assert torch.allclose(back.final, x0, atol=1e-9)


# --- SDEs ------------------------------------------------------------------------------------------------------------


def strong_errors(process, x0, exact, method, columns=1):
    """RMS errors at t = 1 for each step size, on one path per sample."""
    shape = x0.shape if process.noise == "diagonal" else (len(x0), columns)
    path = sf.BrownianPath(shape, 0.0, 1.0, seed=1, cells=2 ** max(LEVELS), dtype=torch.float64)
    truth = exact(path(0.0, 1.0))
    return [
        (sf.solve(process, x0, steps=2**k, method=method, brownian=path).final - truth).square().mean().sqrt().item()
        for k in LEVELS
    ]


def start(dim=1):
    return torch.full((PATHS, dim), 0.8, dtype=torch.float64)


def geometric(x0):
    return lambda W: x0 * torch.exp((0.4 - 0.5 * 0.7**2) + 0.7 * W)


def additive_linear():
    """β/√(1+t) − x/(2(1+t)), αβ/√(1+t): the solution is (x₀ + β(t + αW))/√(1+t)."""
    beta, alpha = 0.5, 0.8
    process = sf.SDE(
        lambda t, x: beta / (1 + t).sqrt() - x / (2 * (1 + t)),
        lambda t, x: alpha * beta / (1 + t).sqrt(),
        additive=True,
    )
    return process, lambda W: (start() + beta * (1 + alpha * W)) / 2**0.5


def commuting(seed=3):
    """dX = A X dt + Σ B_k X dW_k with A and B_k polynomials of one matrix."""
    M = torch.tensor([[0.2, 0.5], [-0.4, 0.3]], dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    A, B = -0.5 * eye + 0.3 * M, torch.stack([0.4 * eye + 0.5 * M, 0.3 * M @ M - 0.2 * eye])
    process = sf.SDE(lambda t, x: x @ A.T, lambda t, x: torch.einsum("kij,bj->bik", B, x), noise="general")
    drift = A - 0.5 * (B @ B).sum(0)
    x0 = start(2)
    return (
        process,
        x0,
        lambda W: (torch.linalg.matrix_exp(drift + torch.einsum("bk,kij->bij", W, B)) @ x0[..., None])[..., 0],
    )


def test_euler_maruyama_is_of_order_one_half_and_one():
    gbm = sf.processes.GeometricBrownianMotion(0.4, 0.7)
    errors = strong_errors(gbm, start(), geometric(start()), "euler-maruyama")
    assert abs(slope(errors, [2.0**-k for k in LEVELS]) - 0.5) < 0.15
    process, exact = additive_linear()
    errors = strong_errors(process, start(), exact, "euler-maruyama")
    assert abs(slope(errors, [2.0**-k for k in LEVELS]) - 1.0) < 0.15


@pytest.mark.parametrize("method", ["euler-heun", "heun"])
def test_stratonovich_methods_are_of_order_one(method):
    h = [2.0**-k for k in LEVELS]
    gbm = sf.processes.GeometricBrownianMotion(0.4, 0.7).to_stratonovich()
    assert abs(slope(strong_errors(gbm, start(), geometric(start()), method), h) - 1.0) < 0.15
    scalar = sf.SDE(lambda t, x: 0.4 * x, lambda t, x: 0.7 * x, noise="scalar").to_stratonovich()
    assert abs(slope(strong_errors(scalar, start(), geometric(start()), method), h) - 1.0) < 0.15
    process, x0, exact = commuting()
    assert slope(strong_errors(process.to_stratonovich(), x0, exact, method, columns=2), h) > 0.75
    # read as Itô, the same coefficients converge to something else
    wrong = sf.SDE(gbm.to_ito().drift, gbm.diffusion, calculus="stratonovich")
    assert strong_errors(wrong, start(), geometric(start()), method)[-1] > 0.05


def test_general_noise_in_the_ito_form():
    process, x0, exact = commuting()
    errors = strong_errors(process, x0, exact, "euler-maruyama", columns=2)
    assert abs(slope(errors, [2.0**-k for k in LEVELS]) - 0.5) < 0.15


@pytest.mark.parametrize("method", ["euler", "heun", "midpoint", "rk4"])
def test_the_registry_counts_what_is_evaluated(method):
    calls = []
    ode = sf.ODE(lambda t, x: calls.append(t) or -x)
    sol = sf.solve(ode, torch.ones(2, 1), steps=7, method=method)
    assert len(calls) == 7 * sf.methods()[method].drift_evaluations == sol.stats["nfe_drift"]


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 5), (4, 1, 3, 3)])
@pytest.mark.parametrize("noise", ["diagonal", "scalar"])
def test_any_event_shape_in_both_dtypes(shape, noise):
    process = sf.SDE(lambda t, x: -x, lambda t, x: 0.1 * (1 + x**2), noise=noise)
    for dtype in (torch.float32, torch.float64):
        x0 = torch.rand(shape, dtype=dtype)
        sol = sf.solve(process, x0, [0.0, 0.5, 1.0], steps=4, seed=1)
        assert sol.x.shape == (3, *shape) and sol.x.dtype is dtype
        flat = sf.solve(process, x0.flatten(1), [0.0, 0.5, 1.0], steps=4, seed=1)
        assert torch.equal(sol.x.flatten(2), flat.x)


# --- randomness ------------------------------------------------------------------------------------------------------


def test_a_seed_leaves_the_global_generators_alone():
    process = sf.processes.BrownianMotion()
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()
    a = sf.solve(process, torch.zeros(3, 2), steps=5, seed=4)
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()
    torch.manual_seed(99)
    assert torch.equal(sf.solve(process, torch.zeros(3, 2), steps=5, seed=4).x, a.x)


def test_without_a_seed_torch_manual_seed_repeats_and_the_stats_tell():
    process = sf.processes.BrownianMotion()
    torch.manual_seed(1)
    a = sf.solve(process, torch.zeros(3, 2), steps=5)
    b = sf.solve(process, torch.zeros(3, 2), steps=5)
    torch.manual_seed(1)
    c = sf.solve(process, torch.zeros(3, 2), steps=5)
    assert torch.equal(a.x, c.x) and not torch.equal(a.x, b.x)
    assert torch.equal(sf.solve(process, torch.zeros(3, 2), steps=5, seed=b.stats["seed"]).x, b.x)


def test_float32_and_float64_share_one_path():
    process = sf.processes.OrnsteinUhlenbeck()
    a = sf.solve(process, torch.ones(5, 2), steps=50, seed=2).final
    b = sf.solve(process, torch.ones(5, 2, dtype=torch.float64), steps=50, seed=2).final
    assert torch.allclose(a.double(), b, atol=1e-5)


def test_rows_keep_their_paths_when_a_batch_is_split():
    process = sf.processes.BrownianMotion()
    whole = sf.solve(process, torch.zeros(10, 2), steps=4, seed=2).final
    path = sf.BrownianPath((4, 2), 0.0, 1.0, seed=2, cells=4, first_row=6, levy="space-time")
    assert torch.equal(sf.solve(process, torch.zeros(4, 2), steps=4, brownian=path).final, whole[6:])


def test_gradients_reach_the_start_and_the_parameters():
    """d E x_1 / dθ for OU from 1 with the noise fixed: −e^{−θ} to the step error."""
    theta = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    process = sf.processes.OrnsteinUhlenbeck(theta, 0.0, 0.1)
    x0 = torch.ones(500, 1, dtype=torch.float64, requires_grad=True)
    final = sf.solve(process, x0, steps=400, method="heun", seed=0).final
    final.mean().backward()
    assert theta.grad.item() == pytest.approx(-math.exp(-0.7), abs=0.02)
    assert x0.grad.sum().item() == pytest.approx(math.exp(-0.7), rel=1e-4)


def test_no_graph_is_kept_where_nothing_requires_grad():
    """∇·Σ by autodiff inside a long solve must not tie the steps together."""
    sde = sf.SDE(lambda t, x: -x, lambda t, x: 0.3 * torch.cos(x))
    rev = sde.reverse(lambda t, x: -x)
    assert not sf.solve(rev, torch.ones(2, 1), steps=5, seed=0).x.requires_grad


def test_time_reaches_user_code_in_the_dtype_of_x_and_broadcasting():
    seen = []

    def drift(t, x):
        seen.append((t.dtype, t.ndim, t.device == x.device))
        return -x

    for dtype in (torch.float32, torch.float64):
        sf.solve(sf.SDE(drift, lambda t, x: 1.0), torch.ones(2, 3, 3, dtype=dtype), steps=3, seed=0)
        assert {s[0] for s in seen} == {dtype} and {s[1] for s in seen} == {0} and all(s[2] for s in seen)
        seen.clear()


def test_progress_shows_a_bar(capsys):
    sf.solve(sf.processes.BrownianMotion(), torch.zeros(2, 1), steps=50, seed=0, progress=True)
    shown = capsys.readouterr().err
    assert "shark" in shown and "100%" in shown
    sf.solve(sf.processes.BrownianMotion(), torch.zeros(2, 1), steps=50, seed=0)
    assert capsys.readouterr().err == ""


def test_the_solution_prints_a_sentence():
    sol = sf.solve(sf.processes.BrownianMotion(), torch.zeros(2, 1), steps=5, seed=0)
    assert "shark" in repr(sol) and "2 of 2 samples" in repr(sol)
    assert sol.success.all() and (sol.status == sf.Status.SUCCESS).all()


def test_the_registry_prints_and_filters():
    table = sf.methods()
    assert "euler-maruyama" in repr(table) and len(repr(table).splitlines()) == len(table) + 1
    sde = sf.SDE(lambda t, x: x, lambda t, x: x, noise="general", calculus="stratonovich")
    fitting = table.fitting(sde, adaptive=False)
    assert "heun" in fitting and "euler-maruyama" not in fitting and "rk4" not in fitting
