"""Conditional paths: closed forms against the general definition, points against densities, processes there and back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.paths import Draws, GaussianPath
from sdeflow.processes.boundary import as_time

properties = settings(derandomize=True, deadline=None, max_examples=25)
PATHS = {
    "linear": sf.paths.LinearPath(),
    "cosine": sf.paths.CosinePath(),
    "vp": sf.paths.VariancePreservingPath(),
    "sub-vp": sf.paths.SubVariancePreservingPath(),
    "ve": sf.paths.VarianceExplodingPath(0.05, 10.0),
    "edm": sf.paths.EDMPath(0.01, 10.0),
    "pair": sf.paths.PairPath(0.3),
    "line": sf.paths.PairPath(),
    "bridge": sf.paths.BridgePath(0.7),
}
NAMED = {name: path for name, path in PATHS.items() if path.given == "data"}
times = st.floats(0.03, 0.97, width=64)
seeds = st.integers(0, 2**31)


def tensors(seed, count, *shape):
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def conditioning(path, x0, x1):
    return x1 if path.given == "data" else (x0, x1)


def close(value, expected, tolerance=1e-10):
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", PATHS)
@properties
@given(t=times, seed=seeds)
def test_closed_forms_are_the_general_ones(name, t, seed):
    """Each path's own rates are those that automatic differentiation of its mean and deviation gives."""
    path = PATHS[name]
    x0, x1 = tensors(seed, 2, 4, 3)
    t = t + 0.02 * torch.arange(4, dtype=torch.float64) / 4
    z = conditioning(path, x0, x1)
    for own, general in zip(path.rates(t, z), GaussianPath.rates(path, t, z), strict=True):
        close(own.expand(4, 3), general.expand(4, 3), 1e-9)


@pytest.mark.parametrize("name", PATHS)
@properties
@given(t=times, seed=seeds)
def test_the_point_and_its_velocity_belong_together(name, t, seed):
    """u_t(x | z) at x = μ + σε is d/dt (μ + σε), and the score is that of the Gaussian."""
    path = PATHS[name]
    x0, x1, noise = tensors(seed, 3, 4, 3)
    z = conditioning(path, x0, x1)
    x, u = path.at(t, noise, z)
    h = 1e-6
    close((path.at(t + h, noise, z)[0] - path.at(t - h, noise, z)[0]) / (2 * h), u, 1e-5)
    if name != "line":
        close(path.velocity(t, x, z), u, 1e-8)
        x = x.requires_grad_()
        (slope,) = torch.autograd.grad(path.marginal(t, z).log_prob(x).sum(), x)
        close(path.score(t, x.detach(), z), slope, 1e-9)


@properties
@given(t=times, seed=seeds)
def test_a_path_with_scales_of_its_own_in_each_coordinate(t, seed):
    """The general path, with a deviation that depends on z and differs between coordinates, carries its Gaussian."""
    path = GaussianPath(lambda t, z: torch.sin(t) * z, lambda t, z: (1 - 0.5 * t) * (1 + z.square()), given="data")
    z, x = tensors(seed, 2, 5, 2)

    def log_prob(s, y):
        time = as_time(s, y)
        return torch.distributions.Normal(path.mean(time, z), path.std(time, z)).log_prob(y).sum(1)

    residual = sf.continuity_residual(lambda s, y: path.velocity(s, y, z), log_prob, t, x)
    assert residual.abs().max() < 1e-9
    wrong = sf.continuity_residual(lambda s, y: path.velocity(s, y, z) + 0.1 * y, log_prob, t, x)
    assert wrong.abs().max() > 1e-2


@pytest.mark.parametrize("name", NAMED)
def test_the_path_of_its_process_is_itself(name):
    path = NAMED[name]
    process = path.process()
    back = sf.paths.SchedulePath.of(process)
    start, end = process.interval
    t = torch.linspace(start + 1e-3, end - 1e-3, 17, dtype=torch.float64)
    shift = start + end - 1  # the clock t0 + t1 − τ of an interval that was cut at the noise end
    for coefficient in ("a", "s", "a_dot", "variance_dot"):
        close(getattr(back.schedule, coefficient)(t), getattr(path.schedule, coefficient)(t - shift), 1e-9)
    assert back.base_deviation == path.base_deviation
    close(process.prior((2,)).stddev, torch.full((2,), path.base_deviation), 1e-6)


