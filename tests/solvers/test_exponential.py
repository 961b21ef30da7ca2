"""The samplers that need a schedule: their steps by hand, their ends, their clocks, their cost and their refusals."""

import itertools
import math

import pytest
import torch
from affine_samplers import GivenOnGrid

import sdeflow as sf
from sdeflow.solvers import time_grids

D = torch.float64
MIXTURE = sf.laws.GaussianMixture(
    torch.tensor([0.4, 0.6], dtype=D),
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=D),
    torch.tensor([0.2, 0.4], dtype=D),
)
VP = sf.processes.VariancePreserving()
VE = sf.processes.VarianceExploding(0.02, 10.0)
METHODS = [m for m in sf.methods() if "schedule" in m.needs]
FLOWS = [m.name for m in METHODS if m.ode_order]
NOISY = [m.name for m in METHODS if m.strong_order]
each = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def flow(sde=VP, law=MIXTURE):
    return sde.probability_flow(law.along(sde).score)


def reversal(sde=VP, law=MIXTURE, clock="backward"):
    return sde.reverse(law.along(sde).score, clock=clock)


def process_for(method, sde=VP):
    return flow(sde) if method.ode_order else reversal(sde)


def states(rows=5, seed=0, dtype=D):
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def parts(sde, t, x, law=MIXTURE):
    """a, s, x̂₁ and x̂₀ from the closed form."""
    truth = law.along(sde)
    return sde.schedule.a(t), sde.schedule.s(t), truth.denoiser(t, x), truth.noise(t, x)


def one_step(process, method, x, t, n, W=None, H=None):
    """One step on the backward clock, with given noise."""
    nodes = [process.reflect(t), process.reflect(n)]
    path = None if W is None else GivenOnGrid(W[None], torch.zeros_like(W)[None] if H is None else H[None], nodes)
    return sf.solve(process, x, (t, n), steps=1, method=method, brownian=path).final


# --- steps by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VP, VE], ids=["vp", "ve"])
def test_ddim_from_pure_noise_is_data_and_noise_put_together_again(sde):
    t, n, x = 1.0, 0.3, 2 * states()
    _, _, data, noise = parts(sde, t, x)
    a, s, _, _ = parts(sde, n, x)
    torch.testing.assert_close(one_step(flow(sde), "ddim", x, t, n), a * data + s * noise, rtol=1e-9, atol=1e-9)


def test_an_ancestral_step_is_that_of_ddpm():
    """σ̃² = s_n² (1 − a_t² s_n²/(a_n² s_t²)); a_n x̂₁ + √(s_n² − σ̃²) x̂₀ + σ̃ z."""
    t, n, x, z = 0.6, 0.5, states(), states(seed=1)
    a_t, s_t, data, noise = parts(VP, t, x)
    a, s, _, _ = parts(VP, n, x)
    fresh = s * (1 - (a_t * s / (a * s_t)) ** 2).sqrt()
    expected = a * data + (s**2 - fresh**2).sqrt() * noise + fresh * z
    found = one_step(reversal(), "ancestral", x, t, n, W=z * math.sqrt(t - n))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noisy", [False, True])
def test_the_multistep_method_is_dpm_solver(noisy):
    """Two unequal steps of 2M: (s_n/s_t) x − a_n (e^{−h} − 1) [(1 + 1/2r) D − D'/2r]; its SDE form has e^{−2h} for D."""
    times, x, z = (0.6, 0.5, 0.3), states(), (states(seed=1), states(seed=2))
    steps, before, y = (0.1, 0.2), None, x
    for k in range(2):
        t, n = times[k : k + 2]
        a_t, s_t, data, _ = parts(VP, t, y)
        a, s, _, _ = parts(VP, n, y)
        h = (a / s).log() - (a_t / s_t).log()
        r = None if before is None else before[1] / h
        guess = data if before is None else (1 + 0.5 / r) * data - 0.5 / r * before[0]
        if noisy:
            fresh = (1 - (-2 * h).exp()).sqrt()
            y = s / s_t * (-h).exp() * y + a * (1 - (-2 * h).exp()) * guess + s * fresh * z[k]
        else:
            y = s / s_t * y - a * ((-h).exp() - 1) * guess
        before = data, h
    process = reversal() if noisy else flow()
    nodes = [process.reflect(t) for t in times]
    W = torch.stack([noise * math.sqrt(h) for noise, h in zip(z, steps, strict=True)])
    options = {"brownian": GivenOnGrid(W, torch.zeros_like(W), nodes)} if noisy else {}
    method = "sde-dpmpp-2m" if noisy else "dpmpp-2m"
    found = sf.solve(process, x, (0.6, 0.3), steps=list(times), method=method, **options).final
    torch.testing.assert_close(found, y, rtol=1e-9, atol=1e-9)


