"""Densities of flows against closed forms, and what their error bars promise."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

import sdeflow as sf
from sdeflow.calculus import divergence
from sdeflow.processes.schedules import LinearSchedule

DOUBLE = torch.float64


def mixture(dims=2, seed=0, components=3):
    generator = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(components, dims, generator=generator, dtype=DOUBLE)
    weights = torch.rand(components, generator=generator, dtype=DOUBLE) + 0.2
    variances = 0.1 + 0.3 * torch.rand(components, generator=generator, dtype=DOUBLE)
    return sf.laws.GaussianMixture(weights, means, variances)


def points(law, n=40, sigmas=8.0):
    """Samples of the law, and points at 8 standard deviations from each component, away from the centre."""
    torch.manual_seed(1)
    directions = law.means - law.mean
    directions = directions / directions.norm(dim=1, keepdim=True)
    tails = law.means + sigmas * law.covariances.sqrt()[:, None] * directions
    return torch.cat([law.sample((n,)), tails])


def flow_of(process, law, **options):
    truth = law.along(process)
    ode = sf.ODE(truth.velocity, interval=process.interval)
    end = process.interval[1]
    return sf.Flow(ode, truth.at(end), "end", **options)


PROCESSES = {
    "vp": sf.processes.VariancePreserving(),
    "ve": sf.processes.VarianceExploding(),
    "sub-vp": sf.processes.SubVariancePreserving(),
    "ou": sf.processes.OrnsteinUhlenbeck(1.0, 0.0, 1.0, interval=(0.0, 3.0)),
}


def all_around(law, n=200, sigmas=8.0, directions=8):
    """n samples of the law, and from each component points at 8 standard deviations in 8 random directions."""
    torch.manual_seed(1)
    turns = torch.randn(len(law.means), directions, law.means.shape[1], dtype=DOUBLE)
    turns = turns / turns.norm(dim=2, keepdim=True)
    tails = law.means[:, None] + sigmas * law.covariances.sqrt()[:, None, None] * turns
    return torch.cat([law.sample((n,)), tails.flatten(0, 1)])


@pytest.mark.parametrize("name", PROCESSES)
def test_exact_log_prob_in_the_bulk_and_at_eight_standard_deviations(name):
    """At 200 points of the bulk and 27 of the tails; the largest error found is 1.1e-8, in the tails of VE."""
    process, law = PROCESSES[name], mixture()
    x = torch.cat([all_around(law), points(law, 0)])
    truth = law.along(process)
    ode = process.probability_flow(truth.score)
    flow = sf.Flow(ode, truth.at(process.interval[1]), "end", rtol=1e-9, atol=1e-9)
    assert (flow.log_prob(x) - law.log_prob(x)).abs().max() < 1e-6


def test_exact_log_prob_on_the_linear_schedule():
    """Flow matching's straight line, base at the start: N(0, I) is exact there."""
    law = mixture()
    x = torch.cat([all_around(law), points(law, 0)])
    truth = law.along(LinearSchedule())
    base = Independent(Normal(torch.zeros(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)), 1)
    flow = sf.Flow(sf.ODE(truth.velocity), base, rtol=1e-9, atol=1e-9)
    assert (flow.log_prob(x) - law.log_prob(x)).abs().max() < 1e-6
    closed = sf.Flow(sf.ODE(truth.velocity), base, divergence=truth.divergence, rtol=1e-9, atol=1e-9)
    assert (closed.log_prob(x) - law.log_prob(x)).abs().max() < 1e-6


def test_the_prior_in_place_of_the_law_at_the_end_is_off():
    """The stated wrong version: N(0, I) is not p_T at T = 1 of a slow process."""
    process, law = sf.processes.OrnsteinUhlenbeck(1.0, 0.0, 2**0.5), mixture()
    truth = law.along(process)
    ode = process.probability_flow(truth.score)
    x = points(law)
    wrong = sf.Flow(ode, process.prior((2,)), "end", rtol=1e-7, atol=1e-7).log_prob(x)
    assert (wrong - law.log_prob(x)).abs().max() > 0.1


