"""Adaptive Runge–Kutta methods: accuracy for the tolerance, every sample on its own clock, and what happens when it fails."""

import math

import numpy as np
import pytest
import torch
import torchdiffeq
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.solvers.adaptive import TABLEAUS

FIXED = settings(derandomize=True, deadline=None, max_examples=25)
STEPPINGS = ["shared", "per-sample"]
DOUBLE = torch.float64


def linear(seed, dim):
    """dx/dt = A x + b cos t and its solution, by the matrix exponential of a system with cos and sin as unknowns."""
    generator = torch.Generator().manual_seed(seed)
    A, b = (torch.randn(*s, generator=generator, dtype=DOUBLE) for s in ((dim, dim), (dim,)))
    big = torch.zeros(dim + 2, dim + 2, dtype=DOUBLE)
    big[:dim, :dim], big[:dim, dim] = A, b
    big[dim, dim + 1], big[dim + 1, dim] = -1.0, 1.0

    def exact(x0, t):
        full = torch.cat([x0, x0.new_tensor([[1.0, 0.0]]).expand(len(x0), 2)], 1)
        return (full @ torch.linalg.matrix_exp(big * t).T)[:, :dim]

    return sf.ODE(lambda t, x: x @ A.T + b * torch.cos(t)), exact, generator


@FIXED
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 4), data=st.data())
@pytest.mark.parametrize("method", TABLEAUS)
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_the_error_follows_the_tolerance(method, stepping, seed, dim, data):
    """Within 200 times the tolerance (the systems amplify errors by up to e^{|A|}), at every save time."""
    ode, exact, generator = linear(seed, dim)
    x0 = torch.randn(5, dim, generator=generator, dtype=DOUBLE)
    inner = sorted(data.draw(st.sets(st.floats(0.01, 0.99), max_size=3)))
    for tolerance in (1e-4, 1e-7):
        sol = sf.solve(ode, x0, [0.0, *inner, 1.0], method=method, rtol=tolerance, stepping=stepping)
        size = max(1.0, torch.stack([exact(x0, t).abs().max() for t in (0.5, 1.0)]).max().item())
        for x, t in zip(sol.x, sol.t.tolist(), strict=True):
            assert (x - exact(x0, t)).abs().max() < 200 * tolerance * size


@pytest.mark.parametrize("method", TABLEAUS)
def test_the_order_shows_in_the_steps_it_takes(method):
    """Accepted steps grow as tolerance^(−1/order of the error estimate), to within a fifth in the exponent."""
    ode = sf.ODE(lambda t, x: torch.stack([x[:, 1], -torch.sin(x[:, 0])], 1), interval=(0.0, 20.0))
    x0 = torch.tensor([[1.5, 0.0]], dtype=DOUBLE)
    tolerances = [1e-6, 1e-8, 1e-10]
    counts = [sf.solve(ode, x0, method=method, rtol=t, max_steps=10**6).stats["accepted"] for t in tolerances]
    exponent = -np.polyfit(np.log(tolerances), np.log(counts), 1)[0]
    assert exponent == pytest.approx(1 / TABLEAUS[method].error_order, rel=0.2)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_decreasing_times_and_any_event_shape(stepping):
    ode = sf.ODE(lambda t, x: torch.cos(t) * x - x**3, interval=(0.5, 2.0))
    x0 = torch.rand(3, 2, 2, dtype=DOUBLE) + 0.1
    there = sf.solve(ode, x0, [0.5, 1.0, 2.0], rtol=1e-10, stepping=stepping)
    back = sf.solve(ode, there.final, [2.0, 1.0, 0.5], rtol=1e-10, stepping=stepping)
    assert torch.allclose(back.final, x0, atol=1e-7)
    assert torch.allclose(back.x[1], there.x[1], atol=1e-7)


