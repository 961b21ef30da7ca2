"""torchdiffeq behind sdeflow's checks. What is guarded against, and the test that would notice:

==========================================================  ==========================================================
an evaluation outside the span, forward or backward         test_no_time_outside_the_span
a stop that a step hits by itself, missed by torchdiffeq    test_a_step_that_hits_a_save_time_by_itself
a guess of the first step that looks beyond the end         test_the_guess_of_the_first_step_stays_inside
an easy batch that hides a hard sample                      test_a_hard_sample_is_not_hidden
an error_mask that is not heeded                            test_error_mask
t rounded to float32                                        test_precise_time_keeps_its_digits, test_never_rounded_onto_the_end
parameters and captured tensors without a gradient          test_adjoint_finds_what_a_closure_captured
gradients smaller than the adjoint's tolerance              test_adjoint_of_a_mean_over_a_large_batch
outputs that are interpolated                               test_save_times_off_the_grid, test_dopri8_at_interior_save_times
explicit Adams that diverges, steps that are not equal      test_explicit_adams_converges, test_adams_needs_equal_steps
a corrector that does not converge                          test_corrector_that_does_not_converge
scipy: silent failure, no gradient, spurious warnings       test_scipy_*
a NaN velocity called "underflow in dt 0.0"                 test_nan_velocity, test_nan_from_the_start
a zero coordinate without tolerance                         test_zero_without_tolerance
AssertionErrors of torchdiffeq, and of the user             test_blow_up, test_max_steps, test_errors_of_the_velocity_come_out
an empty batch; rk4 with a velocity of the wrong shape      test_refusals
a second derivative through the adjoint                     test_second_derivative_through_the_adjoint
a gradient of the size of the first step                    test_the_first_step_is_not_differentiated
a jump in t                                                 test_breakpoints, test_breakpoints_with_fixed_steps
defective methods of newer versions                         test_methods_of_a_newer_version
==========================================================  ==========================================================
"""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from scipy.integrate import LSODA
from torch import Tensor, nn
from torchdiffeq._impl.odeint import SOLVERS

import sdeflow as sf
from sdeflow.errors import ArgumentError, MethodError, SdeflowWarning, SolveError
from sdeflow.solvers.backends import torchdiffeq as backend
from sdeflow.solvers.job import Job
from sdeflow.solvers.status import Status

TABLE = {method.name: method for method in backend.torchdiffeq_methods()}
FIXED = [name for name, method in TABLE.items() if method.fixed]
ADAPTIVE = [name for name, method in TABLE.items() if method.adaptive]
RUNGE_KUTTA = [name for name in ADAPTIVE if "scipy" not in name]
DOUBLE = torch.float64


def solve(process, x0, t=None, *, method=None, **options):
    """sf.solve, with torchdiffeq's own default where the steps adapt and no method is named."""
    if method is None and not {"dt", "steps"} & options.keys():
        method = "torchdiffeq:dopri5"
    return sf.solve(process, x0, t, method=method, **options)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class Spiral:
    """dx/dt = A (x − p) + p', of which x = p(t) + exp(A (t − s)) (x_s − p(s)); p = 0 without a force."""

    A = torch.tensor([[-0.4, -2.0], [2.0, -0.4]], dtype=DOUBLE)

    def __init__(self, forced: bool) -> None:
        self.forced = forced

    def p(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.as_tensor(t, dtype=DOUBLE)
        value, slope = torch.stack([(3 * t).sin(), (2 * t).cos()]), torch.stack([3 * (3 * t).cos(), -2 * (2 * t).sin()])
        return value * self.forced, slope * self.forced

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        value, slope = self.p(t)
        return ((x.to(DOUBLE) - value) @ self.A.T + slope).to(x.dtype)

    def exact(self, times: list[float], x0: Tensor) -> Tensor:
        decay = [torch.linalg.matrix_exp(self.A * (t - times[0])).T for t in times]
        return torch.stack([self.p(t)[0] + (x0 - self.p(times[0])[0]) @ d for t, d in zip(times, decay, strict=True)])


class Recorder:
    """A velocity that remembers the times at which it was called."""

    def __init__(self, velocity) -> None:
        self.velocity, self.times = velocity, []

    def __call__(self, t, x):
        self.times.append(t.item())
        return self.velocity(t, x)


CASES = [
    pytest.param(shape, times, forced, id=f"{len(shape)}d-{'down' if times[0] > times[-1] else 'up'}-{forced}")
    for shape, times, forced in [
        ((3, 2), [0.0, 0.7, 2.0], False),
        ((3, 2), [2.0, 1.3, 0.0], True),
        ((2, 3, 2), [0.0, 0.7, 2.0], True),
    ]
]


# --- the registry and the orders -------------------------------------------------------------------------------------


def test_registry_is_the_table_of_the_installed_torchdiffeq() -> None:
    assert list(TABLE) == [f"torchdiffeq:{name}" for name in SOLVERS]
    assert set(TABLE) <= set(sf.methods().keys())
    assert all(method.paper for method in TABLE.values())


def test_methods_of_a_newer_version(monkeypatch) -> None:
    monkeypatch.setitem(SOLVERS, "tsit5", SOLVERS["dopri5"])
    monkeypatch.setitem(SOLVERS, "implicit_euler", SOLVERS["euler"])
    monkeypatch.setitem(SOLVERS, "gl4", SOLVERS["rk4"])
    table = {method.name: method for method in backend.torchdiffeq_methods()}
    ode = sf.ODE(lambda t, x: -x)
    for name, adaptive in (("tsit5", True), ("implicit_euler", False)):
        method = table[f"torchdiffeq:{name}"]
        assert (method.ode_order, method.adaptive, method.fixed, method.misfit(ode)) == (
            None,
            adaptive,
            not adaptive,
            "",
        )
    assert "first order" in table["torchdiffeq:gl4"].misfit(ode)


@pytest.mark.parametrize(("shape", "times", "forced"), CASES)
@pytest.mark.parametrize("name", FIXED)
def test_order_of_fixed_steps(name: str, shape, times, forced) -> None:
    spiral = Spiral(forced)
    ode, x0 = sf.ODE(spiral.velocity, interval=(0.0, 2.0)), draw(*shape)
    exact = spiral.exact(times, x0)
    steps = (20, 80) if TABLE[name].ode_order > 3 else (40, 160)
    errors = [float((solve(ode, x0, times, steps=n, method=name).x - exact).abs().max()) for n in steps]
    order = math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])
    assert TABLE[name].ode_order - 0.25 <= order <= TABLE[name].ode_order + 0.75
    assert errors[0] < 2 * exact.abs().max()


