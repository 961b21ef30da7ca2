r"""Conditional Gaussian paths: what a model of flows regresses on.

A path is a family of laws :math:`p_t(x \mid z) = \mathcal N(\mu_t(z), \sigma_t(z)^2)` that runs from the base at t = 0 to the
data at t = 1 as z is drawn. The velocity that carries each of them,

.. math:: u_t(x \mid z) = \dot\mu_t(z) + \frac{\dot\sigma_t(z)}{\sigma_t(z)}\,(x - \mu_t(z)),

is known, and its mean given x alone, :math:`E[u_t(x \mid z) \mid x_t = x]`, carries the mixture over z. At the point
x = μ + σε it is :math:`\dot\mu + \dot\sigma\varepsilon`, which no small σ spoils.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sdeflow.calculus import outside_inference_mode
from sdeflow.errors import ArgumentError, choose
from sdeflow.paths.draws import Draws, Purpose
from sdeflow.processes.boundary import as_time, check_interval
from sdeflow.processes.parameters import gaussian
from sdeflow.processes.schedule import Schedule
from sdeflow.types import Time

__all__ = ["GaussianPath"]

Coefficient = Callable[[Tensor, Any], Tensor]


class GaussianPath(nn.Module):
    r"""The path :math:`p_t(x \mid z) = \mathcal N(\mu_t(z), \sigma_t(z)^2)` for any conditioning z.

    Time derivatives are taken by forward-mode automatic differentiation.

    Arguments:
        mean: μ(t, z), with the shape of the state; t broadcasts against it.
        std: σ(t, z) ≥ 0, broadcasting to the state.
        given: What a model puts in for z: ``"pair"``, the tuple (x0, x1) of a base and a data point; or ``"data"``, x1
            alone, where the noise ε is the base point.
        regular: The times between which the conditional velocity is finite; training draws its times there.

    Raises:
        ArgumentError: A coefficient is not a function, or an interval is empty.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), https://arxiv.org/abs/2210.02747;
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport (Tong et al., 2024),
        https://arxiv.org/abs/2302.00482

    Example:
        >>> path = sf.paths.GaussianPath(lambda t, z: t * z, lambda t, z: 1 - t)
        >>> path.velocity(0.5, torch.tensor([[1.0]]), torch.tensor([[3.0]]))  # (z − x)/(1 − t)
        tensor([[4.]])
    """

    interval: tuple[float, float] = (0.0, 1.0)

    schedule: Schedule | None = None
    """a(t) and s(t) where x_t = a x1 + s x0 with a base x0 that is normal and independent of x1, else None."""

    base_deviation: float = 1.0
    """The standard deviation of the normal base for which :attr:`schedule` holds."""

    def __init__(
        self,
        mean: Coefficient | None = None,
        std: Coefficient | None = None,
        *,
        given: str = "pair",
        regular: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            if value is not None and not callable(value):
                raise ArgumentError(f"the {name} is {value!r}; give a function of (t, z).")
        self.given = choose("given", given, ("pair", "data"))
        self.regular = check_interval(regular)
        self.mean_function, self.std_function = mean, std

    def mean(self, t: Tensor, z: Any) -> Tensor:
        """μ_t(z), with the shape of the state."""
        if self.mean_function is None:
            raise ArgumentError(f"{type(self).__name__} has no mean: give it one, or override the method.")
        return self.mean_function(t.to(_first(z).dtype), z)

    def std(self, t: Tensor, z: Any) -> Tensor:
        """σ_t(z), broadcasting to the state."""
        if self.std_function is None:
            raise ArgumentError(f"{type(self).__name__} has no std: give it one, or override the method.")
        like = _first(z)
        return torch.as_tensor(self.std_function(t.to(like.dtype), z), dtype=like.dtype, device=like.device)

    def rates(self, t: Time, z: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(μ, σ, μ̇, σ̇) at the time, or at one time per row."""
        time = as_time(t, _first(z))
        (mean, std), (mean_dot, std_dot) = slopes_of(lambda s: (self.mean(s, z), self.std(s, z)), time)
        return mean, std, mean_dot, std_dot

    def velocity(self, t: Time, x: Tensor, z: Any) -> Tensor:
        """u_t(x | z), with the shape of x; it needs σ > 0."""
        mean, std, mean_dot, std_dot = self.rates(t, z)
        return mean_dot + std_dot / std * (x - mean)

    def score(self, t: Time, x: Tensor, z: Any) -> Tensor:
        """∇ log p_t(x | z) = −(x − μ)/σ², with the shape of x; it needs σ > 0."""
        time = as_time(t, x)
        return -(x - self.mean(time, z)) / self.std(time, z).square()

    def marginal(self, t: Time, z: Any) -> Distribution:
        """p_t(x | z) as a ``torch.distributions.Distribution``, one event per row of z.

        Raises:
            ArgumentError: σ is 0 there, so that the law is a point.
        """
        time = as_time(t, _first(z))
        std = self.std(time, z)
        if not bool((std > 0).all()):
            raise ArgumentError("the path has σ = 0 there, so p_t(x | z) is a point; ask for its mean.")
        return gaussian(self.mean(time, z), std)

    def at(self, t: Time, noise: Tensor, z: Any) -> tuple[Tensor, Tensor]:
        """The point x = μ + σε of the path, and u_t(x | z) = μ̇ + σ̇ε there."""
        mean, std, mean_dot, std_dot = self.rates(t, z)
        return mean + std * noise, mean_dot + std_dot * noise

    def split(self, x0: Tensor, x1: Tensor, draws: Draws) -> tuple[Tensor, Any]:
        """(ε, z) for a base and a data point, each ``(B, *event)``: what a model gives to :meth:`at`."""
        if self.given == "data":
            return (x0 if self.base_deviation == 1 else x0 / self.base_deviation), x1
        return draws.normals(Purpose.NOISE, x1), (x0, x1)


@outside_inference_mode
def slopes_of(
    coefficients: Callable[[Tensor], tuple[Tensor, ...]], t: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The coefficients at the times, and their derivatives: row by row, since each depends on its own time only."""
    pair: Any = torch.func.jvp(coefficients, (t,), (torch.ones_like(t),))
    return pair[0], pair[1]


def _first(z: Any) -> Tensor:
    """The first tensor of a conditioning, which has the batch, the dtype and the device of the state."""
    if isinstance(z, Tensor):
        return z
    if isinstance(z, Sequence) and z and isinstance(z[0], Tensor):
        return z[0]
    raise ArgumentError(f"the conditioning is {type(z).__name__}; give a tensor, or a tuple that begins with one.")
