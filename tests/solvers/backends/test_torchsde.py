"""torchsde behind sdeflow: every trap of the wrapped library, and the test that shows it shut.

What torchsde does                                                  What holds here
------------------------------------------------------------------  --------------------------------------------------
interpolates at save times, never lands on them                     test_save_times_are_hit_by_fixed_steps, …_adaptive_steps
adds up its times: dt=.1 is 11 steps, 1e-3 in f32 is 1001           test_no_slivers, test_time_does_not_drift_in_float32
a sliver of one ulp makes srk NaN in adaptive steps                 test_an_adaptive_sliver_is_stepped_around
is seeded by numpy's global generator                               test_global_generators_are_left_alone
the same entropy and another dt or method is another path           test_every_method_and_step_sees_one_path
gives zero noise outside the path                                   test_a_path_that_is_too_short_is_refused
Brownian motion cannot be pickled                                   test_a_pickled_path_solves_the_same
does not turn the clock around                                      test_the_backward_clock_is_the_flipped_one
wants full shapes, nothing broadcasts                               test_diffusions_broadcast
wants states (B, D)                                                 test_events_of_any_shape
calls f and g once more, and consumes torch's generator             test_evaluations_are_as_counted
gives time in the dtype of the state                                test_time_is_float64_where_a_process_wants_it
takes a bm of another dtype                                         test_a_path_of_another_dtype_is_refused
never asks whether "additive" is true                               test_a_broken_promise_of_additive_noise_is_refused
dt = 0, < 0 or nan, or below float32 at t: runs for ever            test_bad_steps_are_refused, test_steps_below_float32
20,000 steps: RecursionError                                        test_many_steps
integer and complex states fail far away                            test_states_are_checked
ignores misspelt options, refuses arrays of times                   test_options_and_times
g = 0 gives NaN in places                                           test_no_noise_is_no_trouble
milstein grad_free in Stratonovich form has order 1/2               test_the_biased_milstein_is_refused
milstein transposes the Jacobian of scalar noise                    test_milstein_looks_at_the_jacobian
milstein and the Itô adjoint take diagonal noise to be elementwise  …, test_the_ito_adjoint_looks_at_the_jacobian
milstein and log_ode leave a graph that nobody asked for            test_no_graph_without_need
adaptive euler does not converge, or warns without need             test_adaptive_euler_is_for_additive_noise
accepts what is left at its smallest step                           test_a_blow_up_ends_with_a_sentence
has no limit on steps, and no count                                 test_max_steps_keeps_what_was_reached, …_are_counted
a NaN is an AssertionError                                          test_nan_ends_the_solve, test_overflow_in_the_first_step
has a floor of 1e-7 under its tolerances                            test_tolerances_have_a_floor
adjoint: a wrong backward method fails only backwards               test_all_that_the_registry_claims (runs them all)
adjoint: tensors in closures silently get no gradient               test_closures_get_gradients
adjoint: reversible_heun is 3 % off with adaptive steps             test_adaptive_reversible_heun_has_no_adjoint
adjoint: Itô with general noise is 2 to 20 % off                    test_the_adjoint_of_general_ito_noise_warns
adjoint: second derivatives "report a bug to torchsde"              test_second_derivatives
adjoint_reversible_heun is listed as a method                       test_the_backward_method_is_refused
"""

import math
import pickle
import time
import warnings
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torchsde
from torchsde._core import adaptive_stepping
from torchsde.settings import METHODS

import sdeflow as sf
from sdeflow.errors import ArgumentError, MethodError, SdeflowError, SdeflowWarning, SolveError
from sdeflow.solvers.backends import torchsde_methods

torch.set_num_threads(1)

D = torch.float64
M = torch.tensor([[0.3, 0.1, -0.2], [0.2, 0.4, 0.1]], dtype=D)
X0 = torch.linspace(-1, 1, 8, dtype=D).reshape(4, 2)
ENTRIES = {m.name: m for m in torchsde_methods()}
USABLE = [name for name, m in ENTRIES.items() if not m.refusal]
SEVEN = [name for name in USABLE if ENTRIES[name].calculus != "ito"]
GRID = [0.0, 0.1, 0.15, 0.4, 0.6, 0.8, 1.0]  # steps of several sizes, the last two runs of equal ones


def process(noise="diagonal", additive=False, calculus="ito", theta=1.0, scale=1.0):
    """An SDE whose noise has all the properties that any method relies on."""

    def drift(t, x):
        return -theta * x + torch.sin(3 * t)

    def diffusion(t, x):
        if noise == "general":
            return scale * (M * (1 + t)).to(x).expand(len(x), 2, 3) if additive else scale * _columns(x)
        return scale * (0.4 + 0.3 * t) if additive else scale * (0.4 + 0.2 * torch.sin(x) + 0.1 * t)

    return sf.SDE(drift, diffusion, noise=noise, additive=additive, calculus=calculus)


def _columns(x):
    return M.to(x) * (1 + 0.3 * torch.sin(x.flip(1))[:, :, None])


def brownian_motion(**options):
    return sf.SDE(lambda t, x: 0 * x, lambda t, x: 1.0, additive=True, **options)


def path_of(noise, *, rows=4, seed=1, cells=1, dtype=D, t1=1.0):
    shape = (rows, {"diagonal": 2, "scalar": 1, "general": 3}[noise])
    return sf.BrownianPath(shape, 0.0, t1, seed=seed, cells=cells, levy="space-time", dtype=dtype)


def in_its_calculus(name, noise, additive=False):
    calculus = "stratonovich" if ENTRIES[name].calculus == "stratonovich" else "ito"
    return process(noise, additive, calculus)


CASES = [
    (name, noise, additive)
    for name, noise, additive in product(USABLE, ("diagonal", "scalar", "general"), (False, True))
    if ("additive" if additive else noise) in ENTRIES[name].strong_order
]


