"""A mixture along a Gaussian path: every closed form against autograd, quadrature, the schedule and samples."""

import math

import pytest
import torch

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.laws import GaussianMixture, posterior
from sdeflow.processes import CustomSchedule, LinearSchedule, convert

KINDS = ("isotropic", "diagonal", "full")
PROCESSES = {
    "vp": sf.processes.VariancePreserving(),
    "sub-vp": sf.processes.SubVariancePreserving(),
    "ve": sf.processes.VarianceExploding(0.1, 10.0),
    "cosine": sf.processes.CosineVariancePreserving(),
    "ou": sf.processes.OrnsteinUhlenbeck(0.7, 0.0, 1.3),
    "brownian": sf.processes.BrownianMotion(0.8, interval=(0.0, 2.0)),
    "linear": LinearSchedule(),
    "custom": CustomSchedule(lambda t: 1 - t**2, lambda t: t * (1 + t), interval=(0.0, 0.9)),
}
everywhere = pytest.mark.parametrize("name", PROCESSES)
each_kind = pytest.mark.parametrize("kind", KINDS)


def mixture(kind: str, event: tuple[int, ...] = (2,), seed: int = 0) -> GaussianMixture:
    draw = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(seed)}
    size = math.prod(event)
    means, covariances = torch.randn(3, *event, **draw), torch.rand(3, **draw) + 0.2
    if kind == "diagonal":
        covariances = torch.rand(3, size, **draw) + 0.2
    if kind == "full":
        factor = torch.randn(3, size, size, **draw)
        covariances = factor @ factor.mT + 0.3 * torch.eye(size, dtype=torch.float64)
    return GaussianMixture([1.0, 2.0, 0.5], 1.5 * means, covariances)


