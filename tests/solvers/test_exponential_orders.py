"""Orders of the samplers that need a schedule, on models whose score is known exactly: no network, and no reference solve.

- Without noise: in one dimension the probability flow carries quantiles to quantiles, x_s = F_s⁻¹(F_t(x_t)).
- In expectation: for Gaussian data a step is affine, so mean and variance at the end are sums (see ``affine_samplers``), and
  the truth is Bayes' rule for (x_s, x_t). Nothing is drawn.
- Pathwise: against the same method on a fine grid of the same path.

Steps are equal in log-SNR and stay away from the ends, where the coefficients are infinite.
"""

import math
from functools import cache

import numpy as np
import pytest
import torch
from affine_samplers import GivenOnGrid, forward_clock, moments_at_end, path_on
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.processes import CustomSchedule, ScheduledDiffusion
from sdeflow.solvers import time_grids

D = torch.float64
SPAN = (0.6, 0.05)
DIFFUSIONS = {
    "vp": sf.processes.VariancePreserving(),
    "sub-vp": sf.processes.SubVariancePreserving(),
    "ve": sf.processes.VarianceExploding(0.02, 10.0),
    "cosine": sf.processes.CosineVariancePreserving(),
    "straight": ScheduledDiffusion(CustomSchedule(lambda t: 1 - t, lambda t: t, interval=(0.0, 0.99))),
}
NEEDING = [m for m in sf.methods() if "schedule" in m.needs]
FLOWS = [m for m in NEEDING if m.ode_order is not None]
NOISY = [m for m in NEEDING if m.strong_order]
PINNED = sf.laws.GaussianMixture(
    torch.tensor([0.4, 0.6], dtype=D), torch.tensor([[-1.0], [1.0]], dtype=D), torch.tensor([0.2, 0.4], dtype=D)
)
each_diffusion = pytest.mark.parametrize("name", DIFFUSIONS)


def slope(errors, steps):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def quantiles(law, u):
    """F⁻¹(u) of a mixture in one dimension, by bisection."""
    mean, deviation = law.means.flatten(), law.covariances.flatten().sqrt()
    low, high = (torch.full_like(u, edge) for edge in ((mean - 9 * deviation).min(), (mean + 9 * deviation).max()))
    for _ in range(80):
        middle = (low + high) / 2
        below = (law.weights * torch.special.ndtr((middle[:, None] - mean) / deviation)).sum(1) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return middle[:, None]


def flow_errors(law, sde, method, span, counts):
    """Root mean square over quantiles of the error of the flow from span[0] to span[1]."""
    truth, u = law.along(sde), torch.linspace(0.02, 0.98, 25, dtype=D)
    x, expected = (quantiles(truth.at(t), u) for t in span)
    ode, errors = sde.probability_flow(truth.score), []
    for n in counts:
        found = sf.solve(ode, x, span, steps=time_grids.log_snr(ode, n, span), method=method).final
        errors.append((found - expected).square().mean().sqrt().item())
    return errors


def test_every_method_that_needs_a_schedule_has_its_orders_tested_here():
    """What the order tests of other methods leave out, these take in: by what a method needs, not by its name."""
    assert {"ddim", "dpmpp-2m", "exponential-heun", "edm-heun", "ancestral", "sde-dpmpp-2m"} <= {
        m.name for m in NEEDING
    }
    for method in NEEDING:
        assert {"schedule", "score"} <= set(method.needs) and method.engine == "native"
        assert method in FLOWS or method in NOISY
        assert method.strong_order.keys() == method.weak_order.keys() <= {"additive"}


# --- without noise -----------------------------------------------------------------------------------------------------