# --- the registry -------------------------------------------------------------------------------------------


def test_the_registry_is_torchsdes_own_table():
    assert {m.options["method"] for m in ENTRIES.values()} == set(METHODS.all())
    assert set(ENTRIES) == {f"torchsde:{name}" for name in [*METHODS.all(), "milstein-grad-free"]}
    assert set(ENTRIES) <= set(sf.methods().keys())


def test_an_unknown_method_is_listed_and_refused(monkeypatch):
    monkeypatch.setattr(METHODS, "new", "leapfrog", raising=False)
    (new,) = [m for m in torchsde_methods() if m.name == "torchsde:leapfrog"]
    assert new.strong_order == {} and "does not know" in new.misfit(process())


def test_the_backward_method_is_refused():
    with pytest.raises(MethodError, match=r"backward pass of method='torchsde:reversible_heun' .* Methods that can: "):
        sf.solve(process(), X0, steps=5, method="torchsde:adjoint_reversible_heun")


def solve_with_gradient(name, noise, additive, calculus, adaptive, gradient):
    x0 = X0.clone().requires_grad_()
    theta = torch.tensor(1.0, dtype=D, requires_grad=True)
    scale = torch.tensor(1.0, dtype=D, requires_grad=True)
    rule = {"rtol": 0.05, "atol": 0.05} if adaptive else {"steps": 3}
    sol = sf.solve(
        process(noise, additive, calculus, theta, scale),
        x0,
        [0.0, 0.6, 0.9],
        method=name,
        seed=3,
        gradient=gradient,
        **rule,
    )
    return sol, torch.autograd.grad(sol.x[1:].square().sum(), (x0, theta, scale))


@pytest.mark.parametrize("name", list(ENTRIES))
def test_all_that_the_registry_claims(name):
    """Each pair of method and process runs, forwards and backwards, or is refused with the names of methods that fit."""
    method, ran = ENTRIES[name], 0
    for noise, additive, calculus, adaptive, gradient in product(
        ("diagonal", "scalar", "general"),
        (False, True),
        ("ito", "stratonovich"),
        (False, True),
        ("backprop", "adjoint"),
    ):
        kind = "additive" if additive else noise
        fits = kind in method.strong_order and (additive or method.calculus in ("any", calculus))
        fits &= not (name == "torchsde:euler" and adaptive and not additive)
        fits &= not (name == "torchsde:reversible_heun" and adaptive and gradient == "adjoint")
        backward_euler = adaptive and gradient == "adjoint" and kind == "scalar" and calculus == "ito"
        if not fits or backward_euler:
            with pytest.raises(MethodError, match=r"Methods that can.*: ") as refused:
                solve_with_gradient(name, noise, additive, calculus, adaptive, gradient)
            offered = str(refused.value).rsplit(": ", 1)[1].rstrip(".").split(", ")
            assert name not in offered and set(offered) - {"none"} <= set(sf.methods().keys())
            assert offered == ["none"] or not any(
                sf.methods()[other].misfit(process(noise, additive, calculus), adaptive=adaptive, gradient=gradient)
                for other in offered
            )
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if gradient == "adjoint" and kind == "general" and calculus == "ito":
                warnings.simplefilter("ignore", SdeflowWarning)
            sol, gradients = solve_with_gradient(name, noise, additive, calculus, adaptive, gradient)
        ran += 1
        assert sol.x.shape == (3, 4, 2) and sol.success.all() and sol.x.dtype == D
        assert not torch.equal(sol.x[1], sol.x[2])
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)
    assert ran == {
        "torchsde:adjoint_reversible_heun": 0,
        "torchsde:euler": 6 + 12 + 12,
        "torchsde:milstein": 24 + 8 + 7,
        "torchsde:milstein-grad-free": 4 * 8 - 1,
        "torchsde:reversible_heun": 3 * 9,
        "torchsde:srk": 4 * 8 - 1,
    }.get(name, 4 * 9)


def test_evaluations_are_as_counted():
    """What the process was called for, what stats say, and what the registry says are one number."""
    steps = 5
    for name, noise, additive in CASES:
        real, calls = in_its_calculus(name, noise, additive), {"drift": 0, "diffusion": 0}

        def counting(what, real=real, calls=calls):
            def call(t, x):
                calls[what] += 1
                return getattr(real, what)(t, x)

            return call

        counted = sf.SDE(
            counting("drift"), counting("diffusion"), noise=noise, additive=additive, calculus=real.calculus
        )
        path = path_of(noise, cells=steps)
        sf.solve(counted, X0, steps=1, method="euler-maruyama" if real.calculus == "ito" else "heun", brownian=path)
        own = dict(calls)  # what solve itself needs to look at the process, and one step
        own["drift"] -= 1 if real.calculus == "ito" else 2
        own["diffusion"] -= 1 if real.calculus == "ito" else 2
        calls.update(drift=0, diffusion=0)
        with torch.no_grad():
            stats = sf.solve(counted, X0, steps=steps, method=name, brownian=path).stats
        assert (calls["drift"], calls["diffusion"] - own["diffusion"]) == (
            stats["nfe_drift"],
            stats["nfe_diffusion"] + looked_at(name, noise, additive),
        ), (name, noise, additive)
        f, g = ENTRIES[name].drift_evaluations, ENTRIES[name].diffusion_evaluations
        columns = additive and noise != "diagonal"
        if name == "torchsde:srk" and columns:
            f = g = 3
        if name == "torchsde:milstein-grad-free" and columns:
            g = 1
        if name == "torchsde:log_ode" and noise == "general" and not additive:
            g = 3
        start = name == "torchsde:reversible_heun"
        assert (stats["nfe_drift"], stats["nfe_diffusion"]) == (f * steps + start, g * steps + start), (name, noise)
        assert (stats["accepted"], stats["rejected"]) == (steps, 0)