@pytest.mark.parametrize("method", TABLEAUS)
@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_the_interval_is_never_left(method, stepping, dtype):
    """Increasing and decreasing, the times asked for by the first step's guess included; and they come as promised."""
    seen = []

    def velocity(t, x):
        seen.append(t)
        return torch.sin(20 * t) * x

    x0 = torch.linspace(0.1, 2, 6, dtype=dtype)[:, None].expand(6, 3)
    for t in ((0.2, 1.0), (1.0, 0.2), [0.2, 0.5, 0.7]):
        seen.clear()
        sf.solve(sf.ODE(velocity), x0, t, method=method, rtol=1e-3, stepping=stepping)
        low, high = min(t), max(t)
        assert all((low - 1e-12 <= s.double() + 1e-7 * (dtype is torch.float32)).all() for s in seen)
        assert all((s.double() - 1e-7 * (dtype is torch.float32) <= high + 1e-12).all() for s in seen)
        assert all(s.dtype is dtype and (s.ndim == 0 or s.shape[1:] == (1,)) for s in seen)


def test_a_singular_end_is_not_reached_by_rounding():
    """1/(1 − t) is finite at every time that is asked for before 1 − 1e-9, in float32 too."""
    ode = sf.ODE(lambda t, x: 0 * x + 1e-9 / (1 - t))
    sol = sf.solve(ode, torch.zeros(2, 1), (0.0, 1 - 1e-9), rtol=1e-3)
    assert sol.final.isfinite().all()


# --- every sample on its own clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", TABLEAUS)
def test_a_sample_does_not_depend_on_its_batch_mates(method):
    """On an elementwise velocity: bitwise in any order among any others; alone to the rounding of a batch of one, whose
    elementary functions are not vectorised."""
    ode = sf.ODE(lambda t, x: torch.sin(3 * t) - x * (1 + 5 * x**2), interval=(0.0, 3.0))
    x0 = torch.tensor([[0.1], [3.0], [-0.7], [10.0]], dtype=DOUBLE)
    together = sf.solve(ode, x0, [0.0, 1.3, 3.0], method=method, rtol=1e-6, stepping="per-sample")
    for others in ([3, 0, 2, 1], [3, 3, 2, 2], [0, 0, 0, 1]):
        again = sf.solve(ode, x0[others], [0.0, 1.3, 3.0], method=method, rtol=1e-6, stepping="per-sample")
        assert torch.equal(again.x, together.x[:, others])
        assert torch.equal(again.stats["nfe_drift"], together.stats["nfe_drift"][others])
    for i in range(4):
        alone = sf.solve(ode, x0[i : i + 1], [0.0, 1.3, 3.0], method=method, rtol=1e-6, stepping="per-sample")
        assert torch.allclose(alone.x[:, 0], together.x[:, i], rtol=1e-12, atol=1e-14)


def test_a_hard_sample_does_not_set_the_cost_of_the_others():
    """One sample of 64 oscillates a hundred times faster: the others take a tenth of the evaluations that sharing costs."""
    frequency = torch.ones(64, 1, dtype=DOUBLE)
    frequency[7] = 100.0
    x0 = torch.cat([torch.ones(64, 1, dtype=DOUBLE), torch.zeros(64, 1, dtype=DOUBLE), frequency], 1)

    def velocity(t, x):
        y, dy, w = x.unbind(1)
        return torch.stack([w * dy, -w * y, torch.zeros_like(w)], 1)

    ode = sf.ODE(velocity)
    own = sf.solve(ode, x0, rtol=1e-6, stepping="per-sample")
    shared = sf.solve(ode, x0, rtol=1e-6)
    exact = torch.cos(frequency[:, 0])
    for sol in (own, shared):
        assert (sol.final[:, 0] - exact).abs().max() < 1e-3
    evaluations = own.stats["nfe_drift"].double()
    assert evaluations.mean() * 10 <= shared.stats["nfe_drift"]
    assert evaluations[7] > 20 * evaluations[0]


@pytest.mark.parametrize("method", ["tsit5", "dopri5"])
def test_one_stiffer_sample_costs_a_tenth_of_what_it_costs_torchdiffeq(method):
    """256 linear samples, one a hundred times stiffer; evaluations summed over samples, at no larger an error of the worst."""
    rate = torch.ones(256, 1, dtype=DOUBLE)
    rate[5] = 100.0
    x0 = torch.cat([torch.ones_like(rate), rate], 1)

    def velocity(t, x):
        return torch.stack([-x[:, 1] * (x[:, 0] - torch.cos(t).flatten()), torch.zeros_like(x[:, 0])], 1)

    a = rate[:, 0]
    end = torch.tensor(10.0, dtype=DOUBLE)
    particular = a * (a * end.cos() + end.sin()) / (1 + a**2)
    exact = particular + (1 - a**2 / (1 + a**2)) * torch.exp(-a * end)
    calls = []
    theirs = torchdiffeq.odeint(
        lambda t, x: calls.append(1) or velocity(t, x),
        x0,
        torch.tensor([0.0, 10.0], dtype=DOUBLE),
        rtol=1e-6,
        atol=1e-6,
    )[-1]
    own = sf.solve(sf.ODE(velocity, interval=(0.0, 10.0)), x0, rtol=4e-6, method=method, stepping="per-sample")
    assert (own.final[:, 0] - exact).abs().max() <= (theirs[:, 0] - exact).abs().max()
    assert own.stats["nfe_drift"].sum() * 10 <= len(calls) * 256