def test_image_events_and_batch_shapes():
    """An affine flow of (2, 2) events, x = e·z, with leading sample and batch axes."""
    base = Independent(
        Normal(torch.zeros(3, 2, 2, dtype=DOUBLE), torch.tensor([1.0, 2.0, 3.0]).double()[:, None, None]), 2
    )
    flow = sf.Flow(sf.ODE(lambda t, x: x), base, rtol=1e-9, atol=1e-9)
    assert flow.batch_shape == (3,) and flow.event_shape == (2, 2)
    x = flow.sample((5,))
    assert x.shape == (5, 3, 2, 2)
    assert flow.log_prob(x).shape == (5, 3)
    assert torch.allclose(flow.log_prob(x), base.log_prob(x / math.e) - 4, atol=1e-7)
    assert torch.allclose(flow.encode(flow.decode(x)), x, atol=1e-7)
    single = Independent(Normal(torch.zeros(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)), 1)
    wide = sf.Flow(sf.ODE(lambda t, x: x), single).expand((4,))
    assert wide.batch_shape == (4,) and wide.sample((2,)).shape == (2, 4, 2)


def test_it_is_a_torch_distribution():
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    flow = sf.Flow(sf.ODE(lambda t, x: -x), base)
    assert isinstance(flow, torch.distributions.Distribution)
    assert flow.has_rsample and flow.support.event_dim == 1
    assert flow.support.check(torch.zeros(3, 2)).all()
    torch.manual_seed(0)
    a = flow.sample((3,))
    torch.manual_seed(0)
    assert torch.equal(flow.sample((3,)), a) and not a.requires_grad


def test_maximum_likelihood_gradients_are_those_of_the_closed_form():
    """x = e^θ z: log p(x) = log N(e^{−θ} x) − Dθ, its derivative e^{−2θ}|x|² − D; rsample likewise."""
    theta = torch.nn.Parameter(torch.tensor(0.3, dtype=DOUBLE))
    base = Independent(Normal(torch.zeros(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)), 1)

    class Scale(sf.ODE):
        def __init__(self):
            super().__init__()
            self.theta = theta

        def velocity(self, t, x):
            return self.theta * x

    x = torch.tensor([[1.0, -2.0]], dtype=DOUBLE)
    for options in ({"rtol": 1e-8}, {"steps": 40}, {"rtol": 1e-8, "gradient": "adjoint"}):
        theta.grad = None
        sf.Flow(Scale(), base, **options).log_prob(x).sum().backward()
        assert theta.grad.item() == pytest.approx(math.exp(-0.6) * 5 - 2, rel=1e-5)
    theta.grad = None
    torch.manual_seed(0)
    y = sf.Flow(Scale(), base, rtol=1e-8).rsample((6,))
    y.sum().backward()
    assert theta.grad.item() == pytest.approx(y.sum().item(), rel=1e-5)


# --- Hutchinson ------------------------------------------------------------------------------------------------------


def hutchinson_flow(law, probes, tolerance=1e-4, **options):
    process = sf.processes.VariancePreserving()
    return flow_of(process, law, divergence="hutchinson", probes=probes, rtol=tolerance, **options)


def test_the_interval_of_256_probes_covers_what_it_says():
    """8-D, 1,000 points: the 95 % interval covers 92–98 %, and 5 standard errors + solver error 99.7 %.

    With a true coverage of 95 % the count of 1,000 has sd 6.9, so 92–98 % is more than 4.3 of them either way (1e-5); seeds
    are fixed.
    """
    law = mixture(dims=8)
    torch.manual_seed(2)
    x = law.sample((1000,))
    estimate = hutchinson_flow(law, 256, seed=3, tolerance=1e-5).log_prob_with_error(x)
    # The probes, not the solver, are what is tested: its error is 0.2 % of theirs, and no part of the 95 % interval
    assert estimate.solver_error.median() < 0.02 * estimate.stderr.median()
    error = (estimate.value - law.log_prob(x)).abs()
    covered = (error <= 1.96 * estimate.stderr).double().mean().item()
    assert 0.92 <= covered <= 0.98
    assert (error <= 5 * estimate.stderr + estimate.solver_error).double().mean() >= 0.997