def looked_at(name, noise, additive):
    """Evaluations of the diffusion besides those of the steps.

    Milstein's method differentiates by a copy of the state, so that torchsde's look at the shape of g is of no use to it;
    and the check of the Jacobian is one more.
    """
    if name != "torchsde:milstein" or (additive and noise != "diagonal"):
        return 0
    return 1 + (noise == "scalar")


# --- fixed steps are torchsde's steps ------------------------------------------------------------------------


class Raw:
    """A process written for torchsde by hand."""

    def __init__(self, sde):
        self.sde, self.sde_type = sde, sde.calculus
        self.noise_type = "additive" if sde.additive and sde.noise != "diagonal" else sde.noise

    def f(self, t, y):
        return self.sde.drift(t, y)

    def g(self, t, y):
        g = self.sde.diffusion(t, y)
        return (
            g
            if self.sde.noise == "general"
            else g.expand_as(y)[:, :, None]
            if self.sde.noise == "scalar"
            else g.expand_as(y)
        )


@pytest.mark.parametrize("grid", [np.linspace(0, 1, 6).tolist(), GRID], ids=["equal", "unequal"])
def test_steps_are_those_of_torchsde(grid):
    """torchsde in its own time, called for one step after the other with the path as its bm, does the same."""
    for name, noise, additive in CASES:
        sde, path = in_its_calculus(name, noise, additive), path_of(noise, seed=5, cells=grid)
        sol = sf.solve(sde, X0, grid, steps=grid, method=name, brownian=path)
        y, extra, options = X0, None, ENTRIES[name].options
        for k, (s, t) in enumerate(pairwise(grid), start=1):
            (_, y), extra = torchsde.sdeint(
                Raw(sde),
                y,
                torch.tensor([s, t], dtype=D),
                bm=path,
                method=options["method"],
                dt=t - s,
                options=options.get("options"),
                extra=True,
                extra_solver_state=extra,
            )
            assert torch.allclose(sol.x[k], y, rtol=1e-12, atol=1e-12), (name, noise, additive, k)


@pytest.mark.parametrize("steps", [7, GRID])
@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
@pytest.mark.parametrize(
    ("wrapped", "native"), [("euler", "euler-maruyama"), ("heun", "heun"), ("euler_heun", "euler-heun")]
)
def test_the_same_as_native_methods(wrapped, native, noise, steps):
    sde, path = (
        in_its_calculus(f"torchsde:{wrapped}", noise),
        path_of(noise, seed=2),
    )  # one cell: steps are not its cells
    ours, theirs = (sf.solve(sde, X0, steps=steps, method=m, brownian=path) for m in (native, f"torchsde:{wrapped}"))
    assert torch.allclose(ours.final, theirs.final, rtol=1e-13, atol=1e-13)
    seeded = [sf.solve(sde, X0, steps=steps, method=m, seed=4).final for m in (native, f"torchsde:{wrapped}")]
    assert torch.allclose(*seeded, rtol=1e-13, atol=1e-13)  # here they are


def test_events_of_any_shape():
    flat = torch.randn(5, 6, dtype=D, generator=torch.Generator().manual_seed(0))
    for name, noise, additive in CASES:
        if noise == "general":
            continue
        sde = in_its_calculus(name, noise, additive)
        finals = []
        for shape in ((5, 6), (5, 2, 3), (5, 6, 1, 1)):
            like = shape if noise == "diagonal" else (5, *[1] * (len(shape) - 1))
            path = sf.BrownianPath(like, 0.0, 1.0, seed=1, cells=4, levy="space-time", dtype=D)
            sol = sf.solve(sde, flat.reshape(shape), [0, 0.5, 1.0], steps=4, method=name, brownian=path)
            assert sol.x.shape == (3, *shape)
            finals.append(sol.final.reshape(5, 6))
        assert all(torch.equal(finals[0], other) for other in finals[1:]), name
        sol = sf.solve(sde, flat.reshape(5, 2, 3), method=name, seed=0, steps=3, gradient="adjoint")
        assert sol.final.shape == (5, 2, 3)


@pytest.mark.parametrize("name", ["torchsde:euler", "torchsde:srk", "torchsde:heun", "torchsde:milstein"])
@pytest.mark.parametrize("noise", ["diagonal", "scalar"])
def test_diffusions_broadcast(name, noise):
    wanted = None
    for g in (0.5, torch.tensor(0.5), torch.full((2,), 0.5), torch.full((4, 1), 0.5), torch.full((4, 2), 0.5)):
        for additive in (True, False):
            g = g.to(D) if isinstance(g, torch.Tensor) else g
            calculus = "stratonovich" if ENTRIES[name].calculus == "stratonovich" else "ito"
            sde = sf.SDE(lambda t, x: -x, lambda t, x, g=g: g, noise=noise, additive=additive, calculus=calculus)
            final = sf.solve(sde, X0, steps=3, method=name, seed=0).final
            wanted = final if wanted is None else wanted
            # Additive scalar noise goes as a column, for which srk has another tableau.
            if not (name == "torchsde:srk" and noise == "scalar" and not additive):
                assert torch.allclose(final, wanted, rtol=1e-13)


def test_no_noise_is_no_trouble():
    for name, noise in product(USABLE, ("diagonal", "scalar")):
        calculus = "stratonovich" if ENTRIES[name].calculus == "stratonovich" else "ito"
        still = sf.SDE(lambda t, x: -x, lambda t, x: 0 * x, noise=noise, calculus=calculus)
        for rule in ({"steps": 50}, {"rtol": 1e-3, "atol": 1e-3}):
            if "rtol" in rule and name == "torchsde:euler":
                continue
            final = sf.solve(still, X0, method=name, seed=0, **rule).final
            assert torch.allclose(final, X0 * math.exp(-1), atol=2e-2)