@each_diffusion
@pytest.mark.parametrize("span", [SPAN, SPAN[::-1]], ids=["sampling", "encoding"])
@pytest.mark.parametrize("method", FLOWS, ids=lambda m: m.name)
def test_the_order_on_the_flow_is_what_is_claimed(method, name, span):
    counts = (48, 96, 192)
    errors = flow_errors(PINNED, DIFFUSIONS[name], method.name, span, counts)
    assert errors[-1] < 0.05
    assert abs(slope(errors, counts) - method.ode_order) <= 0.25


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    name=st.sampled_from(sorted(DIFFUSIONS)),
    encode=st.booleans(),
)
def test_the_order_on_random_mixtures_is_at_least_the_claim(seed, name, encode):
    generator = torch.Generator().manual_seed(seed)
    weights, means, variances = torch.rand(3, 3, generator=generator, dtype=D)
    law = sf.laws.GaussianMixture(0.2 + weights, (4 * means - 2)[:, None], 0.2 + variances)
    counts = (32, 64, 128)
    for method in FLOWS:
        errors = flow_errors(law, DIFFUSIONS[name], method.name, SPAN[::-1] if encode else SPAN, counts)
        assert slope(errors, counts) >= method.ode_order - 0.25, method.name


# --- in expectation ----------------------------------------------------------------------------------------------------

MEAN, VARIANCE = 0.7, 0.3
GAUSSIAN = sf.laws.GaussianMixture(
    torch.ones(1, dtype=D), torch.tensor([[MEAN]], dtype=D), torch.tensor([VARIANCE], dtype=D)
)


def level(sde, t):
    a = float(sde.schedule.a(t))
    return a, a * MEAN, a * a * VARIANCE + float(sde.schedule.variance(t))


def posterior(sde, x, t, s):
    """Mean and variance of x_s given x_t = x, s < t, of the diffusion of Gaussian data: the law of its reversal from x."""
    (a, mean, variance), (b, mean_s, variance_s) = level(sde, t), level(sde, s)
    covariance = a / b * variance_s
    return mean_s + covariance / variance * (x - mean), variance_s - covariance**2 / variance


@each_diffusion
@pytest.mark.parametrize("method", [m for m in NOISY if "H" not in m.needs], ids=lambda m: m.name)
def test_the_weak_order_on_the_reversal_is_what_is_claimed(method, name):
    """On one clock from the law itself, whose variance shows the error, and on the other from a point, whose mean does too."""
    # A kick is of order 1 and the rest of order 2, so it takes more steps until the first is most of the error.
    sde, counts = DIFFUSIONS[name], (80, 160, 320) if method.name == "edm-heun" else (40, 80, 160)
    score = GAUSSIAN.along(sde).score
    law = [level(sde, t)[1:] for t in SPAN]
    for clock, start, expected in (("backward", *law), ("flipped", (1.5, 0.0), posterior(sde, 1.5, *SPAN))):
        rev, errors = sde.reverse(score, clock=clock), []
        span = SPAN if clock == "backward" else tuple(rev.reflect(t) for t in SPAN)
        for n in counts:
            mean, variance = moments_at_end(rev, method.name, time_grids.log_snr(rev, n, span), *start)
            errors.append(math.hypot(mean - expected[0], variance - expected[1]))
        # The noise of edm-heun is a kick that keeps the law exactly: from the law, its order is that of the flow.
        kept = method.name == "edm-heun" and clock == "backward"
        expected_order = method.ode_order if kept else method.weak_order["additive"]
        assert abs(slope(errors, counts) - expected_order) <= 0.25, (clock, errors)