@pytest.mark.parametrize(
    "process, path",
    [
        (sf.processes.VariancePreserving(), "vp"),
        (sf.processes.SubVariancePreserving(), "sub-vp"),
        (sf.processes.VarianceExploding(0.05, 10.0), "ve"),
    ],
)
def test_the_named_paths_are_those_of_the_named_processes(process, path):
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    ours, theirs = PATHS[path].schedule, process.schedule
    close(ours.a(t), theirs.a(1 - t))
    close(ours.s(t), theirs.s(1 - t))
    close(sf.paths.SchedulePath.of(process).schedule.s_dot(t), ours.s_dot(t))


def test_the_linear_path_is_that_of_the_straight_diffusion():
    """a = 1 − τ, s = τ: drift −x/(1 − τ), g² = 2τ/(1 − τ); the interval ends before the drift is infinite."""
    process = sf.paths.LinearPath().process(cut=0.01)
    assert process.interval == (0.0, 0.99)
    x = torch.ones(1, 1, dtype=torch.float64)
    close(process.drift(0.75, x), torch.tensor([[-4.0]], dtype=torch.float64))
    close(process.diffusion(0.75, x).square(), torch.tensor(6.0, dtype=torch.float64))
    assert process.diffusion(0.99, x).isfinite() and process.drift(0.99, x).isfinite().all()


def test_karras_grid():
    """Equal steps on the EDM path are the published grid: σ_i = (σ_max^{1/ρ} + i/(N − 1)(σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ."""
    schedule = sf.paths.EDMPath().schedule
    grid = schedule.s(torch.linspace(0, 1, 18, dtype=torch.float64))
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    close(grid, torch.tensor(expected, dtype=torch.float64))
    edm = sf.paths.EDMSchedule()
    for each in (schedule, edm):
        t = torch.linspace(*each.interval, 9, dtype=torch.float64)[1:-1]
        close(each.time_of_log_snr(each.log_snr(t)), t)
        close(each.s_dot(t), each.variance_dot(t) / (2 * each.s(t)))


def test_float32_keeps_its_digits_near_the_data():
    """The distance to the data is computed in float64 time: 1 − t is not lost at t = 1 − 1e-9."""
    x, u = sf.paths.LinearPath().at(1 - 1e-9, torch.ones(1, 1), torch.zeros(1, 1))
    assert math.isclose(x.item(), 1e-9, rel_tol=1e-5) and u.item() == -1


def test_regular_times_avoid_infinite_slopes():
    assert PATHS["vp"].regular == (0.0, 0.999)
    assert PATHS["linear"].regular == PATHS["pair"].regular == (0.0, 1.0)
    for path in PATHS.values():
        x0, x1, noise = tensors(0, 3, 2, 2)
        for t in path.regular:
            assert path.at(t, noise, conditioning(path, x0, x1))[1].isfinite().all()


def test_base_deviation_scales_the_noise():
    """On a variance-exploding path the base point is 10 ε, not ε."""
    path = PATHS["ve"]
    x0, x1 = tensors(1, 2, 3, 2)
    noise, z = path.split(x0, x1, Draws(0))
    close(path.at(0.0, noise, z)[0], x1 + x0)
    close(path.base((2,)).stddev, torch.full((2,), float(path.schedule.s(0.0))), 1e-6)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: sf.paths.PairPath(-1.0), "σ ≥ 0"),
        (lambda: sf.paths.BridgePath(0.0), "PairPath"),
        (lambda: sf.paths.SchedulePath(sf.processes.VariancePreserving().schedule), "from data to noise"),
        (lambda: sf.paths.SchedulePath(sf.processes.VariancePreserving()), "SchedulePath.of"),
        (lambda: sf.paths.SchedulePath.of(sf.processes.GeometricBrownianMotion(0.1, 0.2)), "no schedule"),
        (lambda: GaussianPath(3, lambda t, z: t), "the mean is 3"),
        (lambda: GaussianPath().rates(0.5, torch.zeros(1, 1)), "has no mean"),
        (lambda: GaussianPath(given="triple"), "pair"),
        (lambda: sf.paths.EDMPath(1.0, 0.5), "sigma_min < sigma_max"),
        (lambda: sf.paths.KarrasSchedule(rho=0.5), "ρ ≥ 1"),
        (lambda: sf.paths.Window(sf.paths.EDMSchedule(), (0.0, 1.0)), "not within"),
        (lambda: sf.paths.LinearPath().marginal(1.0, torch.zeros(1, 1)), "σ = 0"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()