# --- times --------------------------------------------------------------------------------------------------


def test_save_times_are_hit_by_fixed_steps():
    """Trap 1: with dt=1, torchsde has a standard deviation of .5 at t=.5, the mean of two states; it is .707."""
    x0 = torch.zeros(20_000, 2)
    raw = torchsde.sdeint(Raw(brownian_motion()), x0, torch.tensor([0, 0.5, 1]), method="euler", dt=1.0)[1].std()
    assert abs(raw - 0.5) < 0.015  # torchsde does it still
    sol = sf.solve(brownian_motion(), x0, [0, 0.5, 1.0], dt=1.0, method="torchsde:euler", seed=0)
    assert abs(sol.x[1].std() - math.sqrt(0.5)) < 0.015  # 6 standard errors
    assert sol.stats["accepted"] == 2


@pytest.mark.parametrize("name", USABLE)
def test_save_times_are_hit_by_adaptive_steps(name):
    """Brownian motion at a save time is the path there, bit by bit of float32 or interpolated."""
    path = sf.BrownianPath((4, 2), 0.0, 1.0, seed=0, levy="space-time", dtype=D)
    times = [0.0, 0.123, 0.1230001, 0.77, 1.0]
    sol = sf.solve(brownian_motion(), X0, times, method=name, rtol=1e-2, atol=1e-2, brownian=path, first_step=0.2)
    for t, x in zip(times[1:], sol.x[1:], strict=True):
        assert torch.allclose(x, X0 + path(0.0, t), atol=1e-12)