def states(*shape: int, seed: int = 1) -> torch.Tensor:
    return 1.5 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(value: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


def slope(function, x: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


@everywhere
@each_kind
def test_score_is_the_gradient_of_the_log_density(name, kind):
    truth = mixture(kind).along(PROCESSES[name])
    x = states(6, 2)
    for t in (0.05, 0.4, 0.85):
        close(truth.score(t, x), slope(lambda y, t=t: truth.log_prob(t, y), x))


@everywhere
@each_kind
def test_divergence_is_that_of_the_velocity(name, kind):
    truth = mixture(kind, (2, 2)).along(PROCESSES[name])
    x = states(5, 2, 2)
    t = torch.linspace(0.05, 0.85, 5, dtype=torch.float64)
    for time in (0.3, t):
        exact = sf.calculus.divergence(lambda y, time=time: truth.velocity(time, y), x)[1]
        assert truth.divergence(time, x).shape == (5,)
        close(truth.divergence(time, x), exact)


@everywhere
@each_kind
def test_the_flow_carries_the_density(name, kind):
    truth = mixture(kind).along(PROCESSES[name])
    residual = sf.continuity_residual(truth.velocity, truth.log_prob, 0.3, states(6, 2))
    assert residual.abs().max() < 1e-9
    wrong = sf.continuity_residual(lambda t, x: 1.1 * truth.velocity(t, x), truth.log_prob, 0.3, states(6, 2))
    assert wrong.abs().max() > 1e-3


@everywhere
def test_one_quantity_is_the_others_through_the_schedule(name):
    truth = mixture("full").along(PROCESSES[name])
    schedule, x = truth.schedule, states(6, 2)
    for time in (0.05, 0.4, 0.85):
        t = torch.tensor(time, dtype=torch.float64)
        data, noise = truth.denoiser(t, x), truth.noise(t, x)
        close(schedule.a(t) * data + schedule.s(t) * noise, x)
        close(truth.velocity(t, x), schedule.a_dot(t) * data + schedule.s_dot(t) * noise)
        for wanted in ("data", "noise", "velocity"):
            quantity = {"data": data, "noise": noise, "velocity": truth.velocity(t, x)}[wanted]
            close(convert(schedule, t, x, truth.score(t, x), given="score", wanted=wanted), quantity, 1e-9)


@pytest.mark.parametrize(("name", "time"), [("vp", 0.2), ("ve", 0.6), ("linear", 0.3), ("ou", 1.0)])
def test_the_denoiser_is_a_conditional_mean(name, time):
    law = GaussianMixture([1.0, 2.0], torch.tensor([[-1.5], [1.0]], dtype=torch.float64), [0.3, 0.6])
    truth = law.along(PROCESSES[name])
    t = torch.tensor(time, dtype=torch.float64)
    a, s = truth.schedule.a(t), truth.schedule.s(t)
    data = torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    x = states(7, 1)
    logits = law.log_prob(data[:, None]) - 0.5 * ((x - a * data) / s) ** 2
    weights = logits.softmax(1)
    mean = (weights * data).sum(1, keepdim=True)
    close(truth.denoiser(t, x), mean)
    close(truth.noise(t, x), (x - a * mean) / s)
    # d E[x_data | x]/dx = (a/s²) Var[x_data | x]
    variance = (weights * (data - mean).square()).sum(1, keepdim=True)
    close(slope(lambda y: truth.denoiser(t, y), x), a / s**2 * variance)


@each_kind
def test_both_ends_are_finite(kind):
    law, x = mixture(kind), states(5, 2)
    line = law.along(LinearSchedule())
    close(line.denoiser(0.0, x), law.mean.expand_as(x))
    close(line.velocity(0.0, x), law.mean - x)
    close(line.denoiser(1.0, x), x)
    close(line.velocity(1.0, x), x)
    close(line.divergence(1.0, x), torch.full((5,), 2.0, dtype=torch.float64))
    close(line.score(0.0, x), -x)
    for name in ("vp", "sub-vp", "ve", "cosine", "ou", "brownian"):
        truth = law.along(PROCESSES[name])
        start, end = PROCESSES[name].interval
        close(truth.log_prob(start, x), law.log_prob(x))
        close(truth.score(start, x), law.score(x))
        close(truth.denoiser(start, x), x)
        close(truth.noise(start, x), torch.zeros_like(x))
        for t in (start, end):
            for quantity in (truth.velocity, truth.divergence, truth.denoiser, truth.noise, truth.log_prob):
                assert quantity(t, x).isfinite().all()


def test_the_velocity_at_the_start_is_its_limit():
    """ṡ is infinite at s = 0 of the variance-preserving schedule; s ṡ is not."""
    truth, x = mixture("isotropic").along(PROCESSES["vp"]), states(5, 2)
    close(truth.velocity(0.0, x), truth.velocity(1e-9, x), 1e-6)
    close(truth.divergence(0.0, x), truth.divergence(1e-9, x), 1e-6)


QUANTITIES = ("log_prob", "score", "denoiser", "noise", "velocity", "divergence")


@each_kind
@pytest.mark.parametrize("event", [(3,), (2, 1, 2)])
def test_one_time_per_row_is_a_loop_over_rows(kind, event):
    truth = mixture(kind, event).along(PROCESSES["vp"])
    x = states(5, *event)
    t = torch.tensor([0.0, 0.1, 0.3, 0.7, 1.0], dtype=torch.float64)
    for name in QUANTITIES:
        quantity = getattr(truth, name)
        rows = torch.cat([quantity(t[i].item(), x[i : i + 1]) for i in range(5)])
        close(quantity(t, x), rows, 1e-12)
        close(quantity(t.reshape(-1, *[1] * len(event)), x), rows, 1e-12)
        close(quantity(t[2], x)[2], rows[2], 1e-12)


@each_kind
def test_chunks_change_nothing(kind, monkeypatch):
    truth, x = mixture(kind).along(PROCESSES["vp"]), states(11, 2)
    times = (0.3, torch.linspace(0, 1, 11, dtype=torch.float64))
    whole = [getattr(truth, name)(t, x) for name in QUANTITIES for t in times]
    monkeypatch.setattr(posterior, "CHUNK_ELEMENTS", 20)
    parts = [getattr(truth, name)(t, x) for name in QUANTITIES for t in times]
    for one, other in zip(parts, whole, strict=True):
        close(one, other, 1e-13)


@each_kind
@everywhere
def test_a_state_in_float32_loses_nothing(name, kind):
    truth, x = mixture(kind).along(PROCESSES[name]), states(20, 2).float()
    for quantity in (getattr(truth, q) for q in QUANTITIES):
        assert quantity(0.3, x).dtype is torch.float32
        assert torch.equal(quantity(0.3, x), quantity(0.3, x.double()).float())


def test_many_components_in_64_dimensions_far_into_the_tails():
    draw = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(2)}
    law = GaussianMixture(torch.rand(1500, **draw) + 0.1, torch.randn(1500, 64, **draw), torch.full((1500,), 0.01))
    truth = law.along(PROCESSES["vp"])
    direction = torch.randn(3, 64, **draw)
    for distance in (1.0, 1e3, 1e6):
        x = distance * direction
        for t in (0.0, 1e-6, 0.1, 1.0):
            a, v = (f(torch.tensor(t, dtype=torch.float64)) for f in (truth.schedule.a, truth.schedule.variance))
            width = a**2 * law.covariances + v
            apart = x[:, None] - a * law.means
            logits = law.weights.log() - 0.5 * apart.square().sum(-1) / width - 32 * (2 * math.pi * width).log()
            close(truth.log_prob(t, x) / distance**2, logits.logsumexp(1) / distance**2, 1e-11)
            pulled = -(logits.softmax(1)[:, :, None] * apart / width[:, None]).sum(1)
            close(truth.score(t, x) / distance, pulled / distance, 1e-9)
            assert truth.velocity(t, x.float()).isfinite().all()
            assert truth.divergence(t, x.float()).isfinite().all()


@each_kind
@everywhere
def test_the_law_at_one_time_is_a_distribution(name, kind):
    law = mixture(kind, (2, 2))
    truth, x = law.along(PROCESSES[name]), states(6, 2, 2)
    for t in (0.0, 0.4, 0.85):
        if name == "linear" and t == 0.0:
            continue  # a = 0: see test_both_ends_are_finite
        at = truth.at(t)
        close(at.log_prob(x), truth.log_prob(t, x))
        close(at.score(x), truth.score(t, x))
    t = torch.tensor(0.4, dtype=torch.float64)
    close(at_mean := truth.at(t).mean, truth.schedule.a(t) * law.mean)
    close(truth.at(t).variance, truth.schedule.a(t) ** 2 * law.variance + truth.schedule.variance(t))
    assert at_mean.shape == (2, 2)


def test_the_law_where_nothing_of_the_data_is_left_is_standard_normal():
    at = mixture("full").along(LinearSchedule()).at(0.0)
    x = states(5, 2)
    close(at.log_prob(x), -0.5 * x.square().sum(1) - math.log(2 * math.pi))


def test_the_law_at_one_time_keeps_the_dtype():
    law = GaussianMixture([1.0], torch.zeros(1, 2), [1.0])
    assert law.along(LinearSchedule()).at(0.3).sample((2,)).dtype is torch.float32


@each_kind
def test_third_derivatives_and_time_derivatives(kind):
    """The Fokker–Planck residual takes log p through autograd once in t and up to three times in x."""
    truth = mixture(kind, (1,)).along(PROCESSES["vp"])
    x = states(5, 1).requires_grad_()
    derivative, orders = truth.log_prob(0.3, x), []
    for _ in range(3):
        (derivative,) = torch.autograd.grad(derivative.sum(), x, create_graph=True)
        orders.append(derivative.detach())
    h = 1e-4
    second = [slope(lambda y: truth.score(0.3, y), x.detach() + d) for d in (h, -h)]
    close(orders[0], truth.score(0.3, x).detach())
    close(orders[2], (second[0] - second[1]) / (2 * h), 1e-5)
    for shape in ((), (5,), (5, 1)):
        t = torch.full(shape, 0.3, dtype=torch.float64, requires_grad=True)
        (rate,) = torch.autograd.grad(truth.log_prob(t, x).sum(), t)
        ahead, back = (truth.log_prob(0.3 + d, x).detach() for d in (h, -h))
        central = (ahead - back) / (2 * h)
        close(rate.sum(), central.sum(), 1e-5)
        if shape:
            close(rate.flatten(), central, 1e-5)


@pytest.mark.parametrize("name", ["vp", "ou", "linear"])
def test_sample_moments(name):
    """Six standard errors on 4 × 2 × 2 + 4 numbers a process: false alarms below 2e-7 in all."""
    law, n = mixture("full"), 40_000
    truth = law.along(PROCESSES[name])
    for t in (0.0, 0.1, 0.5, 0.9):
        x, at = truth.sample(t, n, seed=3), truth.at(t)
        error = x.std(0) / math.sqrt(n)
        assert ((x.mean(0) - at.mean).abs() < 6 * error).all()
        squares = (x - at.mean).square()
        assert ((squares.mean(0) - at.variance).abs() < 6 * squares.std(0) / math.sqrt(n)).all()
        score = truth.score(t, x)  # E[score · x] = −D: of the joint law, not of the coordinates alone
        products = (score * x).sum(1)
        assert abs(products.mean() + 2) < 6 * products.std() / math.sqrt(n)


def test_samples_and_seeds():
    law = mixture("isotropic", (2, 2))
    truth = law.along(PROCESSES["vp"])
    before = torch.get_rng_state()
    first = truth.sample(0.5, 6, seed=1)
    assert torch.equal(first, truth.sample(0.5, 6, seed=1))
    assert not torch.equal(first, truth.sample(0.5, 6, seed=2))
    assert torch.equal(torch.get_rng_state(), before)
    truth.sample(0.5, 6)
    assert not torch.equal(torch.get_rng_state(), before)
    close(truth.sample(0.0, 6, seed=1), law.draw(6, seed=1), 0.0)
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    rows = truth.sample(times, 6, seed=1)
    for i in range(6):
        close(rows[i], truth.sample(times[i].item(), 6, seed=1)[i], 1e-14)


def test_the_clock_is_that_of_the_process():
    law, sde, x = mixture("full"), PROCESSES["vp"], states(4, 2)
    truth = law.along(sde)
    flipped, backward = (sde.reverse(truth.score, clock=clock) for clock in ("flipped", "backward"))
    flow = sde.probability_flow(truth.score)
    close(law.along(flipped).log_prob(0.8, x), truth.log_prob(1 - 0.8, x))
    close(law.along(backward).log_prob(0.8, x), truth.log_prob(0.8, x))
    close(law.along(flow).velocity(0.8, x), flow.velocity(0.8, x))
    close(law.along(flipped).velocity(0.8, x), -truth.velocity(1 - 0.8, x))
    close(law.along(sde.schedule).score(0.3, x), truth.score(0.3, x))
    close(flipped.denoiser(0.8, x), law.along(flipped).denoiser(0.8, x))


@pytest.mark.parametrize(
    ("process", "name"),
    [
        (sf.processes.GeometricBrownianMotion(), "GeometricBrownianMotion"),
        (sf.processes.OrnsteinUhlenbeck(1.0, mean=2.0), "OrnsteinUhlenbeck"),
        (sf.SDE(lambda t, x: -x, lambda t, x: 1.0), "SDE"),
        (None, "NoneType"),
    ],
)
def test_a_process_without_a_schedule_is_refused(process, name):
    with pytest.raises(ArgumentError, match=rf"{name} has no schedule: .* Give a process that has one"):
        mixture("full").along(process)


def test_wrong_states_and_times_are_refused_in_a_sentence():
    truth = mixture("full").along(PROCESSES["vp"])
    with pytest.raises(
        ArgumentError, match=r"x has shape \(5, 3\); this law's events have shape \(2,\), so give \(B, 2\)"
    ):
        truth.score(0.5, torch.zeros(5, 3))
    with pytest.raises(ArgumentError, match=r"x has shape \(2,\)"):
        truth.log_prob(0.5, torch.zeros(2))
    with pytest.raises(ArgumentError, match=r"x is torch\.int64"):
        truth.velocity(0.5, torch.zeros(5, 2).long())
    with pytest.raises(ArgumentError, match=r"one time per row with shape \(5,\)"):
        truth.score(torch.zeros(4), torch.zeros(5, 2))
    with pytest.raises(ArgumentError, match=r"the time has shape \(4, 1\) for a state of shape \(5, 2\)"):
        truth.score(torch.zeros(4, 1), torch.zeros(5, 2))
    with pytest.raises(ArgumentError, match="one law has one time"):
        truth.at(torch.zeros(3))


@each_kind
@everywhere
def test_velocity_and_divergence_together_are_what_they_are_apart(kind, name):
    law = mixture(kind, (2, 2))
    truth, x = law.along(PROCESSES[name]), states(5, 2, 2)
    for t in (0.3, torch.linspace(0.1, 0.8, 5)):
        velocity, divergence = truth.velocity_and_divergence(t, x)
        assert torch.equal(velocity, truth.velocity(t, x)) and torch.equal(divergence, truth.divergence(t, x))