@each_diffusion
@pytest.mark.parametrize("method", [m for m in NOISY if "H" not in m.needs], ids=lambda m: m.name)
def test_the_weak_order_holds_for_any_amount_of_noise(method, name):
    """Of the SDEs with the same marginals, one whose noise is not that of the diffusion. From a law with the right variance and
    another mean: that the variance is right again does not depend on the size of the noise, but the mean does.
    """
    sde, counts = DIFFUSIONS[name], (40, 80, 160)
    score = GAUSSIAN.along(sde).score
    process = sde.reverse(score, clock="backward").marginal_preserving(
        score, lambda t: (0.1 + t) * sde.schedule.squared_diffusion(t)
    )
    start, (_, _, variance_end) = (1.5, level(sde, SPAN[0])[2]), level(sde, SPAN[1])
    exact = sf.solve(sf.ODE(process.drift), torch.full((1, 1), 1.5, dtype=D), SPAN, method="dopri8", rtol=1e-11)
    errors = []
    for n in counts:
        mean, variance = moments_at_end(process, method.name, time_grids.log_snr(process, n, SPAN), *start)
        errors.append(math.hypot(mean - exact.final.item(), variance - variance_end))
    assert abs(slope(errors, counts) - method.weak_order["additive"]) <= 0.25, errors


# --- pathwise ----------------------------------------------------------------------------------------------------------

FINE, ROWS = 2**11, 300


@cache
def fine_noise():
    """Cells of equal length in log-SNR of the variance-preserving reversal, the same for all methods."""
    process = DIFFUSIONS["vp"].reverse(PINNED.along(DIFFUSIONS["vp"]).score, clock="backward")
    nodes = time_grids.log_snr(process, FINE, SPAN)
    widths = torch.tensor(forward_clock(process, nodes), dtype=D).diff()
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(FINE, ROWS, 1, generator=generator, dtype=D)
    return process, nodes, draws * widths[:, None, None].sqrt()