@pytest.mark.parametrize(("shape", "times", "forced"), CASES)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_error_of_adaptive_steps(name: str, shape, times, forced) -> None:
    spiral = Spiral(forced)
    ode, x0 = sf.ODE(spiral.velocity, interval=(0.0, 2.0)), draw(*shape)
    tolerance = 1e-4 if TABLE[name].ode_order == 2 else 1e-6
    with torch.no_grad():
        solution = solve(ode, x0, times, rtol=tolerance, atol=tolerance, method=name)
    # What fehlberg2 takes for its error is h²x''/512: Fehlberg's own coefficients, and far too small at any tolerance.
    assert (solution.x - spiral.exact(times, x0)).abs().max() < (3000 if "fehlberg2" in name else 100) * tolerance
    assert torch.equal(solution.x[0], x0)


@pytest.mark.parametrize("name", RUNGE_KUTTA)
def test_order_of_adaptive_methods(name: str, monkeypatch) -> None:
    """With every step accepted and all of one size, from breakpoints, the order shows."""
    spiral, x0 = Spiral(True), draw(3, 2)
    ode = sf.ODE(spiral.velocity, interval=(0.0, 2.0))
    exact, errors, sizes = spiral.exact([0.0, 2.0], x0), [], (8, 24) if "dopri" in name else (20, 80)
    for n in sizes:
        nodes = [2.0 * k / n for k in range(n + 1)]
        x = solve(ode, x0, nodes, rtol=1e9, atol=1e9, first_step=1.0, method=name)
        assert x.stats["accepted"] == n
        errors.append(float((x.final - exact[-1]).abs().max()))
    order = math.log(errors[0] / errors[1]) / math.log(sizes[1] / sizes[0])
    assert TABLE[name].ode_order - 0.25 <= order <= TABLE[name].ode_order + 1.0


@pytest.mark.parametrize("name", list(TABLE))
def test_evaluations_are_counted(name: str) -> None:
    record = Recorder(lambda t, x: -x * (1 + t))
    rule = {"steps": 12} if TABLE[name].fixed else {"rtol": 1e-4, "atol": 1e-4}
    with torch.no_grad():
        stats = solve(sf.ODE(record), draw(2, 2), method=name, **rule).stats
    assert stats["nfe_drift"] == len(record.times)
    if TABLE[name].drift_evaluations:
        assert stats["nfe_drift"] == 12 * TABLE[name].drift_evaluations
    if TABLE[name].fixed:
        assert (stats["accepted"], stats["rejected"]) == (12, 0)
    if name in RUNGE_KUTTA:  # the first velocity, the guess of the first step, and all stages but the first
        stages = len(SOLVERS[name.split(":")[1]].tableau.alpha)
        assert stats["nfe_drift"] == 2 + stages * (stats["accepted"] + stats["rejected"])
        assert stats["accepted"] > 1


def test_rejected_steps_are_counted() -> None:
    stats = solve(sf.ODE(lambda t, x: (20 * t).cos() * x), draw(2, 2), rtol=1e-6, atol=1e-6, first_step=0.9).stats
    assert stats["rejected"] > 0
    assert stats["nfe_drift"] == 1 + 6 * (stats["accepted"] + stats["rejected"])


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("times", [[0.0, 0.3, 1.0], [1.0, 0.4, 0.0]])
@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
@pytest.mark.parametrize("name", ["dopri8", "dopri5", "adaptive_heun", "rk4", "midpoint", "implicit_adams"])
def test_no_time_outside_the_span(name: str, gradient, times, dtype) -> None:
    record = Recorder(lambda t, x: -x * (1 + t))
    x0 = draw(2, 2, dtype=dtype).requires_grad_()
    rule = {"rtol": 1e-2, "atol": 1e-2} if f"torchdiffeq:{name}" in ADAPTIVE else {"steps": 10}
    solution = solve(sf.ODE(record), x0, times, method=f"torchdiffeq:{name}", gradient=gradient, **rule)
    forward = len(record.times)
    solution.x.square().sum().backward()
    assert (len(record.times) > forward) == (gradient == "adjoint")
    assert min(record.times) >= 0.0 and max(record.times) <= 1.0