def test_a_velocity_may_return_its_own_buffer_and_keep_what_it_is_given():
    """A compiled velocity returns the same memory each time: stages are copied. No state that it was given is written on."""
    buffer, seen = torch.empty(3, 1, dtype=DOUBLE), []

    def velocity(t, x):
        seen.append((x, x.clone()))
        return buffer.copy_(torch.sin(5 * t) * x)

    x0 = torch.tensor([[1.0], [2.0], [0.1]], dtype=DOUBLE)
    for stepping in STEPPINGS:
        for method in TABLEAUS:
            kept = sf.solve(sf.ODE(velocity), x0, [0.0, 0.3, 1.0], method=method, rtol=1e-6, stepping=stepping)
            free = sf.solve(
                sf.ODE(lambda t, x: torch.sin(5 * t) * x),
                x0,
                [0.0, 0.3, 1.0],
                method=method,
                rtol=1e-6,
                stepping=stepping,
            )
            assert torch.equal(kept.x, free.x)
    assert all(torch.equal(x, then) for x, then in seen)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", TABLEAUS)
def test_with_gradients_and_without_the_solution_is_one(method, stepping):
    """To rounding: the stages are combined by one product, or by sums that autograd follows; saves inside steps included."""
    ode = sf.ODE(lambda t, x: torch.sin(3 * t) - x**3, interval=(0.0, 3.0))
    x0 = torch.tensor([[0.1, 1.0], [3.0, -2.0]], dtype=DOUBLE)
    plain = sf.solve(ode, x0, [0.0, 1.3, 3.0], method=method, rtol=1e-6, stepping=stepping)
    followed = sf.solve(ode, x0.clone().requires_grad_(), [0.0, 1.3, 3.0], method=method, rtol=1e-6, stepping=stepping)
    assert followed.x.requires_grad and torch.allclose(plain.x, followed.x, rtol=1e-9, atol=1e-11)
    assert torch.equal(torch.as_tensor(plain.stats["nfe_drift"]), torch.as_tensor(followed.stats["nfe_drift"]))


def test_finished_samples_leave_the_batch():
    """The sizes of the batches that are evaluated shrink; data of its own for each row keeps a velocity whole, and right."""
    sizes = []

    def velocity(t, x):
        sizes.append(len(x))
        return torch.sin(x * 3)

    x0 = torch.logspace(-3, 1.5, 32, dtype=DOUBLE)[:, None]
    stiff = sf.ODE(lambda t, x: velocity(t, x) * x**2)
    sf.solve(stiff, x0, rtol=1e-8, stepping="per-sample")
    assert sizes[0] == 32 and sizes[-1] <= 8
    private = torch.linspace(1, 60, 32, dtype=DOUBLE)[:, None]
    sizes.clear()
    sol = sf.solve(
        sf.ODE(lambda t, x: sizes.append(len(x)) or torch.cos(private * t)), 0 * x0, rtol=1e-8, stepping="per-sample"
    )
    assert (sol.final - torch.sin(private) / private).abs().max() < 1e-6


def test_a_hidden_hard_sample_is_as_exact_as_alone():
    """One live row among 9,999 that rest."""
    x0 = torch.zeros(10_000, 2, dtype=DOUBLE)
    x0[123] = torch.tensor([1.0, 0.0])
    ode = sf.ODE(lambda t, x: 10 * torch.stack([x[:, 1], -x[:, 0]], 1))
    for stepping in STEPPINGS:
        error = sf.solve(ode, x0, rtol=1e-5, stepping=stepping).final[123] - torch.tensor([math.cos(10), -math.sin(10)])
        assert error.abs().max() < 1e-3


