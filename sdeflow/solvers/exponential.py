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

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sdeflow.processes.process import Process
from sdeflow.solvers.churn import SigmaHeun
from sdeflow.solvers.leaps import (
    Number,
    Planned,
    denoised,
    held,
    leap_at,
    leaps,
    mixed,
    of_first_order,
    plus,
    quotient,
)
from sdeflow.solvers.methods import Method
from sdeflow.solvers.terms import Advance, Stepper, Terms, root
from sdeflow.types import Times

__all__ = ["EXPONENTIAL_METHODS", "EXPONENTIAL_STEPPERS", "TARGET_SNR"]

TARGET_SNR = 0.16  # of a Langevin step, ‖drift‖ to ‖noise‖: what Song et al. use on images of 32 × 32


class ExponentialStepper:
    """What the methods of this file have in common; the middle of a step is for its noise."""

    places = (0.0, 0.5, 1.0)
    error_order = None
    stages = 1

    def plan(self, process: Process, times: Sequence[Times], x: Tensor) -> Sequence[Planned] | None:
        return leaps(process, times, x, self.stages)


class ExponentialEuler(ExponentialStepper):
    """x̂₁ stands still: DDIM, and ancestral sampling."""

    def step(self, terms: Terms, times: Sequence[Any], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        step, here, _ = leap_at(terms, times, x)
        data = denoised(terms, here, step.start, x)
        return Advance(held(terms, step, x, data))


class ExponentialMultistep(ExponentialStepper):
    """x̂₁ goes on as between the last two steps: (1 + 1/2r) x̂₁ − (1/2r) x̂₁', r = h'/h. It hands on x̂₁ and h."""

    def step(
        self,
        terms: Terms,
        times: Sequence[Any],
        x: Tensor,
        first: tuple[Tensor, Number] | None = None,
        error: bool = False,
    ) -> Advance:
        step, here, _ = leap_at(terms, times, x)
        data = denoised(terms, here, step.start, x)
        if first is None:
            return Advance(held(terms, step, x, data), None, (data, step.h))
        before, h_before = first
        on = quotient(step.of_data * step.h, 2 * h_before)
        return Advance(plus(held(terms, step, x, data, on), -on, before), None, (data, step.h))


class ExponentialHeun(ExponentialStepper):
    """x̂₁ goes straight to its value at the end of a first-order step: a_n (1 − (1 − e^{−c})/c) of the change, c = h + K."""

    stages = 2

    def step(self, terms: Terms, times: Sequence[Any], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        step, here, there = leap_at(terms, times, x)
        data = denoised(terms, here, step.start, x)
        y = held(terms, step, x, data)
        if of_first_order(step):
            return Advance(y)
        later = denoised(terms, there, step.end, y)
        change = quotient(step.end.a * step.decay - step.of_data, step.decay)
        return Advance(plus(plus(y, change, later), -change, data))


class PredictorCorrector(ExponentialStepper):
    """An ancestral step, and a Langevin step of u s² at its end: y − u s x̂₀ + s √(2u) z.

    u = 2α r² with α = (a_t/a_n)², which is 1 − β of a discrete VP and 1 for VE. Song et al. have r‖z‖/‖x̂₀‖ for r, with norms
    over a batch, and their ratio is about 1. Those of a sample alone may not stand in for them: a step w that goes by its own
    noise has E w²z² = (1 + 2/D) E w² in D coordinates, and the law widens from step to step. The noise z is that of the
    space-time Lévy area of the step, H = √(h/12) z, which is independent of W.
    """

    stages = 2

    def step(self, terms: Terms, times: Sequence[Any], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        step, here, there = leap_at(terms, times, x)
        assert terms.H is not None
        data = denoised(terms, here, step.start, x)
        y = held(terms, step, x, data)
        later = denoised(terms, there, step.end, y)
        a, s = step.end
        u = 2 * TARGET_SNR**2 * quotient(step.start.a, a) ** 2
        return Advance(plus(mixed(1 - u, y, (u * a, later)), s * (24 * u) ** 0.5 / root(terms.h), terms.H))


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
        **_additive(1.0, 1.0),
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
