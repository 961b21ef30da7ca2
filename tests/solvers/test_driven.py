"""Adaptive steps for SDEs: the law is that of the process at every tolerance, and a tolerance means what the docs say."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.brownian import BrownianPath
from sdeflow.errors import MethodError, SolveError
from sdeflow.solvers import Status
from tests.stats import standard_errors

torch.set_num_threads(1)
ADAPTIVE = [m.name for m in sf.methods() if m.engine == "native" and m.adaptive]
seeded = settings(derandomize=True, deadline=None, max_examples=25)


def heisenberg():
    """dX = (dW₁, dW₂, X₁ dW₂): the noise does not commute; E X₁² = t, E X₃² = t²/2."""

    def diffusion(t, x):
        zero, one = torch.zeros_like(x[:, 0]), torch.ones_like(x[:, 0])
        rows = [torch.stack(row, -1) for row in ((one, zero), (zero, one), (zero, x[:, 0]))]
        return torch.stack(rows, 1)

    return sf.SDE(lambda t, x: torch.zeros_like(x), diffusion, noise="general", calculus="stratonovich")


class Forgetful(BrownianPath):
    """The stated wrong version: after a rejection the noise is drawn anew."""

    queries = 0

    def _fresh(self, h, like):
        self.queries += 1
        generator = torch.Generator().manual_seed(self.queries)
        return torch.as_tensor(h).reshape(-1, *[1] * (len(self.shape) - 1)) ** 0.5 * torch.randn(
            self.shape, generator=generator, dtype=self.dtype
        )

    def __call__(self, s, t):
        return self._fresh(t - s, None)

    def levy(self, s, t):
        return self._fresh(t - s, None), self._fresh((t - s) / 12, None)


def path(kind, rows, noise=2, **options):
    return kind((rows, noise), 0.0, 1.0, seed=5, levy="space-time", dtype=torch.float64, **options)


# X₁ and X₃ feel the error of X₃ only through the steps; so the first must be right whatever the tolerance.
@pytest.mark.parametrize("method", ["heun", "midpoint", "spark", "general-shark"])
@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
def test_the_law_does_not_depend_on_the_tolerance(method, stepping):
    """E X₁² = 1 within 5 standard errors at five tolerances: false alarms 6e-7 each, and all share one path."""
    rows = 1000 if stepping == "per-sample" else 4000
    for tolerance in (1.0, 0.3, 0.1, 0.03, 0.01):
        start = torch.zeros(rows, 3, dtype=torch.float64)
        driver = path(BrownianPath, rows)
        x = sf.solve(
            heisenberg(), start, rtol=0.0, atol=tolerance, method=method, stepping=stepping, brownian=driver
        ).final
        assert standard_errors(x[:, :1].square(), 1.0) < 5
        torch.testing.assert_close(x[:, :2], driver(0.0, 1.0), rtol=0, atol=1e-12)


def test_redrawing_after_a_rejection_would_be_noticed():
    """The stated wrong version loses variance: the paths that are rejected are the lively ones."""
    start = torch.zeros(4000, 3, dtype=torch.float64)
    driver = path(Forgetful, 4000)
    options = {
        "rtol": 0.0,
        "atol": 0.1,
        "first_step": 0.5,
        "stepping": "per-sample",
        "method": "heun",
        "brownian": driver,
    }
    solution = sf.solve(heisenberg(), start, **options)
    assert solution.stats["rejected"].sum() > 0
    assert standard_errors(solution.final[:, :1].square(), 1.0) > 5
    assert 0.5 < float(solution.final[:, 0].square().mean()) < 0.92


@pytest.mark.parametrize(("stepping", "rows", "tolerance"), [("shared", 20_000, 0.04), ("per-sample", 4000, 0.01)])
def test_the_levy_area_is_right_where_halving_the_tolerance_changes_nothing(stepping, rows, tolerance):
    """E X₃² = 1/2 within 5 standard errors, at a tolerance whose half moves the answer by less than one of them."""
    answers = []
    for atol in (tolerance, tolerance / 2):
        start, driver = torch.zeros(rows, 3, dtype=torch.float64), path(BrownianPath, rows)
        x = sf.solve(heisenberg(), start, rtol=0.0, atol=atol, method="spark", stepping=stepping, brownian=driver).final
        answers.append(x[:, 2:].square())
    error = float(answers[0].std() / rows**0.5)
    assert abs(float(answers[0].mean() - answers[1].mean())) < error
    assert standard_errors(answers[0], 0.5) < 5


def problems():
    """(process, exact solution from the path) for each class of noise, on the unit interval."""
    one = torch.ones(64, 2, dtype=torch.float64)
    gbm = sf.processes.GeometricBrownianMotion(0.5, 0.8)
    sech = sf.SDE(lambda t, x: 0.0 * x, lambda t, x: 1 / torch.cosh(x), calculus="stratonovich")
    additive = sf.SDE(
        lambda t, x: 2 / (1 + t).sqrt() - x / (2 * (1 + t)), lambda t, x: 0.4 / (1 + t).sqrt(), additive=True
    )
    return {
        "gbm": (gbm, one, lambda W: torch.exp(0.5 - 0.32 + 0.8 * W)),
        "sech": (sech, one, lambda W: torch.asinh(math.sinh(1) + W)),
        "additive": (additive, one, lambda W: (1 + 2 * (1 + 0.2 * W)) / math.sqrt(2)),
    }


FITS = {"sriw1": "gbm", "sosri": "gbm", "sra1": "additive", "sosra": "additive", "shark": "additive"}
CASES = [(name, FITS.get(name, "sech")) for name in ADAPTIVE]


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
@pytest.mark.parametrize(("method", "problem"), CASES)
def test_the_global_error_follows_the_tolerance(method, problem, stepping):
    """Root-mean-square errors at two tolerances: each within what the docs promise, and falling with the tolerance."""
    process, x0, exact = problems()[problem]
    driver = path(BrownianPath, 64)
    errors = []
    for tolerance in (1e-2, 1e-3):
        sol = sf.solve(process, x0, rtol=tolerance, method=method, stepping=stepping, brownian=driver)
        errors.append(float((sol.final - exact(driver(0.0, 1.0))).square().mean().sqrt()))
        assert errors[-1] < 5 * tolerance
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("method", ["sriw1", "heun"])
def test_a_sample_does_not_depend_on_its_batch_mates(method):
    sde = problems()["gbm" if method == "sriw1" else "sech"][0]
    x0 = torch.linspace(0.5, 3, 7, dtype=torch.float64)[:, None].expand(7, 2)
    options = {"rtol": 1e-3, "method": method, "stepping": "per-sample"}
    together = sf.solve(sde, x0, brownian=path(BrownianPath, 7), **options)
    for row in (0, 4):
        alone = sf.solve(sde, x0[row : row + 2], brownian=path(BrownianPath, 2, first_row=row), **options)
        assert torch.equal(alone.final, together.final[row : row + 2])
        assert torch.equal(alone.stats["accepted"], together.stats["accepted"][row : row + 2])


@seeded
@given(
    times=st.lists(st.floats(0.01, 0.99), max_size=4, unique=True), stepping=st.sampled_from(["shared", "per-sample"])
)
def test_save_times_are_ends_of_steps(times, stepping):
    """What is saved at a time is what a solve to that time ends with, for noise whose steps do not matter."""
    brownian = sf.processes.BrownianMotion(1.0)
    driver = path(BrownianPath, 3)
    t = [0.0, *sorted(times), 1.0]
    sol = sf.solve(
        brownian,
        torch.zeros(3, 2, dtype=torch.float64),
        t,
        rtol=1e-2,
        method="shark",
        stepping=stepping,
        brownian=driver,
    )
    for time, x in zip(t, sol.x, strict=True):
        torch.testing.assert_close(x, driver(0.0, time), rtol=0, atol=1e-9)


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
def test_a_jump_in_time_is_a_breakpoint(stepping):
    """Diffusion .1 before .3 and 1 after: with the breakpoint the answer is exact, since each side is constant."""
    sde = sf.SDE(lambda t, x: 0 * x, lambda t, x: 0.1 + 0.9 * (t >= 0.3).to(x), additive=True)
    driver, x0 = path(BrownianPath, 5), torch.zeros(5, 2, dtype=torch.float64)
    sol = sf.solve(sde, x0, rtol=1e-2, method="sosra", stepping=stepping, brownian=driver, breakpoints=[0.3])
    torch.testing.assert_close(sol.final, 0.1 * driver(0.0, 0.3) + driver(0.3, 1.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
def test_gradients_go_through_the_steps(stepping):
    """d x(1) / d x(0) of geometric Brownian motion is x(1) / x(0): the factor is the solver's own, to rounding."""
    gbm = problems()["gbm"][0]
    x0 = torch.ones(5, 2, dtype=torch.float64, requires_grad=True)
    sol = sf.solve(gbm, x0, rtol=1e-2, method="sriw1", stepping=stepping, seed=0)
    (gradient,) = torch.autograd.grad(sol.final.sum(), x0)
    torch.testing.assert_close(gradient, sol.final.detach())


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
def test_evaluations_are_counted(stepping):
    gbm = problems()["gbm"][0]
    calls = {"drift": 0}

    class Counted(type(gbm)):
        def drift(self, t, x):
            calls["drift"] += 1
            return super().drift(t, x)

    sol = sf.solve(Counted(0.5, 0.8), torch.ones(8, 1), rtol=1e-2, method="sriw1", stepping=stepping, seed=0)
    attempts = torch.as_tensor(sol.stats["accepted"] + sol.stats["rejected"])
    expected = 2 * attempts + 1  # the first step looks once
    assert torch.equal(torch.as_tensor(sol.stats["nfe_drift"]), expected)
    assert calls["drift"] == sol.stats.get("calls", sol.stats["nfe_drift"])