def test_a_step_that_hits_a_save_time_by_itself() -> None:
    record = Recorder(lambda t, x: 0 * x + 1)
    solution = solve(sf.ODE(record), draw(1, 1), [0.0, 0.5, 0.75, 1.0], rtol=1e-3, atol=1e-3, first_step=0.5)
    assert max(record.times) <= 1.0
    assert torch.allclose(solution.x - solution.x[0], solution.t[:, None, None])
    assert solution.stats["accepted"] == 3


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
def test_the_guess_of_the_first_step_stays_inside(gradient) -> None:
    record = Recorder(lambda t, x: 1e-6 * x)  # so slow that the guess is 10⁴ long
    x0 = draw(2, 2).requires_grad_()
    solve(sf.ODE(record), x0, rtol=1e-3, atol=1e-3, gradient=gradient).final.sum().backward()
    assert min(record.times) >= 0.0 and max(record.times) <= 1.0


class Precise(sf.ODE, precise_time=True):
    """An ODE of the library's own kind: its time is float64, and here it is recorded."""

    def __init__(self, interval=(0.0, 1.0)) -> None:
        super().__init__(interval=interval)
        self.times = []

    def velocity(self, t, x):
        assert t.dtype is DOUBLE
        self.times.append(t.item())
        return 1e-3 * x


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
@pytest.mark.parametrize("name", [n for n in TABLE if "adams" not in n and "scipy" not in n])
def test_precise_time_keeps_its_digits(name: str, gradient) -> None:
    """For float32 states the stages stand where they do for float64 ones, of which torchdiffeq rounds nothing."""
    start, stop = 1 - 3e-7, 1 - 1e-8
    rule = {"rtol": 1e-3, "atol": 1e-3, "first_step": 1e-7} if TABLE[name].adaptive else {"steps": 3}
    recorded = {}
    for dtype in (DOUBLE, torch.float32):
        process, x0 = Precise(), torch.ones(2, 2, dtype=dtype, requires_grad=True)
        solution = solve(process, x0, [start, 1 - 2e-7, stop], method=name, gradient=gradient, **rule)
        solution.final.sum().backward()
        recorded[dtype] = process.times
    # The backward pass of an adaptive method guesses a first step, in the state's dtype.
    exact = solution.stats["nfe_drift"] if TABLE[name].adaptive else None
    assert recorded[torch.float32][:exact] == pytest.approx(recorded[DOUBLE][:exact], rel=0, abs=1e-15)
    assert min(recorded[torch.float32]) >= start and max(recorded[torch.float32]) <= stop


@pytest.mark.parametrize("name", list(TABLE))
def test_never_rounded_onto_the_end(name: str) -> None:
    record = Recorder(lambda t, x: 1e-3 * x)
    rule = {"rtol": 1e-3, "atol": 1e-3} if TABLE[name].adaptive else {"steps": 4}
    with torch.no_grad():
        solve(sf.ODE(record), torch.ones(2, 2), [0.0, 1 - 1e-9], method=name, **rule)
    assert max(record.times) < 1.0  # 1 − 1e-9 is 1 in float32


def test_save_times_off_the_grid() -> None:
    times, x0, spiral = [0.0, 0.123, 0.777, 2.0], draw(3, 2), Spiral(True)
    x = solve(sf.ODE(spiral.velocity, interval=(0.0, 2.0)), x0, times, dt=0.02, method="torchdiffeq:rk4").x
    assert (x - spiral.exact(times, x0)).abs().max() < 3e-7  # linear interpolation would cost 1e-4


def test_dopri8_at_interior_save_times() -> None:
    times, x0, spiral = [0.0, 0.123, 0.777, 1.5, 2.0], draw(3, 2), Spiral(True)
    ode = sf.ODE(spiral.velocity, interval=(0.0, 2.0))
    x = solve(ode, x0, times, rtol=1e-12, atol=1e-12, method="torchdiffeq:dopri8").x
    assert (x - spiral.exact(times, x0)).abs().max() < 1e-11


def jump(t, x):
    return torch.where(t < 0.3, -x, 5.0 + 0 * x)


def jumped(x0: Tensor, times: list[float]) -> Tensor:
    """The solution of dx/dt = jump from t = 0."""
    return torch.stack([x0 * math.exp(-min(t, 0.3)) + 5 * max(t - 0.3, 0.0) for t in times])


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.3, 1.0]])
def test_breakpoints(times, dtype) -> None:
    x0, ode = draw(3, 2, dtype=dtype), sf.ODE(jump)
    tolerance = 1e-8 if dtype is DOUBLE else 1e-5
    exact = jumped(x0, times)
    solution = solve(ode, x0, times, rtol=tolerance, atol=tolerance, breakpoints=[0.3])
    assert (solution.x - exact).abs().max() < 5 * tolerance
    assert solution.stats["rejected"] <= 1
    assert solve(ode, x0, times, rtol=tolerance, atol=tolerance).stats["rejected"] > 5
    back = solve(ode, exact[-1], times[::-1], rtol=tolerance, atol=tolerance, breakpoints=[0.3])
    assert (back.final - x0).abs().max() < 10 * tolerance
    assert back.stats["rejected"] <= 1


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("name", ["rk4", "heun2", "euler"])
def test_breakpoints_with_fixed_steps(name: str, dtype) -> None:
    x0, steps = draw(3, 2, dtype=dtype), 100
    x = solve(sf.ODE(jump), x0, [0.0, 1.0], steps=steps, breakpoints=[0.3], method=f"torchdiffeq:{name}").final
    scale = {"rk4": 2e-10 if dtype is DOUBLE else 3e-6, "heun2": 5e-5, "euler": 5e-3}[name]
    assert (x - jumped(x0, [1.0])[0]).abs().max() < scale  # a stage on the wrong side costs 5/100/2 = 2.5e-2 and more
    back = solve(sf.ODE(jump), x, [1.0, 0.0], steps=steps, breakpoints=[0.3], method=f"torchdiffeq:{name}").final
    assert (back - x0).abs().max() < 3 * scale