def test_a_heun_step_in_sigma_is_that_of_karras():
    """d = (y − D)/σ for y = x/a; y + Δσ (d + d')/2."""
    t, n, x = 0.6, 0.5, states()
    a_t, s_t, data, _ = parts(VP, t, x)
    a, s, _, _ = parts(VP, n, x)
    y, sigma, sigma_n = x / a_t, s_t / a_t, s / a
    d = (y - data) / sigma
    guess = y + (sigma_n - sigma) * d
    _, _, data_n, _ = parts(VP, n, a * guess)
    expected = a * (y + (sigma_n - sigma) * (d + (guess - data_n) / sigma_n) / 2)
    torch.testing.assert_close(one_step(flow(), "edm-heun", x, t, n), expected, rtol=1e-9, atol=1e-9)


def test_a_corrector_is_a_langevin_step_for_each_sample_alone():
    t, n, x, z, w = 0.6, 0.5, states(), states(seed=1), states(seed=2)
    W, H = z * math.sqrt(t - n), w * math.sqrt((t - n) / 12)
    y = one_step(reversal(), "ancestral", x, t, n, W=W)
    score = MIXTURE.along(VP).score(n, y)
    alpha = (VP.schedule.a(t) / VP.schedule.a(n)) ** 2
    size = 2 * alpha * 0.16**2 * VP.schedule.variance(n)
    expected = y + size * score + (2 * size).sqrt() * w
    found = one_step(reversal(), "predictor-corrector", x, t, n, W=W, H=H)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    alone = one_step(reversal(), "predictor-corrector", x[:1], t, n, W=W[:1], H=H[:1])
    torch.testing.assert_close(found[:1], alone)


@pytest.mark.parametrize(("size", "power"), [(0.0, 2.0), (1.0, 1.5)], ids=["mean", "with noise"])
def test_an_ancestral_step_is_a_reversed_euler_step_to_first_order(size, power):
    """They differ by O(h²) in the mean; and in the deviation, which is O(√h), by a relative O(h)."""
    x, z, gaps = states(), size * states(seed=1), []
    for h in (0.004, 0.002, 0.001):
        W = z * math.sqrt(h)
        one, other = (one_step(reversal(), method, x, 0.5, 0.5 - h, W=W) for method in ("ancestral", "euler-maruyama"))
        gaps.append((one - other).abs().max().item())
    for coarse, fine in itertools.pairwise(gaps):
        assert abs(math.log2(coarse / fine) - power) < 0.15


def test_a_diffusion_itself_is_solved_exactly():
    """The reversal of a reversal is the diffusion, which no score should enter: x_n = (a_n/a_t) x + noise of the right size."""
    rev = reversal()
    again = rev.reverse(MIXTURE.along(VP).score, clock="backward")
    assert again.direction == 1
    x, z = states(), states(seed=1)
    law = VP.marginal(x, 0.5, 0.3)
    for method in ("ancestral", "sde-dpmpp-2m", "exponential-heun"):
        path = GivenOnGrid(z[None] * math.sqrt(0.2), 0 * z[None], [0.3, 0.5])
        found = sf.solve(again, x, (0.3, 0.5), steps=1, method=method, brownian=path).final
        torch.testing.assert_close(found, law.mean + law.stddev * z, rtol=1e-9, atol=1e-9)