def test_a_sample_that_fails_keeps_what_it_has():
    wild = sf.SDE(lambda t, x: x**3, lambda t, x: 0.1 * x)
    x0 = torch.tensor([[0.1], [3.0]], dtype=torch.float64)
    sol = sf.solve(
        wild, x0, [0.0, 0.02, 1.0], rtol=1e-3, method="sriw1", stepping="per-sample", seed=0, on_failure="return"
    )
    assert sol.status.tolist()[0] == Status.SUCCESS
    assert sol.status.tolist()[1] != Status.SUCCESS
    assert sol.x[1].isfinite().all()
    assert sol.x[2, 0].isfinite().all()
    with pytest.raises(SolveError) as caught:
        sf.solve(wild, x0, rtol=1e-6, method="sriw1", seed=0, max_steps=10)
    assert caught.value.solution.status.tolist() == [Status.MAX_STEPS] * 2


def test_the_backward_clock():
    sde = sf.processes.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    backward = sde.reverse(lambda t, x: -2 * x, clock="backward")
    flipped = sde.reverse(lambda t, x: -2 * x)
    x0 = torch.ones(4, 1, dtype=torch.float64)
    one = sf.solve(backward, x0, (1.0, 0.0), rtol=1e-3, method="sosra", seed=3).final
    assert torch.equal(one, sf.solve(flipped, x0, rtol=1e-3, method="sosra", seed=3).final)


def test_steps_for_noise_are_not_for_odes():
    with pytest.raises(MethodError, match="tsit5"):
        sf.solve(sf.ODE(lambda t, x: -x), torch.ones(1, 1), rtol=1e-3, method="heun")