def test_the_mask_says_what_the_tolerance_speaks_about():
    """A violent second coordinate that does not count does not cost a step."""

    class Masked(sf.ODE):
        error_mask = torch.tensor([1.0, 0.0])

        def velocity(self, t, x):
            return torch.cat([-x[:, :1], 100 * torch.sin(300 * t) + 0 * x[:, 1:]], 1)

    x0 = torch.ones(2, 2, dtype=DOUBLE)
    for stepping in STEPPINGS:
        for process, times in ((Masked(), (0.0, 1.0)), (Masked().flip(), (0.0, 1.0))):
            sol = sf.solve(process, x0, times, rtol=1e-6, stepping=stepping)
            assert int(torch.as_tensor(sol.stats["accepted"]).max()) < 30


# --- gradients, jumps, failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", ["tsit5", "dopri8"])
def test_gradients_are_those_of_the_flow(stepping, method):
    """x' = θ x with saves inside: d x(t)/dθ = t x(t), d x(t)/d x0 = e^{θt}."""
    theta = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    x0 = torch.tensor([[1.0], [2.0]], dtype=DOUBLE, requires_grad=True)
    sol = sf.solve(sf.ODE(lambda t, x: theta * x), x0, [0.0, 0.4, 1.0], method=method, rtol=1e-9, stepping=stepping)
    (sol.x[1].sum() + 2 * sol.final.sum()).backward()
    expected = 3 * (0.4 * math.exp(0.28) + 2 * math.exp(0.7))
    assert theta.grad.item() == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(x0.grad, torch.full_like(x0, math.exp(0.28) + 2 * math.exp(0.7)), rtol=1e-6)
    assert not sf.solve(sf.ODE(lambda t, x: -x), torch.ones(1, 1), stepping=stepping).x.requires_grad


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", TABLEAUS)
def test_breakpoints_spare_the_rejections_of_a_jump(stepping, method):
    def velocity(t, x):
        return torch.where(t < 0.3, 1.0, -50.0) * torch.ones_like(x)

    x0 = torch.zeros(3, 1, dtype=DOUBLE)
    for times, value in (((0.0, 1.0), 0.3 - 50 * 0.7), ((1.0, 0.0), -0.3 + 50 * 0.7)):
        told = sf.solve(sf.ODE(velocity), x0, times, method=method, rtol=1e-7, breakpoints=[0.3], stepping=stepping)
        untold = sf.solve(sf.ODE(velocity), x0, times, method=method, rtol=1e-7, stepping=stepping)
        assert (told.final - value).abs().max() < 1e-9
        assert int(torch.as_tensor(told.stats["rejected"]).max()) == 0
        assert int(torch.as_tensor(untold.stats["rejected"]).min()) > 3


def test_a_blow_up_ends_only_the_sample_concerned():
    """x' = x² from 2 is infinite at .5; from .1 it goes on."""
    x0 = torch.tensor([[2.0], [0.1], [0.2]], dtype=DOUBLE)
    ode = sf.ODE(lambda t, x: x**2, interval=(0.0, 2.0))
    with pytest.raises(sf.SolveError, match=r"1 of 3 samples.* t = 0\.5") as caught:
        sf.solve(ode, x0, [0.0, 0.25, 2.0], rtol=1e-8, stepping="per-sample")
    partial = caught.value.solution
    assert partial.status.tolist()[1:] == [0, 0] and partial.status[0] in (2, 3)
    assert partial.x[1, 0].item() == pytest.approx(2 / (1 - 0.5), rel=1e-6)
    assert partial.x[2, 1].item() == pytest.approx(0.1 / 0.8, rel=1e-6)
    assert partial.stats["t_reached"][0].item() == pytest.approx(0.5, abs=1e-6)
    shared = sf.solve(ode, x0, [0.0, 0.25, 2.0], rtol=1e-8, on_failure="return")
    assert len(shared.x) == 2 and (shared.status != 0).all()


