r"""Exponential integrators for semi-linear processes: the samplers of diffusion models as methods of ``solve``.

On a Gaussian path x_t = a x₁ + s x₀ every process with the path's marginals is

.. math:: dx = \Big(\dot a\,\hat x_1 + \dot s\,\hat x_0 - \tfrac{\varepsilon}{s}\,\hat x_0\Big)\,dt + \sqrt{2\varepsilon}\,dW,

with x̂₁ = E[x₁ | x_t], the denoiser, and x̂₀ = (x − a x̂₁)/s. All that is not linear in it is x̂₁; hold that over a step from t to
n, and the rest has a solution,

.. math::
    x_n = a_n\,\hat x_1 + s_n e^{-K}\,\hat x_0 + s_n\sqrt{1 - e^{-2K}}\;z, \qquad K = \int_t^n \varepsilon/s^2\,dt .

With λ = ln(a/s) and h = λ_n − λ_t: the probability flow has K = 0, and this is DDIM; the reversed diffusion has K = h, and it
is ancestral sampling; the diffusion itself has K = −h, and it is exact. The ``marginal_preserving`` SDEs have any K ≥ 0.
How x̂₁ moves during the step is a second-order correction, with the weight a_n (1 − e^{−(h+K)}) of x̂₁: that is DPM-Solver++.

**Steps that begin or end at an infinite λ** (s = 0, no noise left; a = 0, nothing but noise) have no second order: they are
first-order steps, as the last one of Karras et al. Where s = 0, x̂₁ = x/a and x̂₀ = 0, whatever the score is.

**Cost.** An evaluation of the denoiser is one of the model, and is counted as one of the drift.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdeflow.processes.schedules import Schedule
from sdeflow.solvers.methods import Method
from sdeflow.solvers.terms import Advance, Stepper, Terms, root

__all__ = ["EXPONENTIAL_METHODS", "EXPONENTIAL_STEPPERS", "TARGET_SNR"]

TARGET_SNR = 0.16  # of a Langevin step, ‖drift‖ to ‖noise‖: what Song et al. use on images of 32 × 32


class Level(NamedTuple):
    """Where on the path a time is: a, s and λ = ln(a/s), in float64."""

    a: Tensor
    s: Tensor
    half_log_snr: Tensor

    @classmethod
    def at(cls, schedule: Schedule, t: Tensor) -> Level:
        t = t.to(torch.float64)
        return cls(schedule.a(t), schedule.s(t), schedule.log_snr(t) / 2)


class Estimates(NamedTuple):
    """x̂₁ and x̂₀, what data and what noise a state is expected to be made of."""

    data: Tensor
    noise: Tensor


class Leap(NamedTuple):
    """A first-order step, and what it was made from.

    Attributes:
        x: The state at the end of the step.
        estimates: x̂₁ and x̂₀ at its beginning.
        start: The level at its beginning.
        end: The level at its end.
        h: λ_n − λ_t; infinite where s or a is 0 at an end.
        weight: a_n (1 − e^{−(h+K)}), that of x̂₁ in x.
        decay: h + K, what x̂₁ is forgotten by.
    """

    x: Tensor
    estimates: Estimates
    start: Level
    end: Level
    h: Tensor
    weight: Tensor
    decay: Tensor


def schedule_of(terms: Terms) -> Schedule:
    schedule = terms.process.schedule
    assert schedule is not None  # the registry says that it is needed
    return schedule


def estimate(terms: Terms, t: Tensor, level: Level, x: Tensor) -> Estimates:
    """x̂₁ and x̂₀ from one evaluation of the denoiser."""
    a, s = level.a.to(x.dtype), level.s.to(x.dtype)
    noisy = s > 0
    # No branch divides by 0: what is not taken would still be in the gradient.
    data = torch.where(noisy, terms.denoiser(t, x), x / torch.where(noisy, 1.0, a))
    return Estimates(data, (x - a * data) / torch.where(noisy, s, 1.0))


def noise_replaced(terms: Terms, middle: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """K, from the ratio of the process's noise to the diffusion's, 2ε to g², in the middle of the step: 1 for a reversal."""
    squared = terms.diffusion(middle, x).to(torch.float64).square()
    g2 = schedule_of(terms).squared_diffusion(middle.to(torch.float64)).abs()
    return torch.where(squared > 0, h.abs() * squared / g2, 0.0)


def leap(terms: Terms, times: Sequence[Tensor], x: Tensor) -> Leap:
    """The step that is exact where x̂₁ stands still."""
    t, middle, n = times
    schedule = schedule_of(terms)
    start, end = Level.at(schedule, t), Level.at(schedule, n)
    h = end.half_log_snr - start.half_log_snr
    estimates = estimate(terms, t, start, x)
    a, s = end.a.to(x.dtype), end.s.to(x.dtype)
    decay = h
    if terms.W is None:
        moved = a * estimates.data + s * estimates.noise
    else:
        K = noise_replaced(terms, middle, x, h)
        z = terms.W / root(terms.h)
        kept, fresh = (-K).exp().to(x.dtype), (-torch.expm1(-2 * K)).sqrt().to(x.dtype)
        moved = a * estimates.data + s * (kept * estimates.noise + fresh * z)
        decay = torch.where(h.isfinite(), h + K, h)
    return Leap(moved, estimates, start, end, h, -end.a * torch.expm1(-decay), decay)


def corrected(move: Leap, weight: Tensor, difference: Tensor) -> Tensor:
    """The leap with weight · difference added, where h is finite."""
    return move.x + torch.where(move.h.isfinite(), weight, 0.0).to(move.x.dtype) * difference


class ExponentialStepper:
    """What the methods of this file have in common; the middle of a step is for its noise."""

    places = (0.0, 0.5, 1.0)
    error_order = None


class ExponentialEuler(ExponentialStepper):
    """x̂₁ stands still: DDIM, and ancestral sampling."""

    def step(self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        return Advance(leap(terms, times, x).x)


class ExponentialMultistep(ExponentialStepper):
    """x̂₁ goes on as between the last two steps: (1 + 1/2r) x̂₁ − (1/2r) x̂₁', r = h'/h. It hands on x̂₁ and h."""

    def step(
        self,
        terms: Terms,
        times: Sequence[Tensor],
        x: Tensor,
        first: tuple[Tensor, Tensor] | None = None,
        error: bool = False,
    ) -> Advance:
        move = leap(terms, times, x)
        data, y = move.estimates.data, move.x
        if first is not None:
            before, h_before = first
            y = corrected(move, move.weight * move.h / (2 * h_before), data - before)
        return Advance(y, None, (data, move.h))


class ExponentialHeun(ExponentialStepper):
    """x̂₁ goes straight to its value at the end of a first-order step: a_n (1 − (1 − e^{−c})/c) of the change, c = h + K."""

    def step(self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        move = leap(terms, times, x)
        there = estimate(terms, times[2], move.end, move.x)
        c = move.decay
        weight = torch.where(c == 0, 0.0, move.end.a * (1 + torch.expm1(-c) / c))
        return Advance(corrected(move, weight, there.data - move.estimates.data))


class SigmaHeun(ExponentialStepper):
    """Heun's method for y = x/a in σ = s/a, where dy/dσ = x̂₀; its first stage is DDIM."""

    def step(self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        move = leap(terms, times, x)
        there = estimate(terms, times[2], move.end, move.x)
        weight = 0.5 * (move.end.s - move.end.a * move.start.s / move.start.a)
        return Advance(corrected(move, weight, there.noise - move.estimates.noise))


class PredictorCorrector(ExponentialStepper):
    """An ancestral step, and a Langevin step at its end, each sample's by its own norms.

    The Langevin step is u s² with u = 2α (r‖z‖/‖x̂₀‖)² and α = (a_t/a_n)², which is 1 − β of a discrete VP and 1 for VE. It is
    at most s², which takes a state as far as a x̂₁: where the score vanishes, it would have no bound. Its noise z is that of
    the space-time Lévy area of the step, H = √(h/12) z, which is independent of W.
    """

    def step(self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        move = leap(terms, times, x)
        assert terms.H is not None
        y, z = move.x, terms.H * math.sqrt(12) / root(terms.h)
        noise = estimate(terms, times[2], move.end, y).noise
        alpha = (move.start.a / move.end.a).square().to(x.dtype)
        u = (2 * alpha * (TARGET_SNR * norms(z) / norms(noise)).square()).clamp(max=1.0)
        s = move.end.s.to(x.dtype)
        return Advance(y + s * ((2 * u).sqrt() * z - u * noise))


def norms(v: Tensor) -> Tensor:
    """‖v‖ of each sample, broadcasting against v."""
    size: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return size.reshape(-1, *[1] * (v.ndim - 1))


EXPONENTIAL_STEPPERS: Mapping[str, Stepper] = {
    "ddim": ExponentialEuler(),
    "dpmpp-2m": ExponentialMultistep(),
    "exponential-heun": ExponentialHeun(),
    "edm-heun": SigmaHeun(),
    "ancestral": ExponentialEuler(),
    "sde-dpmpp-2m": ExponentialMultistep(),
    "predictor-corrector": PredictorCorrector(),
}

_DPM_SOLVER = (
    "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022), "
    "https://arxiv.org/abs/2211.01095"
)


def _method(name: str, denoiser: int, paper: str, **known: Any) -> Method:
    noisy = "strong_order" in known
    return Method(
        name,
        "native",
        drift_evaluations=denoiser,
        diffusion_evaluations=1 if noisy else None,
        needs=(*(("W",) if noisy else ()), *known.pop("area", ()), "schedule", "score"),
        gradients=("backprop", "checkpoint"),
        paper=paper,
        **known,
    )


def _additive(strong: float, weak: float) -> dict[str, Mapping[str, float]]:
    return {"strong_order": {"additive": strong}, "weak_order": {"additive": weak}}


EXPONENTIAL_METHODS = (
    _method(
        "ddim",
        1,
        "Denoising Diffusion Implicit Models (Song, Meng & Ermon, 2021), https://arxiv.org/abs/2010.02502",
        ode_order=1,
    ),
    _method("dpmpp-2m", 1, _DPM_SOLVER, ode_order=2),
    _method(
        "exponential-heun",
        2,
        "Exponential integrators (Hochbruck & Ostermann, 2010), https://doi.org/10.1017/S0962492910000048",
        ode_order=2,
        **_additive(1.0, 2.0),
    ),
    _method(
        "edm-heun",
        2,
        "Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), "
        "https://arxiv.org/abs/2206.00364",
        ode_order=2,
    ),
    _method(
        "ancestral",
        1,
        "Denoising Diffusion Probabilistic Models (Ho, Jain & Abbeel, 2020), https://arxiv.org/abs/2006.11239",
        **_additive(1.0, 1.0),
    ),
    _method("sde-dpmpp-2m", 1, _DPM_SOLVER, **_additive(1.0, 2.0)),
    # Its Langevin steps have a size of their own, which dt does not make smaller: there is a bias that stays.
    _method(
        "predictor-corrector",
        2,
        "Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), "
        "https://arxiv.org/abs/2011.13456",
        area=("H",),
        **_additive(0.0, 0.0),
    ),
)