def test_breakpoints_that_are_nodes_up_to_rounding() -> None:
    x0 = draw(3, 2)  # 0.4 · 3/4 is 0.30000000000000004
    x = solve(sf.ODE(jump), x0, [0.0, 0.4], steps=4, breakpoints=[0.3], method="torchdiffeq:rk4").final
    assert (x - jumped(x0, [0.4])[0]).abs().max() < 1e-5


@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.3, 1.0]])
def test_breakpoints_in_the_adjoint(times) -> None:
    theta, record = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True), Recorder(lambda t, x: theta * jump(t, x) * x)
    grads, x0 = {}, draw(3, 2).requires_grad_()
    for gradient in ("backprop", "adjoint"):
        x = solve(sf.ODE(record), x0, times, rtol=1e-8, atol=1e-8, breakpoints=[0.3], gradient=gradient).final
        before = len(record.times)
        grads[gradient] = torch.autograd.grad(x.sum(), [x0, theta])
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(*grads.values(), strict=True))
    assert len(record.times) - before < 400  # 1,000 and more where the jump is not known of or met from the wrong side


# --- the error norm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rows"), [("dopri5", 10_000), ("bosh3", 10_000), ("scipy_solver", 100)])
def test_a_hard_sample_is_not_hidden(name: str, rows: int) -> None:
    def velocity(t, x):
        return torch.stack([x[:, 1], -100 * x[:, 0]], 1)

    ode = sf.ODE(velocity)
    live = torch.tensor([[1.0, 0.0]], dtype=DOUBLE)
    options = {"rtol": 1e-5, "atol": 1e-5, "method": f"torchdiffeq:{name}"}
    alone = solve(ode, live, **options).final[0]
    among = solve(ode, torch.cat([live, torch.zeros(rows, 2, dtype=DOUBLE)]), **options).final[0]
    exact = torch.tensor([math.cos(10), -10 * math.sin(10)], dtype=DOUBLE)
    assert (among - exact).abs().max() <= 2 * (alone - exact).abs().max()


class Masked(sf.ODE):
    """Two coordinates, of which the second, a fast oscillation, is not counted."""

    def velocity(self, t, x):
        return torch.stack([-x[:, 0], 300 * (300 * t).cos() + 0 * x[:, 1]], 1)


@pytest.mark.parametrize("times", [[0.0, 1.0], [1.0, 0.0]])
def test_error_mask(times) -> None:
    steps = {}
    for mask in (None, torch.tensor([True, False]), torch.tensor([False, True])):
        process = Masked()
        process.error_mask = mask
        solution = solve(process, torch.ones(4, 2, dtype=DOUBLE), times, rtol=1e-6, atol=1e-6)
        steps[str(mask)] = solution.stats["accepted"]
        assert abs(solution.final[0, 0].item() - math.exp(times[0] - times[1])) < 1e-5 * math.e
    free, counted = steps["tensor([ True, False])"], steps["tensor([False,  True])"]
    assert free < 20 and counted > 200 and steps["None"] > 200


# --- gradients -------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(draw(3, 3, seed=1) * 0.5)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.W + t)


@pytest.mark.parametrize("times", [[0.0, 0.1, 0.3], [0.3, 0.1, 0.0]])
@pytest.mark.parametrize("name", [n for n in TABLE if "scipy" not in n])
def test_adjoint_agrees_with_backprop(name: str, times) -> None:
    net, shift = Net(), draw(3, seed=2).requires_grad_()
    ode, x0 = sf.ODE(lambda t, x: net(t, x) + 0.3 * shift.sin()), draw(4, 3, seed=3).requires_grad_()
    order = TABLE[name].ode_order
    tolerance = 5e-9 if "fehlberg2" in name else {2: 3e-7, 3: 1e-7}.get(order, 1e-9)
    rule = (
        {"rtol": tolerance, "atol": tolerance}
        if TABLE[name].adaptive
        else {"steps": {1: 1, 2: 240, 3: 60, 4: 60}[order]}
    )
    if order == 1:  # Euler's adjoint is another discretisation, so they differ by O(h): it is extrapolated to h = 0
        return _euler_extrapolates(ode, x0, [net.W, shift], times)
    grads = _gradients(ode, x0, [net.W, shift], times, method=name, **rule)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(*grads.values(), strict=True))
    assert all(a.abs().max() > 1e-2 for a in grads["backprop"])
    return None


def _gradients(ode, x0, parameters, times, **options) -> dict[str, tuple[Tensor, ...]]:
    grads = {}
    for gradient in ("backprop", "adjoint"):
        x = solve(ode, x0, times, gradient=gradient, **options).x
        grads[gradient] = torch.autograd.grad((x[1].sin() + 2 * x[2].square()).sum(), [x0, *parameters])
    return grads