def test_a_velocity_that_is_nan_is_named():
    ode = sf.ODE(lambda t, x: torch.where(t > 0.4, float("nan"), 1.0) * x)
    with pytest.raises(sf.SolveError, match=r"NaN near t = 0\.4"):
        sf.solve(ode, torch.ones(2, 1, dtype=DOUBLE), rtol=1e-6, stepping="per-sample")
    sol = sf.solve(ode, torch.ones(2, 1, dtype=DOUBLE), rtol=1e-6, on_failure="return")
    assert (sol.status == sf.Status.NON_FINITE).all()


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_max_steps_keeps_what_was_reached(stepping):
    ode = sf.ODE(lambda t, x: torch.cos(200 * t) * x)
    sol = sf.solve(
        ode,
        torch.ones(2, 1, dtype=DOUBLE),
        [0.0, 0.01, 1.0],
        rtol=1e-9,
        max_steps=40,
        stepping=stepping,
        on_failure="return",
    )
    assert (sol.status == sf.Status.MAX_STEPS).all()
    assert sol.x[1].isfinite().all() and int(torch.as_tensor(sol.stats["accepted"]).max()) <= 40


def test_evaluations_are_counted_as_they_happen():
    calls = []
    ode = sf.ODE(lambda t, x: calls.append(len(x)) or -x * torch.cos(t))
    x0 = torch.rand(4, 2, dtype=DOUBLE)
    sol = sf.solve(ode, x0, rtol=1e-6, method="dopri5")
    assert sol.stats["nfe_drift"] == len(calls) == 2 + 6 * (sol.stats["accepted"] + sol.stats["rejected"])
    own = sf.solve(ode, x0, rtol=1e-6, method="dopri5", stepping="per-sample")
    assert (own.stats["nfe_drift"] == 2 + 6 * (own.stats["accepted"] + own.stats["rejected"])).all()


def test_methods_without_own_clocks_refuse():
    ode = sf.ODE(lambda t, x: -x)
    with pytest.raises(sf.MethodError, match="tsit5, dopri5, bosh3, dopri8"):
        sf.solve(ode, torch.ones(1, 1), rtol=1e-3, method="torchdiffeq:dopri5", stepping="per-sample")


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_the_time_of_a_failure_is_the_callers(stepping):
    """A blow-up on the way down from 2 is at 1.5, not at .5 of the clock that the solver runs on."""
    ode = sf.ODE(lambda t, x: -(x**2), interval=(0.0, 2.0))
    with pytest.raises(sf.SolveError, match=r"t = 1\.5") as caught:
        sf.solve(ode, torch.full((2, 1), 2.0, dtype=DOUBLE), (2.0, 0.0), rtol=1e-6, stepping=stepping)
    assert caught.value.solution.stats["t_reached"].max().item() == pytest.approx(1.5, abs=1e-4)


def test_a_sample_that_was_given_up_stays_given_up():
    """Also when others go on for long, and across breakpoints."""
    x0 = torch.linspace(0.0, 1.0, 10, dtype=DOUBLE)[:, None]
    calls = []

    def velocity(t, x):
        calls.append(len(x))
        bad = (x > 0.5) & (((t > 0.3) & (t < 0.45)) | (t > 0.9))
        return torch.where(bad, float("nan"), 0.05 * torch.cos(300 * t) + 0 * x)

    for breakpoints in (None, [0.5, 0.8]):
        sol = sf.solve(
            sf.ODE(velocity), x0, rtol=1e-6, stepping="per-sample", breakpoints=breakpoints, on_failure="return"
        )
        failed = sol.status != sf.Status.SUCCESS
        assert failed.tolist() == (x0[:, 0] > 0.5).tolist()
        assert (sol.stats["t_reached"][failed] - 0.3).abs().max() < 1e-6
        assert (sol.status[failed] == sf.Status.NON_FINITE).all()
        assert sol.x[-1][~failed].isfinite().all()


def test_evaluations_are_those_of_each_sample_when_the_batch_shrinks():
    """Summed over the batches that were really evaluated, samples that had arrived but were still along included."""
    sizes = []
    x0 = torch.logspace(-3, 1.5, 32, dtype=DOUBLE)[:, None]
    ode = sf.ODE(lambda t, x: sizes.append(len(x)) or torch.sin(x * 3) * x**2)
    sol = sf.solve(ode, x0, rtol=1e-8, stepping="per-sample")
    assert sol.stats["calls"] == len(sizes)
    assert sol.stats["nfe_drift"].max() <= len(sizes) and sol.stats["nfe_drift"].sum() <= sum(sizes)
    assert sol.stats["nfe_drift"].sum() > 0.7 * sum(sizes)