@pytest.mark.parametrize("probe_law", ["rademacher", "gaussian"])
def test_the_squared_standard_error_is_the_variance_over_probe_sets(probe_law):
    """K = 16, 200 probe sets at each of 100 points, all in one batch since probes are keyed by row.

    The points differ a hundredfold in variance, so the ratio is taken point by point: it has a relative standard error of
    sqrt(2/199), over 100 points 1 %, so 5 % is five of them (1e-6 for both laws of probes); E[1/s²] is 199/197 of 1/σ².
    """
    law, sets = mixture(dims=8), 200
    torch.manual_seed(4)
    x = law.sample((100,))
    flow = hutchinson_flow(law, 16, seed=5, probe_law=probe_law, tolerance=1e-2)
    estimate = flow.log_prob_with_error(x.repeat(sets, 1))
    values = estimate.value.reshape(sets, 100)
    ratio = estimate.stderr.square().reshape(sets, 100).mean(0) / values.var(0) * (sets - 3) / (sets - 1)
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.05)
    # unbiased, at the tolerance of the exact divergence
    exact = sf.Flow(flow.ode, flow.base, "end", rtol=1e-5).log_prob(x)
    assert ((values.mean(0) - exact).abs() < 6 * (values.std(0) / sets**0.5) + 0.05).all()


def test_probes_belong_to_rows_and_to_numbers():
    """The first rows of a batch, and the first probes of a set, are the same in a larger one."""
    from sdeflow.likelihood.augmented import draw_probes

    x = torch.zeros(7, 3, 2)
    for kind in ("rademacher", "gaussian"):
        probes = draw_probes(kind, 5, x, 9)
        assert torch.equal(draw_probes(kind, 3, x[:4], 9), probes[:3, :4])
        assert not torch.equal(probes[0], probes[1]) and not torch.equal(probes[:, 0], probes[:, 1])
    assert torch.equal(draw_probes("rademacher", 2, x, 0).abs(), torch.ones(2, 7, 3, 2))


def test_the_trajectory_does_not_depend_on_the_probes():
    """Latents and evaluations are the same for any probes, and for none, at a loose tolerance."""
    law = mixture(dims=8)
    x = law.means
    process = sf.processes.VariancePreserving()
    runs = [
        flow_of(process, law, divergence="hutchinson", probes=k, seed=s, rtol=1e-3).log_prob_with_error(x)
        for k, s in ((1, 0), (1, 1), (64, 2))
    ]
    for run in runs[1:]:
        assert torch.equal(run.latent, runs[0].latent)
        assert torch.equal(run.stats["nfe_drift"], runs[0].stats["nfe_drift"])
    counts = [
        flow_of(process, law, divergence=kind, seed=0, rtol=1e-5).log_prob_with_error(x).stats["nfe_drift"]
        for kind in ("exact", "hutchinson")
    ]
    assert (counts[0] > counts[1]).all()  # an exact log p is in the norm


def test_rademacher_probes_have_no_variance_on_a_diagonal_jacobian():
    base = Independent(Normal(torch.zeros(5, dtype=DOUBLE), torch.ones(5, dtype=DOUBLE)), 1)
    x = torch.ones(2, 5, dtype=DOUBLE)
    ode = sf.ODE(lambda t, x: torch.sin(x))
    exact = sf.Flow(ode, base, steps=20).log_prob(x)
    rademacher = sf.Flow(ode, base, divergence="hutchinson", probes=2, steps=20, seed=0).log_prob_with_error(x)
    assert torch.allclose(rademacher.stderr, torch.zeros(2, dtype=DOUBLE), atol=1e-12)
    gaussian = sf.Flow(ode, base, divergence="hutchinson", probe_law="gaussian", steps=20, seed=0).log_prob(x)
    assert torch.allclose(sf.Flow(ode, base, divergence="hutchinson", steps=20, seed=0).log_prob(x), exact)
    assert not torch.allclose(gaussian, exact, atol=1e-3)


def test_one_probe_has_an_unknown_standard_error():
    law = mixture(dims=8)
    assert hutchinson_flow(law, 1, seed=0).log_prob_with_error(law.means).stderr.isinf().all()


# --- the solver's error ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "idle"),
    [({"rtol": 1e-3}, 50), ({"rtol": 1e-5, "atol": 1e-6}, 50), ({"steps": 40, "method": "rk4"}, 200)],
)
def test_the_solver_error_covers_the_true_error(options, idle):
    """Tails included: at 95 % of the points at least, and the bars are not idle (median bound/error below 50).

    Halving the step of RK4 divides its error by 16 or more, so there the bar is at least 30 times the error.
    """
    law = mixture()
    process = sf.processes.VariancePreserving(interval=(1e-3, 1.0))
    truth = law.along(process)
    x = torch.cat([points(law, 300), points(law, 0, 4.0), points(law, 0, 6.0)])
    flow = sf.Flow(process.probability_flow(truth.score), truth.at(1.0), "end", divergence=truth.divergence, **options)
    estimate = flow.log_prob_with_error(x)
    error = (estimate.value - truth.log_prob(1e-3, x)).abs()
    assert (error <= estimate.solver_error).double().mean() >= 0.95
    assert (estimate.solver_error / error).median() < idle
    assert (estimate.stderr == 0).all()
    assert torch.allclose(estimate.latent, flow.encode(x), atol=0.05)


