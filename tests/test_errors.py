"""Bad input gets a sentence of ours, never a traceback from inside torch: the whole list in one test."""

from collections.abc import Callable

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal

import sdeflow as sf

X = torch.zeros(3, 2)


def sde(**kwargs):
    return sf.SDE(lambda t, x: -x, lambda t, x: torch.ones_like(x), **kwargs)


def ode(velocity=lambda t, x: -x, **kwargs):
    return sf.ODE(velocity, **kwargs)


def solve(process=None, x0=X, t=None, **kwargs):
    return sf.solve(process or sde(), x0, t, **(kwargs or {"dt": 0.1}))


def normal(*shape):
    return Independent(Normal(torch.zeros(shape), torch.ones(shape)), len(shape))


def general(shape):
    return sf.SDE(lambda t, x: -x, lambda t, x: torch.zeros(shape), noise="general")


class Uninitialised(sf.ODE):
    def __init__(self):
        pass

    def velocity(self, t, x):
        return -x


def by_the_clock(t, x):
    return x if t < 0.5 else -x


STRATONOVICH = {"calculus": "stratonovich"}
VP = sf.processes.VariancePreserving()

BAD: dict[str, tuple[Callable[[], object], type[Exception], tuple[str, ...]]] = {
    # coefficients
    "drift of the wrong shape": (
        lambda: solve(sf.SDE(lambda t, x: x[:, :1], lambda t, x: x)),
        sf.ArgumentError,
        ("drift", "(3, 1)", "(3, 2)"),
    ),
    "drift of the wrong dtype": (
        lambda: solve(sf.SDE(lambda t, x: x.double(), lambda t, x: x)),
        sf.ArgumentError,
        ("drift", "float64", "float32"),
    ),
    "drift that is no tensor": (
        lambda: solve(sf.SDE(lambda t, x: None, lambda t, x: x)),
        sf.ArgumentError,
        ("drift", "NoneType"),
    ),
    "drift that is a number": (lambda: sf.SDE(1.0, lambda t, x: x), sf.ArgumentError, ("drift", "1.0", "function")),
    "diffusion of the wrong shape": (
        lambda: solve(sf.SDE(lambda t, x: x, lambda t, x: torch.ones(3, 5))),
        sf.ArgumentError,
        ("diffusion", "(3, 5)", "broadcast"),
    ),
    "diffusion of the wrong dtype": (
        lambda: solve(sf.SDE(lambda t, x: x, lambda t, x: x.double())),
        sf.ArgumentError,
        ("diffusion", "float64"),
    ),
    "a matrix as diagonal diffusion": (
        lambda: solve(sf.SDE(lambda t, x: x, lambda t, x: torch.ones(3, 2, 4))),
        sf.ArgumentError,
        ("general", "(3, 2, 4)"),
    ),
    "general diffusion without its columns": (lambda: solve(general((3, 2))), sf.ArgumentError, ("(3, 2, M)",)),
    "general noise on an image": (
        lambda: solve(general((3, 4, 4)), torch.zeros(3, 4, 4)),
        sf.ArgumentError,
        ("general", "(3, 4, 4)", "diagonal"),
    ),
    "velocity of the wrong shape": (
        lambda: solve(ode(lambda t, x: x.sum(1, keepdim=True))),
        sf.ArgumentError,
        ("velocity", "(3, 1)"),
    ),
    "score of the wrong shape": (
        lambda: solve(VP.reverse(lambda t, x: x.sum(1))),
        sf.ArgumentError,
        ("score", "(3,)", "(3, 2)"),
    ),
    "no drift at all": (lambda: solve(sf.SDE(None, lambda t, x: x)), sf.ArgumentError, ("SDE", "no drift")),
    "additive that is not": (
        lambda: solve(sf.SDE(lambda t, x: x, lambda t, x: x, additive=True)),
        sf.ArgumentError,
        ("additive",),
    ),
    "additive under a probability flow": (
        lambda: solve(sf.SDE(lambda t, x: x, lambda t, x: x, additive=True).probability_flow(lambda t, x: -x)),
        sf.ArgumentError,
        ("additive",),
    ),
    "additive under a reversed probability flow": (
        lambda: solve(
            sf.SDE(lambda t, x: x, lambda t, x: x, additive=True).to_stratonovich().probability_flow(lambda t, x: -x),
            t=(1.0, 0.0),
        ),
        sf.ArgumentError,
        ("additive",),
    ),
    "additive under the density of a flow": (
        lambda: sf.Flow(
            sf.SDE(lambda t, x: x, lambda t, x: x, additive=True).probability_flow(lambda t, x: -x), normal(2)
        ).log_prob(X),
        sf.ArgumentError,
        ("additive",),
    ),
    "additive under a family of SDEs": (
        lambda: solve(sf.SDE(lambda t, x: x, lambda t, x: x, additive=True).marginal_preserving(lambda t, x: -x, 0.1)),
        sf.ArgumentError,
        ("additive",),
    ),
    "additive that is a word": (lambda: sde(additive="no"), sf.ArgumentError, ("additive='no'", "True")),
    "a process that was not initialised": (
        lambda: solve(Uninitialised()),
        sf.ArgumentError,
        ("Uninitialised", "super().__init__("),
    ),
    "the drift of a process that was not initialised": (
        lambda: Uninitialised().drift(0.5, X),
        sf.ArgumentError,
        ("Uninitialised", "super().__init__("),
    ),
    # words and intervals
    "unknown noise": (lambda: sde(noise="diagnal"), sf.ArgumentError, ("diagnal", "'diagonal'")),
    "unknown calculus": (lambda: sde(calculus="Ito"), sf.ArgumentError, ("Ito", "'ito'")),
    "unknown clock": (lambda: VP.reverse(lambda t, x: x, clock="backwards"), sf.ArgumentError, ("'backward'",)),
    "empty interval": (lambda: sde(interval=(1.0, 1.0)), sf.ArgumentError, ("interval", "empty")),
    "turned interval": (lambda: ode(interval=(1.0, 0.0)), sf.ArgumentError, ("interval", "t0 < t1")),
    "interval of words": (lambda: sde(interval="ab"), sf.ArgumentError, ("interval", "'ab'")),
    "bridge to its end": (
        lambda: sf.processes.BrownianBridge(0.0, interval=(0.0, 1.0)),
        sf.ArgumentError,
        ("infinite", "1"),
    ),
    "cosine to its end": (
        lambda: sf.processes.CosineVariancePreserving(interval=(0.0, 1.0)),
        sf.ArgumentError,
        ("infinite",),
    ),
    "negative sigma": (lambda: sf.processes.BrownianMotion(-1.0), sf.ArgumentError, ("sigma", "positive")),
    "negative epsilon": (lambda: VP.marginal_preserving(lambda t, x: x, -1.0), sf.ArgumentError, ("epsilon", "-1.0")),
    "negative epsilon of t": (
        lambda: solve(VP.marginal_preserving(lambda t, x: -x, lambda t: t - 0.5)),
        sf.ArgumentError,
        ("epsilon(t)", "-0.5", "≥ 0"),
    ),
    "epsilon a word": (lambda: VP.marginal_preserving(lambda t, x: x, "a"), sf.ArgumentError, ("epsilon='a'",)),
    "epsilon a vector": (
        lambda: VP.marginal_preserving(lambda t, x: x, torch.ones(2)),
        sf.ArgumentError,
        ("epsilon=", "number"),
    ),
    "epsilon of t a word": (
        lambda: solve(VP.marginal_preserving(lambda t, x: -x, lambda t: "a")),
        sf.ArgumentError,
        ("epsilon(t)", "'a'"),
    ),
    "epsilon of t a vector": (
        lambda: solve(VP.marginal_preserving(lambda t, x: -x, lambda t: torch.ones(2))),
        sf.ArgumentError,
        ("epsilon(t)", "(2,)"),
    ),
    "a diffusion on the generative clock": (
        lambda: sf.processes.ScheduledDiffusion(sf.processes.LinearSchedule()),
        sf.ArgumentError,
        ("g²", "negative", "noising clock", "flip"),
    ),
    "a diffusion on no schedule": (
        lambda: sf.processes.ScheduledDiffusion(VP),
        sf.ArgumentError,
        ("VariancePreserving", "Schedule"),
    ),
    "beta a word": (lambda: sf.processes.VariancePreserving("a"), sf.ArgumentError, ("beta_min='a'",)),
    "beta a vector": (
        lambda: sf.processes.SubVariancePreserving(torch.ones(2)),
        sf.ArgumentError,
        ("beta_min=", "one finite number"),
    ),
    "beta infinite": (
        lambda: sf.processes.VariancePreserving(beta_max=float("inf")),
        sf.ArgumentError,
        ("beta_max=inf", "finite"),
    ),
    "sigma infinite": (
        lambda: sf.processes.VarianceExploding(sigma_max=float("inf")),
        sf.ArgumentError,
        ("sigma_max=inf", "finite"),
    ),
    "bridge to a word": (lambda: sf.processes.BrownianBridge(0.0, time="a"), sf.ArgumentError, ("time='a'",)),
    "friction of the wrong shape": (
        lambda: solve(
            sf.processes.UnderdampedLangevin(lambda q: -q, friction=torch.tensor([1.0, 2.0])), torch.zeros(3, 2, 5)
        ),
        sf.ArgumentError,
        ("friction", "(3, 5)"),
    ),
    "a schedule of the wrong shape": (
        lambda: sf.processes.CustomSchedule(lambda t: torch.ones(2), lambda t: t).a(0.5),
        sf.ArgumentError,
        ("(2,)", "shape of t"),
    ),
    "a word as the time of a schedule": (lambda: VP.schedule.a("a"), sf.ArgumentError, ("t='a'",)),
    "flat phase space": (
        lambda: solve(sf.processes.UnderdampedLangevin(lambda q: -q)),
        sf.ArgumentError,
        ("(B, 2, *event)",),
    ),
    # the state
    "integer state": (lambda: solve(x0=torch.zeros(3, 2, dtype=torch.int64)), sf.ArgumentError, ("int64", "float")),
    "half state": (lambda: solve(x0=torch.zeros(3, 2).half()), sf.ArgumentError, ("float16", "autocast")),
    "complex state": (lambda: solve(x0=torch.zeros(3, 2, dtype=torch.complex64)), sf.ArgumentError, ("complex64",)),
    "state with NaN": (lambda: solve(x0=X.clone().fill_(float("nan"))), sf.ArgumentError, ("3 of 3",)),
    "empty batch": (lambda: solve(x0=torch.zeros(0, 2)), sf.ArgumentError, ("(0, 2)", "empty")),
    "no batch axis": (lambda: solve(x0=torch.zeros(2)), sf.ArgumentError, ("(2,)", "batch", "x0[None]")),
    "a list as state": (lambda: solve(x0=[[0.0, 1.0]]), sf.ArgumentError, ("list", "tensor")),
    "a function as process": (lambda: sf.solve(lambda t, x: x, X), sf.ArgumentError, ("sf.SDE",)),
    # times and steps
    "t not monotonic": (lambda: solve(t=[0.0, 0.5, 0.2]), sf.ArgumentError, ("monotonic",)),
    "t repeated": (lambda: solve(t=[0.0, 0.5, 0.5]), sf.ArgumentError, ("monotonic",)),
    "t empty": (lambda: solve(t=[]), sf.ArgumentError, ("0 times",)),
    "t a number": (lambda: solve(t=1.0), sf.ArgumentError, ("t=1.0",)),
    "t with NaN": (lambda: solve(t=[0.0, float("nan")]), sf.ArgumentError, ("finite",)),
    "t against the direction": (lambda: solve(t=(1.0, 0.0)), sf.ArgumentError, ("down", "reverse(score")),
    "backward clock forward": (
        lambda: solve(VP.reverse(lambda t, x: -x, clock="backward"), t=(0.0, 1.0)),
        sf.ArgumentError,
        ("backward clock", "decreasing"),
    ),
    "t outside a confined process": (lambda: solve(VP, t=(0.0, 2.0)), sf.ArgumentError, ("[0, 1]", "interval=")),
    "dt zero": (lambda: solve(dt=0.0), sf.ArgumentError, ("dt=0.0", "positive")),
    "dt negative": (lambda: solve(dt=-0.1), sf.ArgumentError, ("dt=-0.1",)),
    "dt NaN": (lambda: solve(dt=float("nan")), sf.ArgumentError, ("dt=nan",)),
    "dt infinite": (lambda: solve(dt=float("inf")), sf.ArgumentError, ("dt=inf",)),
    "dt a string": (lambda: solve(dt="0.1"), sf.ArgumentError, ("dt='0.1'",)),
    "dt below rounding": (lambda: solve(t=(1e9, 1e9 + 1), dt=1e-9), sf.ArgumentError, ("small", "float64")),
    "steps zero": (lambda: solve(steps=0), sf.ArgumentError, ("steps=0",)),
    "steps a string": (lambda: solve(steps="many"), sf.ArgumentError, ("steps='many'",)),
    "a grid that turns": (lambda: solve(steps=[0.0, 0.7, 0.5, 1.0]), sf.ArgumentError, ("monotonic",)),
    "a grid that ends early": (lambda: solve(steps=[0.0, 0.5]), sf.ArgumentError, ("begin and end together",)),
    "dt with rtol": (lambda: solve(dt=0.1, rtol=1e-3), sf.ArgumentError, ("dt", "rtol", "exactly one")),
    "dt with steps": (lambda: solve(dt=0.1, steps=10), sf.ArgumentError, ("dt and steps",)),
    "an SDE with no step rule": (lambda: sf.solve(sde(), X), sf.ArgumentError, ("step rule", "dt=")),
    "negative rtol": (lambda: solve(ode(), rtol=-1.0), sf.ArgumentError, ("rtol=-1.0",)),
    "zero tolerances": (lambda: solve(ode(), rtol=0.0, atol=0.0), sf.ArgumentError, ("both 0",)),
    "max_steps zero": (lambda: solve(ode(), rtol=1e-3, max_steps=0), sf.ArgumentError, ("max_steps=0",)),
    "first_step negative": (lambda: solve(ode(), rtol=1e-3, first_step=-1.0), sf.ArgumentError, ("first_step",)),
    "breakpoints a number": (lambda: solve(dt=0.1, breakpoints=0.5), sf.ArgumentError, ("breakpoints=0.5",)),
    # options and methods
    "unknown option": (lambda: solve(dt=0.1, sed=3), sf.ArgumentError, ("'sed'", "'seed'")),
    "unknown method": (lambda: solve(dt=0.1, method="huen"), sf.MethodError, ("'huen'", "'heun'")),
    "a number as method": (lambda: solve(dt=0.1, method=4), sf.MethodError, ("method=4",)),
    "method for ODEs on an SDE": (lambda: solve(dt=0.1, method="rk4"), sf.MethodError, ("rk4", "euler-maruyama")),
    "method for SDEs on an ODE": (
        lambda: solve(ode(), dt=0.1, method="euler-maruyama"),
        sf.MethodError,
        ("needs noise", "rk4"),
    ),
    "method of the other calculus": (
        lambda: solve(dt=0.1, method="heun"),
        sf.MethodError,
        ("stratonovich", "to_stratonovich()", "euler-maruyama"),
    ),
    "Itô method on Stratonovich": (
        lambda: solve(sde(**STRATONOVICH), dt=0.1, method="euler-maruyama"),
        sf.MethodError,
        ("to_ito()", "heun"),
    ),
    "fixed steps with tolerances": (
        lambda: solve(ode(), rtol=1e-3, method="rk4"),
        sf.MethodError,
        ("fixed", "tsit5"),
    ),
    "tolerances with fixed steps": (
        lambda: solve(ode(), dt=0.1, method="torchdiffeq:dopri5"),
        sf.MethodError,
        ("rtol", "rk4"),
    ),
    "unknown gradient mode": (lambda: solve(dt=0.1, gradient="adjiont"), sf.ArgumentError, ("'adjoint'",)),
    "adjoint of a native method": (
        lambda: solve(ode(), dt=0.1, method="rk4", gradient="adjoint"),
        sf.MethodError,
        ("backprop", "torchdiffeq:rk4"),
    ),
    "unknown on_failure": (lambda: solve(dt=0.1, on_failure="ignore"), sf.ArgumentError, ("on_failure",)),
    "a method of the registry": (lambda: sf.methods()["zzz"], sf.MethodError, ("'zzz'", "sf.methods()")),
    "a wrapped method by its own name": (
        lambda: solve(dt=0.1, method="srk"),
        sf.MethodError,
        ("'srk'", "'torchsde:srk'"),
    ),
    # noise
    "seed of an ODE a word": (lambda: solve(ode(), dt=0.1, seed="a"), sf.ArgumentError, ("seed",)),
    "seed a float": (lambda: solve(dt=0.1, seed=0.5), sf.ArgumentError, ("seed",)),
    "seed negative": (lambda: solve(dt=0.1, seed=-1), sf.ArgumentError, ("seed",)),
    "seed with a path": (
        lambda: solve(dt=0.1, seed=1, brownian=sf.BrownianPath((3, 2), 0.0, 1.0, seed=1)),
        sf.ArgumentError,
        ("seed and brownian",),
    ),
    "a path of the wrong shape": (
        lambda: solve(dt=0.1, brownian=sf.BrownianPath((4, 2), 0.0, 1.0, seed=1)),
        sf.ArgumentError,
        ("(4, 2)", "(3, 2)"),
    ),
    "a path of the wrong dtype": (
        lambda: solve(dt=0.1, brownian=sf.BrownianPath((3, 2), 0.0, 1.0, seed=1, dtype=torch.float64)),
        sf.ArgumentError,
        ("float64",),
    ),
    "a path that is too short": (
        lambda: solve(dt=0.1, brownian=sf.BrownianPath((3, 2), 0.0, 0.5, seed=1)),
        sf.ArgumentError,
        ("[0, 0.5]", "[0, 1]"),
    ),
    "a path for an ODE": (
        lambda: solve(ode(), dt=0.1, brownian=sf.BrownianPath((3, 2), 0.0, 1.0, seed=1)),
        sf.ArgumentError,
        ("no noise",),
    ),
    # processes and laws
    "no closed-form law": (lambda: sde().marginal(X, 0.5), sf.ArgumentError, ("SDE", "closed form")),
    "law at the start": (lambda: VP.marginal(X, 0.0), sf.ArgumentError, ("point mass",)),
    "no prior": (lambda: sde().prior((2,)), sf.ArgumentError, ("prior",)),
    "time of the wrong shape": (lambda: VP.drift(torch.zeros(5), X), sf.ArgumentError, ("(5,)", "(3,)")),
    "time a word": (lambda: VP.drift("a", X), sf.ArgumentError, ("'a'", "time")),
    "law of a reversal": (
        lambda: VP.reverse(lambda t, x: -x, "backward").marginal(X, 0.5),
        sf.ArgumentError,
        ("the reversal has", "closed form"),
    ),
    "an ODE for Nelson": (lambda: sf.nelson_score(sde(), ode()), sf.ArgumentError, ("ODE", "two SDEs")),
    "residual of integers": (
        lambda: sf.continuity_residual(lambda t, x: x, lambda t, x: x.sum(1), 0.5, X.long()),
        sf.ArgumentError,
        ("int64", "floating-point"),
    ),
    "reversal of an ODE": (lambda: ode().reverse(lambda t, x: x), sf.ArgumentError, ("no noise", "decreasing times")),
    "denoiser without a score": (lambda: VP.denoiser(0.5, X), sf.ArgumentError, ("score",)),
    "unknown quantity": (
        lambda: sf.processes.convert(VP.schedule, 0.5, X, X, given="skore", wanted="data"),
        sf.ArgumentError,
        ("'score'",),
    ),
    "singular noise for Nelson": (
        lambda: sf.nelson_score(
            sf.processes.UnderdampedLangevin(lambda q: -q), sf.processes.UnderdampedLangevin(lambda q: -q)
        )(0.5, torch.zeros(3, 2, 1)),
        sf.ArgumentError,
        ("singular",),
    ),
    # flows
    "base of the wrong event shape": (
        lambda: sf.Flow(ode(), normal(3)).log_prob(X),
        sf.ArgumentError,
        ("(3, 2)", "event_shape (3,)"),
    ),
    "base without events": (
        lambda: sf.Flow(ode(), Normal(torch.zeros(2), torch.ones(2))),
        sf.ArgumentError,
        ("Independent",),
    ),
    "base that is no law": (lambda: sf.Flow(ode(), X), sf.ArgumentError, ("Distribution",)),
    "an SDE as flow": (lambda: sf.Flow(sde(), normal(2)), sf.ArgumentError, ("probability_flow",)),
    "base at neither end": (lambda: sf.Flow(ode(), normal(2), "ends"), sf.ArgumentError, ("'end'",)),
    "unknown divergence": (
        lambda: sf.Flow(ode(), normal(2), divergence="hutchinsen"),
        sf.ArgumentError,
        ("'hutchinson'",),
    ),
    "no divergence chosen": (lambda: sf.Flow(ode(), normal(65)), sf.ArgumentError, ("65", "hutchinson")),
    "no probes": (lambda: sf.Flow(ode(), normal(2), probes=0), sf.ArgumentError, ("probes=0",)),
    "unknown flow option": (lambda: sf.Flow(ode(), normal(2), rtoll=1e-3), sf.ArgumentError, ("'rtol'",)),
    "unknown method of a flow": (
        lambda: sf.Flow(ode(), normal(2), method="dopr5"),
        sf.MethodError,
        ("'dopr5'", "'dopri5'"),
    ),
    "differentiable samples of a base that has none": (
        lambda: sf.Flow(ode(), Independent(Bernoulli(torch.full((2,), 0.5)), 1)).rsample((3,)),
        sf.ArgumentError,
        ("rsample", "Bernoulli", "sample()"),
    ),
    "a velocity that decides by the time": (
        lambda: sf.Flow(ode(by_the_clock), normal(2)).sample((3,)),
        sf.ArgumentError,
        ("torch.where", "stepping='shared'"),
    ),
    "divergence of the wrong shape": (
        lambda: sf.Flow(ode(), normal(2), divergence=lambda t, x: x).log_prob(X),
        sf.ArgumentError,
        ("(3, 2)", "(3,)"),
    ),
    "bits on no range": (
        lambda: sf.bits_per_dim(torch.zeros(1), 2, 256, (1.0, 0.0)),
        sf.ArgumentError,
        ("data_range",),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_sentence(name):
    call, kind, words = BAD[name]
    with pytest.raises(sf.SdeflowError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is kind
    for word in words:
        assert word in message, message
    assert message.strip().endswith((".", ")")) and len(message) > 30, message


def test_argument_errors_are_value_errors():
    assert issubclass(sf.ArgumentError, ValueError)


def test_a_failed_solve_carries_what_was_computed():
    """dx/dt = x² from 2 is infinite at t = .5; the sample from 0.1 goes on undisturbed."""
    x0 = torch.tensor([[2.0], [0.1]])
    with pytest.raises(sf.SolveError, match="1 of 2 samples") as caught:
        sf.solve(ode(lambda t, x: x**2, interval=(0.0, 2.0)), x0, t=[0.0, 0.2, 2.0], dt=0.01)
    partial = caught.value.solution
    assert partial.status.tolist() == [sf.Status.NON_FINITE, sf.Status.SUCCESS]
    assert partial.x[1, 0].item() == pytest.approx(2 / (1 - 2 * 0.2), rel=1e-5)
    assert partial.final[1].item() == pytest.approx(0.1 / (1 - 0.1 * 2), rel=1e-5)
    returned = sf.solve(
        ode(lambda t, x: x**2, interval=(0.0, 2.0)), x0, t=[0.0, 0.2, 2.0], dt=0.01, on_failure="return"
    )
    assert torch.equal(returned.final[1], partial.final[1])