def _euler_extrapolates(ode, x0, parameters, times) -> None:
    gaps = []
    for steps in (30, 60):
        grads = _gradients(ode, x0, parameters, times, method="torchdiffeq:euler", steps=steps)
        gaps.append([a - b for a, b in zip(*grads.values(), strict=True)])
    assert all(0 < b.abs().max() < 0.05 for b in gaps[1])
    assert all((2 * b - a).abs().max() < 0.03 * a.abs().max() + 1e-5 for a, b in zip(*gaps, strict=True))


def test_backprop_is_the_derivative_of_the_solution() -> None:
    spiral, x0 = Spiral(False), draw(3, 2).requires_grad_()
    rate = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True)
    x = solve(sf.ODE(lambda t, x: rate * spiral.velocity(t, x)), x0, rtol=1e-9, atol=1e-9).final
    grads = torch.autograd.grad(x.sum(), [x0, rate])
    decay = torch.linalg.matrix_exp(spiral.A)
    assert torch.allclose(grads[0], decay.sum(0).expand(3, 2), rtol=1e-7)
    assert torch.allclose(grads[1], (x0 @ (spiral.A @ decay).T).sum(), rtol=1e-7)


def test_the_first_step_is_not_differentiated() -> None:
    grads, record = [], Recorder(lambda t, x: -x * (1 + t))
    for first_step in (None, "the same"):
        x0 = draw(3, 2).requires_grad_()
        if first_step:
            first_step = record.times[2] / 0.2  # after the first velocity and the guess comes the second stage
        solve(sf.ODE(record), x0, rtol=1e-1, atol=1e-1, first_step=first_step).final.sum().backward()
        grads.append(x0.grad)
    assert torch.allclose(*grads, rtol=1e-12)


def test_backprop_with_a_row_of_zeros() -> None:
    x0 = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=DOUBLE, requires_grad=True)
    solve(sf.ODE(lambda t, x: -x), x0, rtol=1e-8, atol=1e-8).final.sum().backward()
    assert torch.allclose(x0.grad, torch.full_like(x0, math.exp(-1)), rtol=1e-6)


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_adjoint_finds_what_a_closure_captured(name: str) -> None:
    theta = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    late = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    double = 2 * theta  # not a leaf
    ode = sf.ODE(lambda t, x: -double * x if t < 0.5 else -late * x)
    rule = {"rtol": 1e-9, "atol": 1e-9} if name == "dopri5" else {"steps": 200}
    x0 = torch.ones(2, 2, dtype=DOUBLE)
    x = solve(ode, x0, gradient="adjoint", method=f"torchdiffeq:{name}", breakpoints=[0.5], **rule).final
    x.sum().backward()
    value = math.exp(-1.5)
    assert theta.grad.item() == pytest.approx(-4 * value, rel=1e-5)
    assert late.grad.item() == pytest.approx(-2 * value, rel=1e-5)