@pytest.mark.parametrize("name", USABLE)
def test_every_method_and_step_sees_one_path(name):
    """Traps 3 and 4."""
    path = path_of("diagonal", seed=8)
    for rule in ({"steps": 1}, {"steps": 3}, {"dt": 0.03}, {"steps": GRID}, {"rtol": 1e-3, "atol": 1e-3}):
        final = sf.solve(brownian_motion(), X0, method=name, brownian=path, **rule).final
        assert torch.allclose(final, X0 + path(0.0, 1.0), atol=1e-12)
    a, b, c = (sf.solve(process(additive=True), X0, method=name, seed=s, steps=9).final for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.allclose(a, c)


def test_no_slivers():
    """Trap 2: torchsde takes 11 and 1001 steps for these."""
    for x0, dt, steps in ((X0, 0.1, 10), (X0.float(), 1e-3, 1000)):
        stats = sf.solve(brownian_motion(), x0, dt=dt, method="torchsde:euler", seed=0).stats
        assert (stats["accepted"], stats["nfe_drift"]) == (steps, steps)


def times_seen(x0, precise=False, **solve_options):
    seen = []

    class Watched(sf.SDE, precise_time=precise):
        def drift(self, t, x):
            seen.append(t)
            return 0 * x

        def diffusion(self, t, x):
            return 1.0

    sf.solve(Watched(additive=True, interval=(0.0, 3.0)), x0, (0.0, 3.0), seed=0, **solve_options)
    return seen


def test_time_does_not_drift_in_float32():
    """Trap 2 again: 3,000 additions of 1e-3 in float32 end at 2.9999. And a time is never rounded onto the end."""
    seen = times_seen(X0.float(), dt=1e-3, method="torchsde:euler")
    assert all(t.dtype is torch.float32 and t.ndim == 0 for t in seen)
    exact = 3.0 * (np.arange(3000) / 3000)
    np.testing.assert_array_equal(torch.stack(seen).numpy(), np.float32(exact))
    assert all(t < 3.0 for t in times_seen(X0.float(), steps=[0.0, 3.0 - 1e-9, 3.0], method="torchsde:euler"))


@pytest.mark.parametrize("rule", [{"steps": 7}, {"steps": [0.0, 0.3, 0.35, 3.0]}, {"rtol": 1e-2, "atol": 1e-2}])
def test_time_is_float64_where_a_process_wants_it(rule):
    """Trap 11: midpoint looks at the beginning and the middle of every step, at the true time."""
    seen = times_seen(X0.float(), precise=True, method="torchsde:midpoint", **rule)
    assert all(t.dtype is torch.float64 and t.ndim == 0 for t in seen)
    if "steps" in rule:
        nodes = np.asarray(rule["steps"]) if isinstance(rule["steps"], list) else 3.0 * np.arange(8) / 7
        middles = (nodes[1:] + nodes[:-1]) / 2
        wanted = np.stack([nodes[:-1], middles], 1).flatten()
        np.testing.assert_allclose([float(t) for t in seen], wanted, rtol=1e-15)
    assert min(seen) >= 0 and max(seen) <= 3.0


def test_steps_below_float32():
    """torchsde never returns where dt is below the resolution of t in float32."""
    x0 = torch.zeros(5000, 1)
    late = brownian_motion(interval=(1000.0, 1000.00001))
    sol = sf.solve(late, x0, dt=1e-6, method="torchsde:heun", seed=0)
    assert sol.stats["accepted"] == 10
    assert abs(sol.final.std() / math.sqrt(1e-5) - 1) < 0.06  # 6 standard errors
    sol = sf.solve(late, x0[:2], method="torchsde:heun", seed=0, rtol=1e-3, atol=1e-3)
    assert sol.success.all() and sol.final.std() > 0


@pytest.mark.parametrize("dt", [0, 0.0, -0.1, math.nan, math.inf])
def test_bad_steps_are_refused(dt):
    with pytest.raises(ArgumentError, match="dt="):
        sf.solve(process(), X0, dt=dt, method="torchsde:euler")


def test_many_steps():
    """torchsde's own Brownian motion is a RecursionError after 20,000 steps."""
    sde = sf.SDE(lambda t, x: -x, lambda t, x: 0.1, additive=True, interval=(0.0, 20.0))
    sol = sf.solve(sde, torch.zeros(1, 1), steps=25_000, method="torchsde:euler", seed=0)
    assert sol.stats["accepted"] == 25_000 and sol.success.all()


def test_the_backward_clock_is_the_flipped_one():
    """Trap 6: one seed gives the reversal the same trajectory on both clocks, for fixed and for adaptive steps."""
    ou = sf.processes.OrnsteinUhlenbeck(1.0, 0.5, 0.7)

    def score(t, x):
        return (0.5 - x) / 0.245

    for rule in ({"steps": 9}, {"rtol": 1e-2, "atol": 1e-2}):
        for name in ("torchsde:heun", "torchsde:srk"):
            flipped, backward = (
                sf.solve(ou.reverse(score, clock=clock), X0, method=name, seed=1, **rule)
                for clock in ("flipped", "backward")
            )
            assert torch.allclose(flipped.final, backward.final, atol=1e-10)
            assert backward.t[0] == 1.0 and flipped.t[0] == 0.0


def test_options_and_times():
    sol = sf.solve(process(), X0, np.array([0.0, 0.5, 1.0]), steps=4, method="torchsde:srk", seed=0)
    assert sol.t.tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(ArgumentError, match="Did you mean 'method'"):
        sf.solve(process(), X0, steps=4, metod="torchsde:srk")


# --- noise --------------------------------------------------------------------------------------------------


def test_global_generators_are_left_alone():
    """Traps 3 and 10."""
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for name, noise, additive in CASES:
        sde = in_its_calculus(name, noise, additive)
        for gradient in ("backprop", "adjoint"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SdeflowWarning)
                sol = sf.solve(sde, X0.clone().requires_grad_(), steps=2, method=name, seed=0, gradient=gradient)
            sol.final.sum().backward()
    sf.solve(process(additive=True), X0, method="torchsde:srk", seed=0, rtol=1e-2, atol=1e-2)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


def test_a_path_that_is_too_short_is_refused():
    """Trap 5."""
    with pytest.raises(ArgumentError, match=r"covers \[0, 0.9\]"):
        sf.solve(process(), X0, steps=4, method="torchsde:euler", brownian=path_of("diagonal", t1=0.9))
    late = sf.solve(brownian_motion(interval=(2.0, 3.0)), X0, steps=4, method="torchsde:euler", seed=0)
    assert not torch.allclose(late.final, X0)


def test_a_path_without_levy_area_is_refused_where_it_is_needed():
    plain = sf.BrownianPath((4, 2), 0.0, 1.0, seed=0, dtype=D)
    for name in ("torchsde:srk", "torchsde:log_ode"):
        with pytest.raises(ArgumentError, match="levy='space-time'"):
            sf.solve(process(additive=True), X0, steps=4, method=name, brownian=plain)
    sf.solve(process(), X0, steps=4, method="torchsde:milstein", brownian=plain)


def test_a_path_of_another_dtype_is_refused():
    with pytest.raises(ArgumentError, match="float32"):
        sf.solve(process(), X0, steps=4, method="torchsde:euler", brownian=path_of("diagonal", dtype=torch.float32))


def test_a_pickled_path_solves_the_same():
    path = path_of("diagonal")
    again = pickle.loads(pickle.dumps(path))
    one, two = (sf.solve(process(), X0, steps=5, method="torchsde:srk", brownian=p).final for p in (path, again))
    assert torch.equal(one, two)


def test_a_broken_promise_of_additive_noise_is_refused():
    """Trap 9: torchsde would leave out Milstein's term."""
    liar = sf.SDE(lambda t, x: -x, lambda t, x: x, additive=True)
    with pytest.raises(ArgumentError, match="additive"):
        sf.solve(liar, X0, steps=5, method="torchsde:milstein")


@pytest.mark.parametrize(
    "x0", [torch.ones(4, 2, dtype=torch.int64), torch.ones(4, 2, dtype=torch.complex64), torch.ones(4)]
)
def test_states_are_checked(x0):
    with pytest.raises(ArgumentError, match="x0 has"):
        sf.solve(process(), x0, steps=5, method="torchsde:euler")


# --- what is refused ----------------------------------------------------------------------------------------


def test_the_biased_milstein_is_refused():
    strat = process(calculus="stratonovich")
    with pytest.raises(MethodError, match=r"mean error of g''g²dt\^1\.5/4.*torchsde:milstein,"):
        sf.solve(strat, X0, steps=5, method="torchsde:milstein-grad-free")
    sf.solve(strat.to_ito(), X0, steps=5, method="torchsde:milstein-grad-free", seed=0)


def rotation(noise, calculus):
    """Noise whose Jacobian is not symmetric: each coordinate is moved by the other."""
    turn = torch.tensor([1.0, -0.4], dtype=D)
    return sf.SDE(lambda t, x: 0 * x, lambda t, x: turn.to(x) * x.flip(1), noise=noise, calculus=calculus)


@pytest.mark.parametrize(
    ("noise", "calculus"), [("scalar", "ito"), ("scalar", "stratonovich"), ("diagonal", "stratonovich")]
)
def test_milstein_looks_at_the_jacobian(noise, calculus):
    x0 = X0 + 0.3
    twisted = rotation(noise, calculus)
    with pytest.raises(MethodError, match=r"Jacobian|coordinate i") as refused:
        sf.solve(twisted, x0, steps=5, method="torchsde:milstein", seed=0)
    offered = str(refused.value).rsplit(": ", 1)[1].rstrip(".").split(", ")
    assert "torchsde:milstein" not in offered and offered
    sf.solve(twisted, x0, steps=5, method=offered[0], seed=0)
    if calculus == "stratonovich":  # torchsde does it still: its limit is not that of Heun's method
        path = path_of(noise, cells=512)
        raw = torchsde.sdeint(Raw(twisted), x0, torch.tensor([0.0, 1.0]).to(D), bm=path, method="milstein", dt=1 / 512)[
            -1
        ]
        right = sf.solve(twisted, x0, steps=512, method="heun", brownian=path).final
        assert (raw - right).abs().max() > 0.1
    symmetric = sf.SDE(lambda t, x: 0 * x, lambda t, x: 0.5 * x.flip(1), noise="scalar", calculus=calculus)
    sf.solve(symmetric, x0, steps=5, method="torchsde:milstein", seed=0)


def test_the_ito_adjoint_looks_at_the_jacobian():
    twisted = rotation("diagonal", "ito")
    x0 = (X0 + 0.3).requires_grad_()
    for name in ("torchsde:euler", "torchsde:milstein", "torchsde:srk"):
        with pytest.raises(MethodError, match=r"coordinate i .* gradient='backprop': .*torchsde:euler"):
            sf.solve(twisted, x0, steps=5, method=name, seed=0, gradient="adjoint")
        sf.solve(twisted, x0, steps=5, method=name, seed=0)
    sf.solve(twisted.to_stratonovich(), x0, steps=5, method="torchsde:heun", seed=0, gradient="adjoint")


def test_no_graph_without_need():
    """torchsde's Milstein and log-ODE results require grad even if nothing they depend on does, one more node a step."""
    raw = torchsde.sdeint(Raw(process()), X0, torch.tensor([0.0, 1.0]).to(D), method="milstein", dt=0.5)
    assert raw.requires_grad  # torchsde does it still
    for name, noise, additive in CASES:
        assert not sf.solve(in_its_calculus(name, noise, additive), X0, steps=2, method=name, seed=0).x.requires_grad
    scale = torch.tensor(1.0, dtype=D, requires_grad=True)
    for noise, name in (("diagonal", "torchsde:milstein"), ("general", "torchsde:log_ode")):
        calculus = "ito" if noise == "diagonal" else "stratonovich"
        assert sf.solve(process(noise, calculus=calculus, scale=scale), X0, steps=2, method=name).x.requires_grad


# --- adaptive steps -----------------------------------------------------------------------------------------


def test_adaptive_euler_is_for_additive_noise():
    with pytest.raises(MethodError, match="do not converge unless the noise is additive"):
        sf.solve(process(), X0, rtol=1e-2, atol=1e-2, method="torchsde:euler")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sf.solve(process(additive=True), X0, rtol=1e-2, atol=1e-2, method="torchsde:euler", seed=0)


@pytest.mark.parametrize("name", ["torchsde:euler", "torchsde:srk", "torchsde:reversible_heun"])
def test_attempts_are_counted(name, monkeypatch):
    """Against torchsde's own error estimates, of which there is one for each attempt."""
    errors, real = [], adaptive_stepping.compute_error

    def spy(*args, **options):
        errors.append(real(*args, **options))
        return errors[-1]

    monkeypatch.setattr(adaptive_stepping, "compute_error", spy)
    sde = process(additive=True, theta=5.0)
    sol = sf.solve(sde, X0, [0, 0.3, 1.0], rtol=1e-3, atol=1e-3, method=name, seed=0, first_step=0.2)
    accepted = sum(error <= 1 for error in errors)
    assert (sol.stats["accepted"], sol.stats["rejected"]) == (accepted, len(errors) - accepted)
    assert sol.stats["rejected"] > 0
    each = ENTRIES[name].drift_evaluations
    assert sol.stats["nfe_drift"] == 3 * each * len(errors) + (name == "torchsde:reversible_heun")


def test_tighter_tolerances_are_nearer_the_truth():
    path = path_of("diagonal", rows=50, cells=256)
    x0 = torch.linspace(-1, 1, 100, dtype=D).reshape(50, 2)
    for name in ("torchsde:srk", "torchsde:milstein", "torchsde:midpoint"):
        sde = in_its_calculus(name, "diagonal")
        truth = sf.solve(sde.to_ito(), x0, steps=256, method="torchsde:srk", brownian=path).final
        loose, tight = (
            (sf.solve(sde, x0, rtol=tol, atol=tol, method=name, brownian=path).final - truth).square().mean().sqrt()
            for tol in (3e-2, 1e-3)
        )
        assert tight < loose / 2 and tight < 1e-2


def test_the_step_is_carried_over_save_times():
    """More output does not start the search for a step again, neither from below nor from above."""
    options = {"rtol": 1e-4, "atol": 1e-4, "method": "torchsde:heun", "seed": 0, "first_step": 1e-4}
    few, many = (sf.solve(process(additive=True), X0, t, **options).stats for t in ([0.0, 1.0], np.linspace(0, 1, 11)))
    assert many["accepted"] < few["accepted"] + 15
    assert many["rejected"] < few["rejected"] + 15


def test_breakpoints_end_steps():
    jump = sf.SDE(lambda t, x: torch.where(t < 0.5, 0.0, 50.0) + 0 * x, lambda t, x: 0.1, additive=True)
    path = path_of("diagonal")
    options = {"method": "torchsde:heun", "rtol": 1e-4, "atol": 1e-4, "brownian": path}
    without = sf.solve(jump, X0, **options)
    told = sf.solve(jump, X0, breakpoints=[0.5], **options)
    assert told.stats["rejected"] < without.stats["rejected"]
    assert len(told.t) == 2
    assert (told.final - (X0 + 25 + 0.1 * path(0.0, 1.0))).abs().max() < 0.05


def test_max_steps_keeps_what_was_reached():
    options = {"rtol": 1e-3, "atol": 1e-3, "method": "torchsde:srk", "seed": 0, "first_step": 1e-3}
    whole = sf.solve(process(), X0, [0.0, 0.01, 0.02, 1.0], **options)
    with pytest.raises(SolveError, match=r"torchsde:srk has attempted max_steps=14 steps and is at t=0\.") as stopped:
        sf.solve(process(), X0, [0.0, 0.01, 0.02, 1.0], max_steps=14, **options)
    sol = stopped.value.solution
    assert sol.status.tolist() == [sf.Status.MAX_STEPS] * 4
    assert 1 < len(sol.t) < 4 and torch.equal(sol.x, whole.x[: len(sol.t)])
    assert sol.stats["accepted"] + sol.stats["rejected"] == 14
    exact = whole.stats["accepted"] + whole.stats["rejected"]
    assert sf.solve(process(), X0, [0.0, 0.01, 0.02, 1.0], max_steps=exact, **options).success.all()


def test_nan_ends_the_solve():
    began = time.perf_counter()
    hole = sf.SDE(lambda t, x: torch.where(t > 0.5, torch.nan, -1.0) * x, lambda t, x: 0.5, additive=True)
    for gradient in ("backprop", "adjoint"):
        for name in ("torchsde:srk", "torchsde:heun"):
            options = {"method": name, "rtol": 1e-3, "atol": 1e-3, "seed": 0, "gradient": gradient}
            with pytest.raises(SolveError, match=r"infinite or NaN right after t=0\.[34]") as stopped:
                sf.solve(hole, X0.clone().requires_grad_(), [0.0, 0.3, 1.0], **options)
            assert stopped.value.solution.t.tolist() == [0.0, 0.3]
            nowhere = sf.SDE(lambda t, x: torch.nan * x, lambda t, x: 0.5, additive=True)
            sol = sf.solve(nowhere, X0, on_failure="return", **options)
            assert sol.status.tolist() == [sf.Status.NON_FINITE] * 4 and len(sol.t) == 1
    assert time.perf_counter() - began < 20


def test_a_time_in_a_message_is_the_callers():
    ou = sf.processes.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    rev = ou.reverse(lambda t, x: torch.where(t < 0.25, torch.nan, -2.0) * x, clock="backward")
    with pytest.raises(SolveError, match=r"right after t=0\.[23]"):
        sf.solve(rev, X0, rtol=1e-2, atol=1e-2, method="torchsde:srk", seed=0)


def test_overflow_in_the_first_step():
    """A first step that is so large that it overflows is taken back, not the end."""
    steep = sf.SDE(lambda t, x: -1000 * x**3, lambda t, x: 0.1, additive=True)
    sol = sf.solve(steep, 10 * X0.float(), method="torchsde:srk", rtol=1e-2, atol=1e-2, seed=0, first_step=0.5)
    assert sol.success.all() and sol.stats["rejected"] > 0 and sol.final.abs().max() < 1


def test_errors_of_the_process_are_its_own():
    """Only torchsde's step control is second-guessed."""

    def drift(t, x):
        assert float(t) < 0.2, "mine"
        return -x

    for error in (AssertionError, ZeroDivisionError):
        wrong = sf.SDE(
            drift if error is AssertionError else lambda t, x: 1 / int(float(t) < 0.2) * x,
            lambda t, x: 0.1,
            additive=True,
        )
        with pytest.raises(error, match="mine" if error is AssertionError else "zero"):
            sf.solve(wrong, X0, rtol=1e-2, atol=1e-2, method="torchsde:srk", seed=0)


def test_a_blow_up_ends_with_a_sentence():
    blow_up = sf.SDE(lambda t, x: x**2, lambda t, x: 0.1, additive=True)
    with pytest.raises(SolveError, match=r"cannot meet rtol and atol at t=0\.[45].* step of .*e-1") as stopped:
        sf.solve(blow_up, X0[3:].abs() + 1, [0.0, 0.1, 2.0], method="torchsde:heun", rtol=1e-2, atol=1e-2, seed=0)
    assert stopped.value.solution.status.tolist() == [sf.Status.STEP_TOO_SMALL]
    assert stopped.value.solution.t.tolist() == [0.0, 0.1]


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
def test_an_adaptive_sliver_is_stepped_around(gradient, monkeypatch):
    """Ten steps of .1, left alone by the controller, miss 1 by an ulp; a half of that is 0, and srk divides by it."""
    monkeypatch.setattr(adaptive_stepping, "update_step_size", lambda prev_step_size, **_: (prev_step_size, None))
    x0 = X0.clone().requires_grad_()
    path = path_of("diagonal")
    options = {"method": "torchsde:srk", "rtol": 0.5, "atol": 0.5, "first_step": 0.1, "gradient": gradient}
    sol = sf.solve(brownian_motion(), x0, brownian=path, **options)
    assert sol.success.all() and torch.allclose(sol.final, x0 + path(0.0, 1.0))
    assert sol.stats["rejected"] >= 10 and 10 <= sol.stats["accepted"] <= 13


def test_tolerances_have_a_floor():
    with pytest.warns(SdeflowWarning, match="no tolerances below 1e-07"):
        sf.solve(brownian_motion(), X0, rtol=1e-9, atol=1e-9, method="torchsde:srk", seed=0)


def test_a_backward_pass_does_not_run_for_ever():
    """Easy forwards, since atol is large beside the state; hard backwards, since it is small beside such gradients."""
    sde, x0 = process(calculus="stratonovich"), X0.clone().requires_grad_()
    options = {"method": "torchsde:midpoint", "rtol": 1e-5, "atol": 1e-2, "seed": 0, "gradient": "adjoint"}
    sol = sf.solve(sde, x0, max_steps=30, **options)
    with pytest.raises(SolveError, match="backward pass"):
        (1e9 * sol.final.sum()).backward()


# --- gradients ----------------------------------------------------------------------------------------------


def gradients(sde, x0, theta, scale, **options):
    sol = sf.solve(sde, x0, **options)
    parts = torch.autograd.grad(sol.x[1:].square().sum(), (x0, theta, scale))
    return torch.cat([part.flatten() for part in parts])


def disagreement(name, noise, additive, **rule):
    theta, scale = (torch.tensor(v, dtype=D, requires_grad=True) for v in (1.0, 1.0))
    x0 = X0.clone().requires_grad_()
    calculus = "stratonovich" if ENTRIES[name].calculus == "stratonovich" else "ito"
    sde = process(noise, additive, calculus, theta, scale)
    rule = rule or {"steps": 64}
    options = {"method": name, "brownian": path_of(noise, cells=64), "t": [0.0, 0.5, 1.0], **rule}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SdeflowWarning)
        exact, adjoint = (gradients(sde, x0, theta, scale, gradient=g, **options) for g in ("backprop", "adjoint"))
    return float((adjoint - exact).norm() / exact.norm())