def test_the_value_is_from_the_finer_solve():
    law = mixture()
    flow = flow_of(sf.processes.VariancePreserving(), law, rtol=1e-3)
    fine = flow_of(sf.processes.VariancePreserving(), law, rtol=1e-4)
    assert torch.equal(flow.log_prob_with_error(law.means).value, fine.log_prob(law.means))
    assert flow.log_prob_with_error(law.means).value.ne(flow.log_prob(law.means)).any()


def test_a_closed_form_divergence_is_what_autodiff_finds():
    law = mixture(dims=3)
    truth = law.along(sf.processes.VariancePreserving())
    x = law.sample((5,))
    _, trace = divergence(lambda y: truth.velocity(0.4, y), x)
    assert torch.allclose(truth.divergence(0.4, x), trace, rtol=1e-9)


def test_bits_per_dim():
    zero = torch.zeros(3)
    assert torch.allclose(sf.bits_per_dim(zero, 3072, 256, (-1.0, 1.0)), torch.full((3,), 7.0))
    assert torch.allclose(sf.bits_per_dim(zero, 3072, 256, (0.0, 1.0)), torch.full((3,), 8.0))
    assert torch.allclose(sf.bits_per_dim(zero, 64, 17, 17 / 16), torch.full((3,), 4.0))
    # uniform data on [0, 17) cost log2 17 bits each, whatever the scale
    uniform = torch.tensor(-64 * math.log(17.0))
    assert sf.bits_per_dim(uniform, 64, 17, (0.0, 17.0)).item() == pytest.approx(math.log2(17), rel=1e-6)


@pytest.mark.parametrize("options", [{"divergence": "exact"}, {"divergence": "hutchinson", "probes": 4, "seed": 1}])
def test_the_likelihood_of_a_sample_does_not_depend_on_its_batch_mates(options):
    """A hard mate, at ten standard deviations, changes neither log p nor the work; probes are keyed by row."""
    law = mixture()
    x = points(law, 6, 0.5)
    flow = flow_of(sf.processes.VariancePreserving(), law, rtol=1e-4, **options)
    among_others = flow.log_prob_with_error(torch.cat([x, points(law, 0, 10.0)]))
    alone = flow.log_prob_with_error(x)
    assert torch.allclose(among_others.value[: len(x)], alone.value, rtol=1e-10)
    assert torch.equal(among_others.stats["nfe_drift"][: len(x)], alone.stats["nfe_drift"])


@pytest.mark.parametrize("turn", (1, -1))
@pytest.mark.parametrize("base_at", ("start", "end"))
def test_a_grid_is_turned_to_the_direction_of_each_solve(base_at, turn):
    """On dx/dt = x the grid of 40 equal steps is steps=40, whichever way it is written down."""
    base = Independent(Normal(torch.zeros(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)), 1)
    grid = torch.linspace(0, 1, 41, dtype=DOUBLE)[::turn] if turn > 0 else torch.linspace(1, 0, 41, dtype=DOUBLE)
    x = torch.randn(5, 2, dtype=DOUBLE)
    ode = sf.ODE(lambda t, x: x)
    expected = sf.Flow(ode, base, base_at, steps=40)
    for steps in (grid, grid.tolist(), grid.numpy()):
        flow = sf.Flow(ode, base, base_at, steps=steps)
        for name in ("encode", "decode", "log_prob"):
            assert torch.allclose(getattr(flow, name)(x), getattr(expected, name)(x), rtol=1e-12)
        assert flow.sample((3,)).shape == (3, 2)
        assert flow.log_prob_with_error(x).solver_error.max() < 1e-6


@pytest.mark.parametrize("probes", (1, 4))
def test_the_errors_have_the_shape_of_the_value(probes):
    means = torch.tensor([0.0, 1.0, 2.0], dtype=DOUBLE)[:, None].expand(3, 2)
    base = Independent(Normal(means, torch.ones(3, 2, dtype=DOUBLE)), 1)
    flow = sf.Flow(sf.ODE(lambda t, x: x), base, divergence="hutchinson", probes=probes, seed=0)
    estimate = flow.log_prob_with_error(torch.zeros(2, dtype=DOUBLE))
    assert estimate.value.shape == estimate.stderr.shape == estimate.solver_error.shape == (3,)


