r"""Denoising score matching: regress on the score of the noise that was added, and learn that of the noised data.

.. math:: L(\theta) = E\,\lambda(t)\,\big\|s_\theta(t, x_t) - \nabla\log p(x_t \mid x)\big\|^2, \qquad
          x_t = a(t)\,x + s(t)\,\varepsilon,

is least at :math:`s_\theta = \nabla\log p_t`. Noise, data and v-prediction are the same loss of other outputs. With t uniform
on (t0, t1) and λ = (t1 − t0) g²/2 it bounds the negative log-likelihood of the reversed SDE up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.errors import ArgumentError, choose
from sdeflow.models.model import CUT, GenerativeModel, squared_error
from sdeflow.models.noise_levels import PREDICTIONS, as_weighting, target_of
from sdeflow.models.ode import Conditional
from sdeflow.models.times import TimeLaw, as_time_law
from sdeflow.paths import Draws, Purpose, Window
from sdeflow.processes.conversions import coefficients
from sdeflow.processes.diffusions import ScheduledDiffusion
from sdeflow.processes.schedule import Schedule
from sdeflow.processes.sde import SDE
from sdeflow.types import Field, Time

__all__ = ["DenoisingScoreMatching"]


class DenoisingScoreMatching(GenerativeModel):
    r"""A score model on any diffusion with a schedule: VE, VP, sub-VP, cosine, OU, EDM.

    It lives on the noising clock, data at t0 and noise at t1, and its processes run from noise to data with t decreasing:
    ``flow`` is the probability flow, ``sde()`` the reversal, ``sde(epsilon)`` the family of both. Where s(t0) = 0 the score
    is infinite there, so the model begins a thousandth of the interval later; its samples keep that little noise. Continuous
    times and the grids of NCSN and DDPM are one model: give a :class:`~sdeflow.paths.DiscreteSchedule` or an
    :class:`~sdeflow.paths.EDMSchedule`, and ``time=sf.models.times.Grid(…)``. In ``loss``, x0 is the noise ε.

    Arguments:
        net: A function of (t, x) and the conditions, with the shape of x.
        process: The noising diffusion: it has a schedule.
        event_shape: The shape of one sample.
        predicts: ``"noise"``, ``"score"``, ``"data"``, or ``"v"``: a ε − s x_data.
        weighting: ``"variance"`` (λ = s²), ``"likelihood"`` (λ = (t1 − t0) g²/2), ``"min-snr"``, ``"edm"``,
            ``"data"``, or λ(t), a function of float64 times. The likelihood is bounded where ``time`` is uniform, or an
            :class:`~sdeflow.models.times.Importance`.
        time: ``"uniform"``, ``"logit-normal"``, ``"lognormal"``, or a law of :mod:`sdeflow.models.times`.
        base: The law at t1 that sampling starts from; by default the prior of the process, which is only near it.
        cut: The part of the interval that is left out at the data where the score is infinite there.

    Raises:
        ArgumentError: The process has no schedule, or a word is unknown.

    References:
        A Connection Between Score Matching and Denoising Autoencoders (Vincent, 2011),
        https://doi.org/10.1162/NECO_a_00142;
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021),
        https://arxiv.org/abs/2011.13456

    Example:
        >>> model = sf.models.DenoisingScoreMatching(sf.networks.MLP(2), sf.processes.VariancePreserving(), (2,))
        >>> model.loss(sf.data.moons(256, seed=0), seed=0).backward()
        >>> model.sample(10, seed=0, process=model.sde(), solver={"steps": 20}).shape  # the reversed SDE
        torch.Size([10, 2])
        >>> model.sample(10, seed=0, solver={"steps": 20, "method": "heun"}).shape  # the probability flow
        torch.Size([10, 2])
    """

    schedule: Schedule

    def __init__(
        self,
        net: Any,
        process: SDE,
        event_shape: tuple[int, ...],
        *,
        predicts: str = "noise",
        weighting: str | Callable[[Tensor], Tensor] = "variance",
        time: str | TimeLaw = "uniform",
        base: Distribution | None = None,
        cut: float = CUT,
    ) -> None:
        if not isinstance(process, SDE) or not _adds_noise(process):
            raise ArgumentError(
                f"{getattr(process, 'title', type(process).__name__)} is not a noising process with a "
                f"schedule; give one such as VariancePreserving. Without a schedule there is sf.models.LearnedReversal."
            )
        noising = _away_from_the_data(process, cut)
        super().__init__(
            net,
            process.prior(tuple(event_shape)) if base is None else base,
            data_at="start",
            interval=noising.interval,
            schedule=noising,
        )
        self.predicts = choose("predicts", predicts, PREDICTIONS)
        self.process = ScheduledDiffusion(noising, prior_deviation=getattr(process, "prior_deviation", None))
        self.weighting, self.time = as_weighting(weighting), as_time_law(time)

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        noise = draws.normals(Purpose.NOISE, x) if x0 is None else x0.to(x)
        t, correction = self.time.draw(x, draws, self.interval, self.schedule)
        a, s = self.schedule.a(t), self.schedule.s(t)
        target, scale = target_of(self.predicts, a, s, x, noise)
        state = torch.addcmul(a.to(x.dtype) * x, s.to(x.dtype), noise)
        error = self.prediction(self.time.seen(t, x), state, **condition) - target
        weight = correction * self.weighting(self.schedule, t) / scale**2
        return squared_error(weight.to(x.dtype) if isinstance(weight, Tensor) else weight, error)

    def coefficients(self, wanted: str, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.predicts != "v":
            return super().coefficients(wanted, t)
        a, s = self.schedule.a(t), self.schedule.s(t)
        # The data from v, or the noise where that is nearer to what is wanted: neither divides by a or s.
        given = "data" if wanted == "data" else "noise"
        of_x, of_value = (a, -s) if given == "data" else (s, a)
        total = a.square() + s.square()
        p, q = coefficients(self.schedule, t, given, wanted)
        return p + q * of_x / total, q * of_value / total

    def interval_of(self, *wanted: str) -> tuple[float, float]:
        return self.interval  # which already begins where all are finite

    def sde(self, epsilon: Time | Field | None = None, **condition: Any) -> SDE:
        r"""The reversed SDE; with an ε, the SDE of drift :math:`v - \varepsilon\nabla\log p_t` and equal marginals.

        Both run with t decreasing, from the noise to the data; the reversal is the case ε = g²/2.

        Arguments:
            epsilon: None for the reversal; a number ≥ 0, or a function of t.
            condition: What the network is given besides.
        """
        if epsilon is not None:
            return super().sde(epsilon, **condition)
        return self.process.reverse(Conditional(self, "score", condition), clock="backward")


def _adds_noise(process: SDE) -> bool:
    """Whether it has a schedule that runs from data to noise."""
    if process.schedule is None or process.direction < 0:
        return False
    start, end = process.interval
    return bool(process.schedule.log_snr(0.9 * start + 0.1 * end) > process.schedule.log_snr(0.1 * start + 0.9 * end))


def _away_from_the_data(process: SDE, cut: float) -> Schedule:
    """The schedule of the process where its score is finite."""
    assert process.schedule is not None
    start, end = process.interval
    if bool(process.schedule.s(torch.tensor(start, dtype=torch.float64)) > 0):
        return process.schedule
    if not 0 < cut < 1:
        raise ArgumentError(f"cut={cut!r} is not a part of the interval; give a number between 0 and 1.")
    return Window(process.schedule, (start + cut * (end - start), end))