class Rounded(torch.autograd.Function):
    """A function whose backward pass says that there is no gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return None


def test_adjoint_where_what_comes_after_has_no_gradient() -> None:
    x0 = torch.ones(2, 2, dtype=DOUBLE, requires_grad=True)
    options = {"rtol": 1e-5, "atol": 1e-5, "gradient": "adjoint", "method": "torchdiffeq:dopri5"}
    x = solve(sf.ODE(growth), x0, **options).x
    (Rounded.apply(x).sum() + 3 * x0.sum()).backward()
    assert torch.equal(x0.grad, torch.full_like(x0, 3.0))


def growth(t, x):
    """At x = 0 all is still, and the adjoint, exp(3 sin(10 t)), is not."""
    return 30 * (10 * t).cos() * x


@pytest.mark.parametrize("name", ["dopri5", "bosh3"])
def test_adjoint_of_a_mean_over_a_large_batch(name: str) -> None:
    """The gradient of a mean is 1e-4 an entry: near an absolute tolerance of 1e-5, were that not relative to it."""
    x0 = torch.zeros(10_000, 1, dtype=DOUBLE).requires_grad_()
    options = {"rtol": 1e-5, "atol": 1e-5, "gradient": "adjoint", "method": f"torchdiffeq:{name}"}
    solve(sf.ODE(growth), x0, **options).final.mean().backward()
    assert x0.grad[0].item() * 1e4 == pytest.approx(math.exp(3 * math.sin(10)), rel=1e-2)


def test_max_steps_of_the_backward_pass() -> None:
    """Forward and backward are counted apart, and both are limited."""
    x0 = torch.zeros(2, 1, dtype=DOUBLE).requires_grad_()
    options = {"rtol": 1e-5, "atol": 1e-5, "gradient": "adjoint"}
    still = solve(sf.ODE(growth), x0, max_steps=20, **options)
    with pytest.raises(SolveError, match=r"In the backward pass of the adjoint.*max_steps=20"):
        still.final.sum().backward()
    x0 = draw(2, 2).requires_grad_()
    ode = sf.ODE(lambda t, x: torch.stack([x[:, 1], -100 * x[:, 0]], 1))
    attempts = sum(solve(ode, x0, **options).stats[key] for key in ("accepted", "rejected"))
    solve(ode, x0, max_steps=3 * attempts // 2, **options).final.sum().backward()


def test_second_derivative_through_the_adjoint() -> None:
    x0 = draw(2, 2).requires_grad_()
    ode = sf.ODE(lambda t, x: -(x**3))
    final = solve(ode, x0, rtol=1e-6, atol=1e-6, gradient="adjoint").final
    with pytest.raises(ArgumentError, match=r"first derivatives only.*gradient='backprop'"):
        torch.autograd.grad(final.sum(), x0, create_graph=True)
    (first,) = torch.autograd.grad(solve(ode, x0, rtol=1e-6, atol=1e-6).final.sum(), x0, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x0)
    assert torch.allclose(second, -6 * x0 * (1 + 2 * x0**2) ** -2.5, rtol=1e-3, atol=1e-4)


def test_adjoint_of_a_velocity_that_differentiates() -> None:
    """The second coordinate integrates the divergence of the first, as a likelihood does."""
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def velocity(t, x):
        value, trace = sf.calculus.divergence(net, x[:, :1])
        return torch.cat([value, trace[:, None]], 1)

    grads = []
    for gradient in ("backprop", "adjoint"):
        x = solve(sf.ODE(velocity), torch.ones(3, 2, dtype=DOUBLE), rtol=1e-8, atol=1e-8, gradient=gradient).final
        grads.append(torch.autograd.grad(x.square().sum(), list(net.parameters()), allow_unused=True))
    pairs = [(a, b) for a, b in zip(*grads, strict=True) if a is not None]  # the last bias moves no divergence
    assert len(pairs) >= 3 and all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs)


def test_a_backward_pass_that_fails_says_so() -> None:
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * math.nan

    x0 = draw(2, 2).requires_grad_()
    final = solve(sf.ODE(lambda t, x: Root.apply(x)), x0, rtol=1e-4, atol=1e-4, gradient="adjoint").final
    with pytest.raises(SolveError, match="backward pass of the adjoint"):
        final.sum().backward()


# --- failures --------------------------------------------------------------------------------------------------------


def fails(ode, x0, times, **options):
    """The solution up to the failure, and the message of the error that would have been raised."""
    with pytest.raises(SolveError) as error:
        solve(ode, x0, times, **options)
    solution = solve(ode, x0, times, on_failure="return", **options)
    assert torch.equal(solution.x, error.value.solution.x)
    assert len(solution.t) == len(solution.x)
    return solution, str(error.value)


@pytest.mark.parametrize("down", [False, True])
def test_nan_velocity(down: bool) -> None:
    """Row 1 of 4 is NaN beyond |t − t0| = 0.6; save times before are returned, and the time is the caller's."""

    def velocity(t, x):
        late = (1 - t if down else t) > 0.6
        return torch.where(late & (torch.arange(4) == 1)[:, None], math.nan, -x)

    times = [1 - t if down else t for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    solution, message = fails(sf.ODE(velocity), draw(4, 2), times, rtol=1e-6, atol=1e-6)
    assert (solution.status == Status.NON_FINITE).all()
    assert solution.t.tolist() == times[:3] and solution.x.isfinite().all()
    assert "1 of 4 samples" in message and "underflow" not in message
    left, right = (float(word.split("t=")[1].rstrip(".")) for word in message.split() if word.startswith("t="))
    assert min(left, right) <= (0.4 if down else 0.6) <= max(left, right)


def test_nan_from_the_start() -> None:
    solution, message = fails(sf.ODE(lambda t, x: x * math.nan), draw(4, 2), None, rtol=1e-6, atol=1e-6)
    assert (solution.status == Status.NON_FINITE).all() and len(solution.x) == 1
    assert "4 of 4 samples, at t=0." in message


def test_nan_with_fixed_steps() -> None:
    ode = sf.ODE(lambda t, x: torch.where(torch.arange(4)[:, None] == 1, math.nan, -x))
    status = solve(ode, draw(4, 2), steps=4, method="torchdiffeq:rk4", on_failure="return").status
    assert status.tolist() == [Status.SUCCESS, Status.NON_FINITE, Status.SUCCESS, Status.SUCCESS]


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
def test_blow_up(gradient) -> None:
    times = [0.0, 0.5, 0.9, 1.5]
    x0 = torch.ones(2, 2, dtype=DOUBLE)
    ode = sf.ODE(lambda t, x: x**2, interval=(0.0, 2.0))
    solution, message = fails(ode, x0, times, rtol=1e-6, atol=1e-6, gradient=gradient)
    assert solution.status[0] in (Status.STEP_TOO_SMALL, Status.NON_FINITE)
    assert "t=1.00000" in message or "t=0.99999" in message
    assert torch.allclose(solution.x[:, 0, 0], 1 / (1 - solution.t), rtol=1e-4) and len(solution.t) == 3


def test_step_too_small() -> None:
    ode = sf.ODE(lambda t, x: torch.where(x > 0.5, -1e30 * x, 1e30 * x), interval=(0.0, 2.0))
    solution, message = fails(ode, torch.full((1, 1), 0.6, dtype=DOUBLE), [1.0, 2.0], rtol=1e-6, atol=1e-6)
    assert solution.status[0] == Status.STEP_TOO_SMALL
    assert "At t=1 the step" in message and "velocity is finite there" in message


def test_zero_without_tolerance() -> None:
    x0 = torch.tensor([[0.0, 1.0]], dtype=DOUBLE)
    solution, message = fails(sf.ODE(lambda t, x: -x), x0, None, rtol=1e-6, atol=0.0)
    assert solution.status[0] == Status.STEP_TOO_SMALL and "give an atol > 0" in message


def test_max_steps() -> None:
    """The limit is of attempts in all, not of those between two save times as torchdiffeq's own is."""
    times, ode, x0 = [0.0, 0.1, 0.2, 0.3, 1.0], sf.ODE(lambda t, x: (100 * t).cos() * x), draw(2, 2)
    whole = solve(ode, x0, times, rtol=1e-6, atol=1e-6)
    attempts = whole.stats["accepted"] + whole.stats["rejected"]
    assert solve(ode, x0, times, rtol=1e-6, atol=1e-6, max_steps=attempts).success.all()
    solution, message = fails(ode, x0, times, rtol=1e-6, atol=1e-6, max_steps=attempts // 2)
    assert (solution.status == Status.MAX_STEPS).all() and f"max_steps={attempts // 2}" in message
    assert solution.stats["accepted"] + solution.stats["rejected"] == attempts // 2
    assert 2 < len(solution.x) < 5 and torch.allclose(solution.x, whole.x[: len(solution.x)], rtol=1e-12)


def test_max_steps_that_ends_at_a_save_time() -> None:
    ode, x0 = sf.ODE(lambda t, x: 0 * x + 1), torch.ones(1, 1)
    solution, _ = fails(ode, x0, [0.0, 0.5, 1.0], rtol=1e-3, atol=1e-3, first_step=0.5, max_steps=1)
    assert solution.x.flatten().tolist() == [1.0, 1.5]


def test_reached_states_keep_their_gradient() -> None:
    x0 = torch.ones(1, 1, dtype=DOUBLE, requires_grad=True)
    ode = sf.ODE(lambda t, x: x**2, interval=(0.0, 2.0))
    solution = solve(ode, x0, [0.0, 0.5, 1.5], rtol=1e-8, atol=1e-8, on_failure="return")
    solution.x[1].sum().backward()
    assert x0.grad.item() == pytest.approx(4.0, rel=1e-5)  # d/dx x/(1 − tx) = 1/(1 − tx)²


@pytest.mark.parametrize("error", [AssertionError("mine"), ValueError("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
@pytest.mark.parametrize("name", ["dopri5", "rk4", "scipy_solver"])
def test_errors_of_the_velocity_come_out(name: str, gradient, error) -> None:
    if name == "scipy_solver" and gradient == "adjoint":
        return

    def velocity(t, x):
        if t > 0.5:
            raise error
        return -x

    rule = {"steps": 10} if name == "rk4" else {"rtol": 1e-5, "atol": 1e-5}
    with pytest.raises(type(error)) as caught:
        options = {"gradient": gradient, "on_failure": "return", "method": f"torchdiffeq:{name}"}
        solve(sf.ODE(velocity), draw(2, 2), **rule, **options)
    assert caught.value is error


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="empty"):
        solve(sf.ODE(lambda t, x: -x), torch.zeros(0, 2), rtol=1e-3)
    with pytest.raises(ArgumentError, match="return the state's shape"):
        solve(sf.ODE(lambda t, x: -x[:, :1]), torch.ones(3, 2), steps=4, method="torchdiffeq:rk4")
    with pytest.raises(MethodError, match="steps of fixed size"):
        solve(sf.ODE(lambda t, x: -x), torch.ones(3, 2), rtol=1e-3, method="torchdiffeq:rk4")
    with pytest.raises(MethodError, match="no gradient"):
        options = {"rtol": 1e-3, "method": "torchdiffeq:scipy_solver", "gradient": "adjoint"}
        solve(sf.ODE(lambda t, x: -x), torch.ones(3, 2), **options)


@pytest.mark.parametrize("name", list(TABLE))
def test_global_generators_are_left_alone(name: str) -> None:
    rule = {"steps": 5} if TABLE[name].fixed else {"rtol": 1e-3, "atol": 1e-3}
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and no method has anything to complain of
        solve(sf.ODE(lambda t, x: -x), torch.ones(2, 2), method=name, **rule)
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_reaches_the_end(monkeypatch) -> None:
    times = []
    job = _job(sf.ODE(lambda t, x: -x), "torchdiffeq:dopri5", progress=times.append)
    backend.run(job)
    assert times == sorted(times) and times[-1] == 1.0 and len(times) > 2


# --- Adams and scipy -------------------------------------------------------------------------------------------------


def test_explicit_adams_converges() -> None:
    ode, x0 = sf.ODE(lambda t, x: -x, interval=(0.0, 2.0)), torch.ones(1, 1, dtype=DOUBLE)
    for steps, bound in ((64, 1e-5), (256, 2e-7)):  # torchdiffeq's default has errors of 2.6e5 and 5.9e8
        x = solve(ode, x0, steps=steps, method="torchdiffeq:explicit_adams").final
        assert abs(x.item() - math.exp(-2)) < bound


@pytest.mark.parametrize("name", ["explicit_adams", "implicit_adams", "fixed_adams"])
def test_adams_needs_equal_steps(name: str) -> None:
    ode, x0, method = sf.ODE(lambda t, x: -x), torch.ones(1, 1), f"torchdiffeq:{name}"
    for rule in (
        {"steps": [0.0, 0.1, 0.3, 1.0]},
        {"dt": 0.1, "t": [0.0, 0.234, 1.0]},
        {"steps": 10, "breakpoints": [0.5]},
    ):
        with pytest.raises(MethodError, match="equal steps"):
            solve(ode, x0, method=method, **rule)
    solve(ode, x0, method=method, steps=torch.linspace(0, 1, 11))


def test_corrector_that_does_not_converge() -> None:
    ode, x0 = sf.ODE(lambda t, x: -100 * x), torch.ones(1, 1, dtype=DOUBLE)
    with pytest.warns(SdeflowWarning, match="did not converge in 8 of 10 steps") as caught:
        solve(ode, x0, steps=10, method="torchdiffeq:implicit_adams")
    assert len(caught) == 1


def test_warnings_of_the_velocity_come_out() -> None:
    def velocity(t, x):
        warnings.warn("mine", stacklevel=1)
        return -x

    with pytest.warns(UserWarning, match="mine"):
        solve(sf.ODE(velocity), torch.ones(1, 1), steps=10, method="torchdiffeq:implicit_adams")


def _job(ode, name: str, **changes) -> Job:
    defaults = {
        "process": ode,
        "owner": ode,
        "x0": torch.ones(2, 2, dtype=DOUBLE),
        "times": (0.0, 1.0),
        "method": TABLE[name],
        "grid": None,
        "brownian": None,
        "rtol": 1e-6,
        "atol": 1e-6,
        "first_step": None,
        "breakpoints": (),
        "max_steps": 10_000,
        "stepping": "shared",
        "gradient": "backprop",
        "progress": lambda now: None,
    }
    return Job(**{**defaults, **changes})


def test_scipy_within_max_steps() -> None:
    """By itself LSODA would go on at a blow-up for ever."""
    times, ode = [0.0, 0.5, 0.9, 1.5], sf.ODE(lambda t, x: x**2, interval=(0.0, 2.0))
    options = {"rtol": 1e-6, "atol": 1e-6, "method": "torchdiffeq:scipy_solver", "max_steps": 500}
    solution, message = fails(ode, torch.ones(2, 2, dtype=DOUBLE), times, **options)
    assert (solution.status == Status.MAX_STEPS).all() and "max_steps=500 steps and is at t=0.9999" in message
    assert solution.stats["accepted"] == 500
    assert torch.allclose(solution.x[:, 0, 0], 1 / (1 - solution.t), rtol=1e-3) and len(solution.t) == 3


def test_scipy_that_gives_up(monkeypatch) -> None:
    """scipy returns the times it reached, and torchdiffeq does not say that there are fewer."""
    original = LSODA._step_impl

    def step(self):
        return original(self) if self.t < 0.6 else (False, "Unexpected istate in LSODA.")

    monkeypatch.setattr(LSODA, "_step_impl", step)
    options = {"rtol": 1e-6, "method": "torchdiffeq:scipy_solver"}
    solution, message = fails(sf.ODE(lambda t, x: -x), draw(2, 2), [0.0, 0.5, 1.0], **options)
    assert (
        solution.status == Status.STEP_TOO_SMALL
    ).all() and "gave up (Unexpected istate in LSODA) at t=0.6" in message
    assert torch.allclose(solution.x[1], solution.x[0] * math.exp(-0.5), rtol=1e-4) and len(solution.x) == 2


@pytest.mark.parametrize("down", [False, True])
def test_scipy_nan(down: bool) -> None:
    ode = sf.ODE(lambda t, x: torch.where((1 - t if down else t) > 0.5, math.nan, -x))
    times = [1 - t if down else t for t in (0.0, 0.4, 1.0)]
    solution, message = fails(ode, draw(2, 2), times, rtol=1e-6, atol=1e-6, method="torchdiffeq:scipy_solver")
    assert (solution.status == Status.NON_FINITE).all() and solution.t.tolist() == times[:2]
    assert solution.x.isfinite().all() and "infinite or NaN at t=0." in message


def test_scipy_has_no_gradient_and_says_so() -> None:
    theta = torch.tensor(1.0, requires_grad=True)
    options = {"rtol": 1e-3, "method": "torchdiffeq:scipy_solver"}
    for ode, x0 in (
        (sf.ODE(lambda t, x: -theta * x), torch.ones(1, 1)),
        (sf.ODE(nn_velocity()), torch.ones(1, 1)),
        (sf.ODE(lambda t, x: -x), torch.ones(1, 1, requires_grad=True)),
    ):
        with pytest.raises(MethodError, match=r"has no gradient.*no_grad"):
            solve(ode, x0, **options)
        with torch.no_grad():
            assert solve(ode, x0, **options).success.all()


def nn_velocity() -> nn.Module:
    class Velocity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.ones(()))

        def forward(self, t, x):
            return -self.rate * x

    return Velocity()


def test_scipy_solves_stiff_problems() -> None:
    record = Recorder(lambda t, x: -1e4 * (x - t.cos()))
    solution = solve(sf.ODE(record), torch.zeros(1, 1, dtype=DOUBLE), rtol=1e-6, method="torchdiffeq:scipy_solver")
    assert abs(solution.final.item() - math.cos(1)) < 1e-3 and len(record.times) < 1000


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_scipy_has_float64_time(dtype) -> None:
    """torchdiffeq gives LSODA's velocity a t that went through float32, also where the state is float64."""
    process = Precise()
    solution = solve(
        process, torch.ones(2, 2, dtype=dtype), rtol=1e-6, method="torchdiffeq:scipy_solver", first_step=0.1
    )
    assert solution.x.dtype is dtype
    assert 0.1 in process.times
