"""A Gaussian mixture along a Gaussian path: p_t, its score, its denoiser and its flow in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.laws.posterior import Posterior, each_chunk
from sdeflow.processes.boundary import as_time
from sdeflow.processes.process import Process
from sdeflow.processes.schedule import Schedule
from sdeflow.types import Time

if TYPE_CHECKING:
    from sdeflow.laws.gaussian_mixture import GaussianMixture

__all__ = ["Along"]


class Along:
    r"""The law of :math:`x_t = a(t)\,x_{data} + s(t)\,x_{noise}`, with x_data from a mixture, x_noise ~ N(0, I).

    It is again a mixture, :math:`p_t = \sum_k w_k\,\mathcal N(a\,m_k,\; a^2 C_k + s^2 I)`. All methods take a
    time, or one time per row, on the clock of the process, and x with shape ``(B, *event)``; they compute in
    float64 and answer in the dtype of x. None of them divides by a or s: where ȧ and d(s²)/dt are finite, so are
    they, at both ends.

    Arguments:
        law: The law of the data.
        process: A process with a schedule, on its own clock; or a schedule.

    Raises:
        ArgumentError: The process has no schedule, or (methods) x does not have the events of the law.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021),
        https://arxiv.org/abs/2011.13456; Flow Matching for Generative Modeling (Lipman et al., 2023),
        https://arxiv.org/abs/2210.02747

    Example:
        >>> law = sf.laws.GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], [0.1, 0.1])
        >>> sde = sf.processes.VariancePreserving()
        >>> truth = law.along(sde)
        >>> reverse = sde.reverse(truth.score)  # samples the mixture from noise
        >>> truth.denoiser(0.3, torch.tensor([[0.9]]))
        tensor([[1.9...]])
    """

    def __init__(self, law: GaussianMixture, process: Process | Schedule) -> None:
        schedule: Any = process if isinstance(process, Schedule) else getattr(process, "schedule", None)
        if not isinstance(schedule, Schedule):
            raise ArgumentError(
                f"{type(process).__name__} has no schedule: its state is not a(t)·data + s(t)·noise with one a and "
                f"one s for all coordinates. Give a process that has one (VariancePreserving, BrownianMotion, "
                f"OrnsteinUhlenbeck with numbers and mean 0, …), or a Schedule."
            )
        self.law = law
        self.schedule: Schedule = schedule

    def log_prob(self, t: Time, x: Tensor) -> Tensor:
        """log p_t(x), with shape ``(B,)``; autograd follows it in t and in x, as often as wanted."""
        return self._evaluate(t, x, False, Posterior.log_prob)

    def score(self, t: Time, x: Tensor) -> Tensor:
        """∇log p_t(x), with the shape of x."""
        return self._evaluate(t, x, False, Posterior.score).reshape(x.shape)

    def denoiser(self, t: Time, x: Tensor) -> Tensor:
        """E[x_data | x_t = x], with the shape of x."""
        return self._evaluate(t, x, False, Posterior.denoiser).reshape(x.shape)

    def noise(self, t: Time, x: Tensor) -> Tensor:
        """E[x_noise | x_t = x] = −s ∇log p_t(x), with the shape of x."""
        s = self.schedule.s(as_time(t, x))
        return (-s * self.score(t, x.to(torch.float64))).to(x.dtype)

    def velocity(self, t: Time, x: Tensor) -> Tensor:
        r"""dx/dt of the probability flow, with the shape of x: ȧ E[x_data | x_t] − s ṡ ∇log p_t."""
        return self._evaluate(t, x, True, Posterior.velocity).reshape(x.shape)

    def divergence(self, t: Time, x: Tensor) -> Tensor:
        """∇·velocity, with shape ``(B,)``: −d log p_t/dt along the flow."""
        return self._evaluate(t, x, True, Posterior.divergence)

    def velocity_and_divergence(self, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both for little more than the price of one: what :class:`~sdeflow.Flow` may be given as ``divergence=``."""
        velocity, divergence = self._evaluate(t, x, True, Posterior.velocity_and_divergence).split(
            [x[0].numel(), 1], dim=1
        )
        return velocity.reshape(x.shape), divergence[:, 0]

    def sample(self, t: Time, n: int, seed: int | None = None) -> Tensor:
        """n samples of p_t with shape ``(n, *event)``; with one time per row, row i is a sample at t[i].

        With a seed, the global generators are neither read nor changed, and calls with other times share their
        data and noise: row i stays on one path a(t)·data + s(t)·noise.
        """
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        data = self.law.draw_from(generator, n).to(torch.float64)
        device = data.device if generator is None else generator.device
        noise = torch.randn(data.shape, dtype=data.dtype, device=device, generator=generator)
        t = as_time(t, data)
        return (self.schedule.a(t) * data + self.schedule.s(t) * noise.to(data.device)).to(self.law.dtype)

    def at(self, t: Time) -> GaussianMixture:
        """p_t itself, a ``torch.distributions.Distribution``: for one time, not one per row.

        Example:
            >>> law = sf.laws.GaussianMixture([1.0], [[2.0, 0.0]], [0.5])
            >>> law.along(sf.processes.BrownianMotion(1.0)).at(0.5).variance
            tensor([1., 1.])
        """
        from sdeflow.laws.gaussian_mixture import GaussianMixture

        law = self.law
        time = as_time(t, law.means)
        if time.numel() != 1:
            raise ArgumentError(f"t has shape {tuple(time.shape)}; one law has one time, so give a number.")
        a, variance = self.schedule.a(time.reshape(())), self.schedule.variance(time.reshape(())).clamp_min(0)
        if law.components.basis is not None:
            variance = variance * torch.eye(law.covariances.shape[1], dtype=torch.float64, device=law.device)
        mixture = GaussianMixture(law.weights, a * law.means, a.square() * law.covariances + variance)
        mixture.dtype = law.dtype
        return mixture

    def _evaluate(self, t: Time, x: Tensor, moving: bool, quantity: Any) -> Tensor:
        rows = self.law.check_state(x, batch_axes=1)
        time = as_time(t, x)
        time = time.reshape(()) if time.numel() == 1 else time.reshape(-1, 1)
        schedule = self.schedule
        times: tuple[Tensor, ...] = (schedule.a(time), schedule.variance(time))
        if moving:
            times += (schedule.a_dot(time), schedule.variance_dot(time))
        return each_chunk(self.law.components, rows, times, quantity).to(x.dtype)

    def __repr__(self) -> str:
        return f"Along({self.law!r}, {type(self.schedule).__name__})"