# --- ends --------------------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_the_last_step_goes_to_the_data_without_noise(method, dtype):
    """To s = 0 the last step lands on the denoiser's answer, as Karras' final Euler step does; save times are met before."""
    for sde in (VP, VE):
        process, x = process_for(method, sde), 2 * states(dtype=dtype)
        solution = sf.solve(
            process, x, (1.0, 0.05, 0.0), steps=[1.0, 0.6, 0.3, 0.1, 0.05, 0.0], method=method.name, seed=1
        )
        assert solution.x.isfinite().all() and solution.x.dtype is dtype
        expected = MIXTURE.along(sde).denoiser(0.05, solution.x[1])
        torch.testing.assert_close(solution.final, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", FLOWS)
def test_encoding_begins_at_the_data(method):
    """From s = 0, where x̂₀ = 0, and back: the flow there and back is the identity, but for its error."""
    process, x = flow(), states()
    grid = time_grids.cosine(process, 200, (0.0, 0.7))
    there = sf.solve(process, x, (0.0, 0.7), steps=grid, method=method).final
    back = sf.solve(process, there, (0.7, 0.0), steps=grid[::-1], method=method).final
    assert (back - x).abs().max() < (0.1 if method == "ddim" else 0.005)


@pytest.mark.parametrize("method", FLOWS)
def test_a_flow_model_starts_where_there_is_nothing_but_noise(method):
    """On the straight path a = 0 at the base, and λ is −∞: with the exact velocity of one normal law the answers are known, and
    gradients go through."""
    law = sf.laws.GaussianMixture([1.0], [[2.0, -1.0]], [0.25])
    truth = law.along(sf.processes.LinearSchedule())
    model = sf.models.FlowMatching(lambda t, x: truth.velocity(t, x), sf.paths.LinearPath().base((2,)))
    x = states().requires_grad_()
    ode = model.ode()
    final = sf.solve(ode, x, steps=time_grids.cosine(ode, 200), method=method).final
    expected = torch.tensor([2.0, -1.0], dtype=D) + 0.5 * x
    assert (final - expected).abs().max() < (0.05 if method == "ddim" else 0.002)
    (slope,) = torch.autograd.grad(final.sum(), x)
    assert (slope - 0.5).abs().max() < 0.05


# --- clocks, cost, refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", NOISY)
def test_both_clocks_are_one_trajectory(method):
    x = states()
    backward = sf.solve(reversal(), x, (0.9, 0.1), steps=15, method=method, seed=3)
    flipped = sf.solve(reversal(clock="flipped"), x, (1 - 0.9, 0.9), steps=15, method=method, seed=3)
    torch.testing.assert_close(backward.final, flipped.final, rtol=1e-9, atol=1e-9)
    other = sf.solve(reversal(), x, (0.9, 0.1), steps=15, method=method, seed=4)
    assert (other.final - backward.final).abs().max() > 0.1


@each
def test_the_model_is_asked_as_often_as_the_registry_says(method):
    calls = 0
    truth = MIXTURE.along(VP)

    def score(t, x):
        nonlocal calls
        calls += 1
        return truth.score(t, x)

    processes = [VP.probability_flow(score)] if method.ode_order else []
    processes += [VP.reverse(score, clock="backward")] if method.strong_order else []
    for process in processes:
        calls, noisy = 0, process.noise != "none"
        stats = sf.solve(process, states(), (0.9, 0.1), steps=7, method=method.name, seed=0).stats
        assert calls == 7 * method.drift_evaluations == stats["nfe_drift"]
        assert stats["nfe_diffusion"] == 7 * (method.diffusion_evaluations if noisy else 0)


@each
def test_what_has_no_schedule_or_no_score_is_refused(method):
    plain = sf.ODE(lambda t, x: -x) if method.ode_order else sf.SDE(lambda t, x: -x, lambda t, x: 1.0, additive=True)
    with pytest.raises(sf.MethodError, match="schedule and a score"):
        sf.solve(plain, states(), steps=3, method=method.name)
    if method.strong_order:
        with pytest.raises(sf.MethodError, match="schedule and a score"):
            sf.solve(VP, states(), steps=3, method=method.name)
    else:
        with pytest.raises(sf.MethodError, match="for ODEs"):
            sf.solve(reversal(), states(), (0.9, 0.1), steps=3, method=method.name)
    with pytest.raises(sf.MethodError, match="fixed size"):
        sf.solve(process_for(method), states(), (0.9, 0.1), rtol=1e-3, method=method.name)


@each
def test_checkpoints_give_the_same_gradients(method):
    """The history of a multistep method is carried over the edges of the spans."""
    slopes = []
    for gradient in ("backprop", "checkpoint"):
        x = states().requires_grad_()
        final = sf.solve(
            process_for(method), x, (0.9, 0.1), steps=9, method=method.name, seed=0, gradient=gradient
        ).final
        slopes.append(torch.autograd.grad(final.square().sum(), x)[0])
    assert slopes[0].abs().max() > 0
    torch.testing.assert_close(*slopes)


def test_a_breakpoint_begins_the_history_anew():
    """At a time where a coefficient jumps the denoiser of before says nothing of that of after."""
    process, x, grid = flow(), states(), [0.6, 0.5, 0.4, 0.3]
    whole = sf.solve(process, x, (0.6, 0.3), steps=grid, method="dpmpp-2m", breakpoints=[0.4]).final
    first = sf.solve(process, x, (0.6, 0.4), steps=grid[:3], method="dpmpp-2m").final
    second = sf.solve(process, first, (0.4, 0.3), steps=1, method="dpmpp-2m").final
    torch.testing.assert_close(whole, second, rtol=1e-6, atol=1e-6)
    assert (whole - sf.solve(process, x, (0.6, 0.3), steps=grid, method="dpmpp-2m").final).abs().max() > 1e-3


# --- laws --------------------------------------------------------------------------------------------------------------


def moments(x):
    """Each sample's contribution to the mean and to the second moments."""
    return torch.cat([x, x.square(), x[:, :1] * x[:, 1:]], 1)


@pytest.mark.parametrize(("method", "steps"), [("ancestral", 320), ("sde-dpmpp-2m", 64), ("exponential-heun", 64)])
def test_samples_have_the_law_of_the_data(method, steps):
    """The five first and second moments of 5,000 samples are within 6 standard errors, a false-alarm rate of 1e-8; twice the
    steps on the same path move none of them by one standard error. Eight ancestral steps are not enough, and are seen.
    """
    rows, end, process = 5_000, 1e-3, reversal()
    means, variances = MIXTURE.means, MIXTURE.covariances[:, None]
    a, s = VP.schedule.a(end), VP.schedule.s(end)
    second = torch.einsum("k,ki,kj->ij", MIXTURE.weights, a * means, a * means)
    spread = (MIXTURE.weights[:, None] * (a**2 * variances + s**2)).sum()
    first = MIXTURE.weights @ (a * means)
    exact = torch.stack([*first, second[0, 0] + spread, second[1, 1] + spread, second[0, 1]])
    grid = time_grids.log_snr(process, 2 * steps, (1.0, end))
    nodes = [process.reflect(t) for t in grid]
    widths = torch.tensor(nodes, dtype=D).diff()
    draws = torch.randn(2 * steps, rows, 2, generator=torch.Generator().manual_seed(7), dtype=D)
    W = draws * widths[:, None, None].sqrt()

    def found(n, name=method):
        stride = 2 * steps // n
        sums = W.reshape(n, stride, rows, 2).sum(1)
        path = GivenOnGrid(sums, torch.zeros_like(sums), nodes[::stride])
        return moments(
            sf.solve(process, states(rows, seed=5), (1.0, end), steps=grid[::stride], method=name, brownian=path).final
        )

    coarse, fine = found(steps), found(2 * steps)
    error = fine.std(0) / rows**0.5
    assert ((fine.mean(0) - exact).abs() < 6 * error).all()
    assert ((coarse.mean(0) - fine.mean(0)).abs() < error).all()
    assert ((found(8, "ancestral").mean(0) - exact).abs() > 6 * error).any()


def test_compiled_steps_are_the_same():
    """With the history of a multistep method carried into a graph of two steps."""
    process, x = VP.probability_flow(lambda t, x: -x / (1 + t)), states(dtype=torch.float32)
    times = [0.9, 0.7, 0.5, 0.3, 0.1]
    plain, fast = (
        sf.solve(process, x, times[::2], steps=times, method="dpmpp-2m", compile=compile) for compile in (False, True)
    )
    assert fast.stats["compiled_steps"] == 2
    torch.testing.assert_close(plain.x, fast.x, rtol=1e-5, atol=1e-5)