@pytest.mark.parametrize("options", ({}, {"divergence": "hutchinson", "probes": 3}), ids=str)
def test_no_samples_have_no_densities(options):
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    flow = sf.Flow(sf.ODE(lambda t, x: x), base, **options)
    assert flow.sample((0,)).shape == flow.rsample((4, 0)).shape[1:] == (0, 2)
    x = torch.zeros(4, 0, 2)
    assert flow.log_prob(x).shape == (4, 0) and flow.encode(x).shape == (4, 0, 2)
    estimate = flow.log_prob_with_error(x)
    assert estimate.value.shape == estimate.stderr.shape == estimate.solver_error.shape == (4, 0)


def test_a_flow_prints_what_it_is_made_of():
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    text = repr(sf.Flow(sf.ODE(lambda t, x: x), base, divergence="hutchinson", probes=3, rtol=1e-4))
    for word in ("ODE", "(0.0, 1.0)", "Normal", "base_at='start'", "'hutchinson'", "probes=3", "rtol=0.0001"):
        assert word in text
    assert "probes" not in repr(sf.Flow(sf.ODE(lambda t, x: x), base))


def test_a_velocity_that_decides_by_the_time_works_on_a_shared_clock():
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    by_the_clock = sf.ODE(lambda t, x: x if t < 0.5 else -x)
    flow = sf.Flow(by_the_clock, base, stepping="shared", breakpoints=[0.5])
    x = torch.ones(1, 2)
    assert torch.allclose(flow.decode(x), x, atol=1e-4)


@pytest.mark.parametrize(
    "method", ["tsit5", "torchdiffeq:dopri5"]
)  # the one flips its times at once, the other each field
@pytest.mark.parametrize("base_at", ["start", "end"])
def test_a_formula_may_return_the_velocity_with_the_divergence(base_at, method):
    """Then the velocity itself is not asked, on either clock."""
    base = Independent(Normal(torch.zeros(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)), 1)
    calls = []

    def velocity(t, x):
        calls.append(0)
        return (1 + t) * torch.sin(x)

    def divergence_alone(t, x):
        return ((1 + t) * torch.cos(x)).sum(1)

    x = torch.linspace(-1, 1, 6, dtype=DOUBLE).reshape(3, 2)
    flows = {
        name: sf.Flow(sf.ODE(velocity), base, base_at, divergence=formula, rtol=1e-9, stepping="shared", method=method)
        for name, formula in {
            "exact": "exact",
            "alone": divergence_alone,
            "both": lambda t, x: ((1 + t) * torch.sin(x), divergence_alone(t, x)),
        }.items()
    }
    values, counts = {}, {}
    for name, flow in flows.items():
        calls.clear()
        values[name] = flow.log_prob(x)
        counts[name] = len(calls)
    assert torch.allclose(values["alone"], values["exact"], rtol=1e-7)
    assert torch.allclose(values["both"], values["alone"], rtol=1e-12)
    assert counts["both"] < 0.75 * counts["alone"]
    wrong = sf.Flow(sf.ODE(velocity), base, divergence=lambda t, x: (x[:, 0], divergence_alone(t, x)))
    with pytest.raises(sf.errors.ArgumentError, match="velocity returned"):
        wrong.log_prob(x)


def test_an_exact_divergence_is_evaluated_three_times_a_step():
    """And not at each of the six stages of tsit5: backward passes are what an exact log p costs."""
    base = Independent(Normal(torch.zeros(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)), 1)
    followed = []

    def velocity(t, x):
        followed.append(x.requires_grad)
        return torch.sin(3 * x) + t

    flow = sf.Flow(sf.ODE(velocity), base, stepping="shared", rtol=1e-6)
    with torch.no_grad():
        stats = flow.log_prob_with_error(torch.zeros(4, 2, dtype=DOUBLE)).stats
        followed.clear()
        flow.log_prob(torch.zeros(4, 2, dtype=DOUBLE))
    assert stats["accepted"] >= 5
    assert (sum(followed) - 1) % 3 == 0 and len(followed) - 2 == 8 * (sum(followed) - 1) // 3