@pytest.mark.parametrize(("name", "noise", "additive"), CASES)
def test_adjoint_and_backpropagation_agree(name, noise, additive):
    """To the discretisation of the backward pass: by steps of 1/64."""
    most = {
        "torchsde:reversible_heun": 1e-10,
        "torchsde:heun": 2e-3,
        "torchsde:midpoint": 2e-3,
        "torchsde:log_ode": 2e-3,
        "torchsde:euler_heun": 2e-2,
    }
    ito = 5e-2 if noise == "scalar" and not additive else 2.5e-2
    assert disagreement(name, noise, additive) < most.get(name, ito)


def test_the_adjoint_of_reversible_heun_is_exact_over_unequal_steps():
    """What it remembers is in units of the step, and is converted where the step changes."""
    assert (
        disagreement("torchsde:reversible_heun", "general", False, steps=[0.0, 0.1, 0.2, 0.5, 0.55, 0.9, 1.0]) < 1e-10
    )


@pytest.mark.parametrize(("name", "noise"), [("torchsde:midpoint", "general"), ("torchsde:milstein", "diagonal")])
def test_the_adjoint_of_adaptive_steps(name, noise):
    assert disagreement(name, noise, False, rtol=1e-3, atol=1e-3) < 3e-2


def test_adaptive_reversible_heun_has_no_adjoint():
    strat = process(calculus="stratonovich")
    with pytest.raises(MethodError, match="wrong by up to 3 %"):
        sf.solve(strat, X0, method="torchsde:reversible_heun", gradient="adjoint", rtol=1e-2, atol=1e-2)