@pytest.mark.parametrize("method", [m for m in NOISY if "H" not in m.needs], ids=lambda m: m.name)
def test_the_strong_order_is_what_is_claimed(method):
    """Within .25, and no bootstrap sample of the paths, of 200, comes as low as the claim less .5. The coarse paths are sums of
    the fine one's cells."""
    process, nodes, W = fine_noise()
    x0 = PINNED.along(DIFFUSIONS["vp"]).sample(SPAN[0], ROWS, seed=1)

    def final(n):
        some, sums = nodes[:: FINE // n], W.reshape(n, -1, ROWS, 1).sum(1)
        path = GivenOnGrid(sums, torch.zeros_like(sums), forward_clock(process, some))
        return sf.solve(process, x0, SPAN, steps=some, method=method.name, brownian=path).final

    counts, truth = (32, 64, 128), final(FINE)
    squares = np.array([(final(n) - truth).square()[:, 0].numpy() for n in counts])
    claim, rng = method.strong_order["additive"], np.random.default_rng(0)
    assert abs(slope(np.sqrt(squares.mean(1)), counts) - claim) <= 0.25
    resampled = (squares[:, rng.integers(0, ROWS, ROWS)].mean(1) for _ in range(200))
    assert min(slope(np.sqrt(some), counts) for some in resampled) > claim - 0.5


@pytest.mark.parametrize("method", [m for m in NOISY if "H" in m.needs], ids=lambda m: m.name)
def test_a_corrector_has_a_bias_that_no_step_takes_away(method):
    """Order 0 in both senses, as the registry says. Of data that are all 0 only noise is left, for which the ancestral step is
    exact; a Langevin step of u = 2 (.16)² = .05 then takes its variance towards s²/(1 − u/2), however small the steps are.

    The mean square over 500 × 400 coordinates has a standard error of .0032, and the bounds are more than six of them away.
    """
    assert method.strong_order == method.weak_order == {"additive": 0.0}
    sde, biases = sf.processes.VarianceExploding(0.1, 10.0), []
    process = sde.reverse(lambda t, x: -x / sde.schedule.variance(t), clock="backward")
    deviations = [float(sde.schedule.s(t)) for t in (0.9, 0.3)]
    x0 = deviations[0] * torch.randn(500, 400, generator=torch.Generator().manual_seed(0), dtype=D)
    for n in (50, 200):
        nodes = time_grids.log_snr(process, n, (0.9, 0.3))
        final = sf.solve(process, x0, (0.9, 0.3), steps=nodes, method=method.name, seed=n).final
        biases.append(final.square().mean().item() / deviations[1] ** 2 - 1)
    assert all(0 < bias < 0.05 for bias in biases) and biases[1] > 0.5 * biases[0]


def test_cells_that_are_put_together_are_those_of_one_path():
    """In halves or at once, and of equal cells as by the rule for two halves of one; W and H stay independent."""
    nodes = [float(t) for t in torch.rand(17, generator=torch.Generator().manual_seed(2), dtype=D).cumsum(0)]
    fine = path_on(nodes, (50_000, 1), seed=0)
    once, twice = fine.coarse(2), fine.coarse(8).coarse(2)
    torch.testing.assert_close(once.W, twice.W)
    torch.testing.assert_close(once.H, twice.H)
    for W, H, h in zip(once.W, once.H, np.diff(once.nodes), strict=True):
        z, w = W[:, 0] / h**0.5, H[:, 0] * (12 / h) ** 0.5
        for mean, deviation in ((z * z - 1, 2**0.5), (w * w - 1, 2**0.5), (z * w, 1.0)):
            assert abs(mean.mean()) < 6 * deviation / 50_000**0.5
    even = path_on(list(range(9)), (3, 2), seed=1)
    torch.testing.assert_close(even.coarse(2).H, super(GivenOnGrid, even).coarse(2).H)


@pytest.mark.parametrize("method", [m for m in NOISY if "H" in m.needs], ids=lambda m: m.name)
def test_a_corrector_forgets_the_path(method):
    """Order 0 pathwise: where the reversal keeps nearly all of its start, a hundred Langevin steps keep e^{−5} of it.

    By the rule for all: within .25, and no bootstrap sample of the paths comes as low as the claim less .5. The solution is
    that of fine ancestral steps; coarse ones have a slope of 1 and would not pass.
    """
    rows, span, sde = 300, (0.5, 0.45), sf.processes.VarianceExploding(0.1, 10.0)
    process = sde.reverse(lambda t, x: -x / sde.schedule.variance(t), clock="backward")
    nodes = time_grids.log_snr(process, FINE, span)
    path = path_on(forward_clock(process, nodes), (rows, 4), seed=0)
    x0 = sde.schedule.s(span[0]) * torch.randn(rows, 4, generator=torch.Generator().manual_seed(1), dtype=D)

    def final(name, n):
        return sf.solve(process, x0, span, steps=nodes[:: FINE // n], method=name, brownian=path.coarse(n)).final

    counts, truth = (64, 128, 256, 512), final("ancestral", FINE)
    squares = np.array([(final(method.name, n) - truth).square().mean(1).numpy() for n in counts])
    claim, rng = method.strong_order["additive"], np.random.default_rng(0)
    assert abs(slope(np.sqrt(squares.mean(1)), counts) - claim) <= 0.25
    resampled = (squares[:, rng.integers(0, rows, rows)].mean(1) for _ in range(200))
    assert min(slope(np.sqrt(some), counts) for some in resampled) > claim - 0.5


def test_a_corrector_keeps_the_law_in_one_coordinate():
    """Its bias does not grow with the steps: of 20,000 draws the variance has a standard error of .01, and the bound is six of
    them from what it should be. With a step by each sample's own norms it is 3.5 too large after 128 steps, and 4.3 after 256.
    """
    sde, rows = DIFFUSIONS["vp"], 20_000
    process = sde.reverse(GAUSSIAN.along(sde).score, clock="backward")
    (_, mean, variance), (_, _, expected) = (level(sde, t) for t in SPAN)
    x0 = mean + variance**0.5 * torch.randn(rows, 1, generator=torch.Generator().manual_seed(0), dtype=D)
    for n in (128, 256):
        nodes = time_grids.log_snr(process, n, SPAN)
        final = sf.solve(process, x0, SPAN, steps=nodes, method="predictor-corrector", seed=n).final
        assert abs(final.var().item() / expected - 1) < 0.06