def test_the_adjoint_of_general_ito_noise_warns():
    x0 = X0.clone().requires_grad_()
    options = {"method": "torchsde:euler", "steps": 3, "seed": 0, "gradient": "adjoint"}
    with pytest.warns(SdeflowWarning, match="gradient='backprop'"):
        sf.solve(process("general"), x0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sf.solve(process("general", additive=True), x0, **options)
        sf.solve(process(), x0, **options)


def test_closures_get_gradients():
    """Trap 12: leaves, what was computed from leaves, and what only plays a part at the end."""
    shared = {"method": "torchsde:reversible_heun", "steps": 20, "seed": 0}
    found = {}
    for gradient in ("backprop", "adjoint"):
        a, b, late = (torch.tensor(v, dtype=D, requires_grad=True) for v in (0.7, -0.3, 0.2))
        sigma, layer = b.exp(), torch.nn.Linear(2, 2).to(D)
        torch.nn.init.eye_(layer.weight), torch.nn.init.zeros_(layer.bias)
        sde = sf.SDE(
            lambda t, x, a=a, late=late, layer=layer: layer(a * x) + (late * x if float(t) > 0.8 else 0),
            lambda t, x, sigma=sigma: sigma * torch.cos(x),
            calculus="stratonovich",
        )
        sf.solve(sde, X0, gradient=gradient, **shared).final.square().sum().backward()
        found[gradient] = torch.stack([a.grad, b.grad, late.grad, layer.weight.grad[0, 1], layer.bias.grad[0]])
    assert (found["backprop"] != 0).all()
    assert torch.allclose(found["adjoint"], found["backprop"], rtol=1e-9)


@pytest.mark.parametrize(("name", "calculus"), [("torchsde:srk", "ito"), ("torchsde:reversible_heun", "stratonovich")])
def test_second_derivatives(name, calculus):
    theta = torch.tensor(1.0, dtype=D, requires_grad=True)

    def first(method, calculus, gradient):
        sde = process(calculus=calculus, theta=theta)
        sol = sf.solve(sde, X0, method=method, steps=32, brownian=path_of("diagonal", cells=32), gradient=gradient)
        return torch.autograd.grad(sol.final.square().mean(), theta, create_graph=True)[0]

    with pytest.raises(SdeflowError, match="create_graph=True asks for gradients of gradients"):
        first(name, calculus, "adjoint")
    by_steps, by_adjoint = (
        torch.autograd.grad(first("torchsde:midpoint", "stratonovich", g), theta)[0] for g in ("backprop", "adjoint")
    )
    assert abs(by_adjoint / by_steps - 1) < 1e-2


def test_the_adjoint_without_anything_to_differentiate():
    sol = sf.solve(process(), X0, method="torchsde:euler", steps=3, seed=0, gradient="adjoint")
    assert not sol.x.requires_grad
    x0 = X0.clone().requires_grad_()
    with torch.no_grad():
        assert not sf.solve(process(), x0, method="torchsde:euler", steps=3, seed=0, gradient="adjoint").x.requires_grad
