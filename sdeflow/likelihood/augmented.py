r"""The state with its log-determinant: d/dt (x, ℓ) = (v, ∇·v).

A *divergence* here is a function of (ode, t, x) that returns the velocity and K estimates of its divergence, ``(B, K)``: one
exact one, or one for each Hutchinson probe. The K integrals run along one trajectory, which no probe may influence:
estimates stay out of the error norm by which an adaptive solver chooses its steps. An exact log-determinant belongs in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdeflow.brownian import Stream, normals, signs
from sdeflow.calculus import divergence, hutchinson
from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import state_time
from sdeflow.processes.derived import take_over
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.types import Field, Time

__all__ = ["Augmented", "Divergence", "Probing", "closed_form", "exact"]

Divergence = Callable[[ODE, Time, Tensor], tuple[Tensor, Tensor]]

PROBE_LAWS = {"rademacher": signs, "gaussian": normals}


def exact(ode: ODE, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
    """The trace of the Jacobian, by automatic differentiation: D vector–Jacobian products, evaluated together."""
    velocity, trace = divergence(lambda y: ode.velocity(t, y), x)
    return velocity, trace[:, None]


def closed_form(function: Field) -> Divergence:
    """A formula (t, x) → ``(B,)`` that the user knows."""

    def estimate(ode: ODE, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
        trace = function(state_time(t, x, ode.interval), x)
        if not isinstance(trace, Tensor) or trace.shape != x.shape[:1]:
            given = f"shape {tuple(trace.shape)}" if isinstance(trace, Tensor) else type(trace).__name__
            raise ArgumentError(f"the divergence returned {given}; return one number per sample, shape ({len(x)},).")
        return ode.velocity(t, x), trace.to(x.dtype)[:, None]

    return estimate


@dataclass(frozen=True)
class Probing:
    """Hutchinson's estimate with each of the probes ``(K, B, *event)``, which stay the same along the trajectory."""

    probes: Tensor

    def __call__(self, ode: ODE, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
        velocity, estimates = hutchinson(lambda y: ode.velocity(t, y), x, self.probes)
        return velocity, estimates.mT

    def rows(self, keep: Tensor) -> Probing:
        """The same for some rows of the batch."""
        return Probing(self.probes[:, keep])


def draw_probes(law: str, count: int, x: Tensor, seed: int) -> Tensor:
    """K probes for each row of x, ``(K, B, *event)``: probe k of row b depends on the seed, k and b only."""
    draw = PROBE_LAWS[law]
    return torch.stack(
        [draw(seed, Stream.PROBES, (k, 0, 0), tuple(x.shape), dtype=x.dtype, device=x.device) for k in range(count)]
    )


class Augmented(ODE, precise_time=True):
    """The ODE of (x, ℓ₁ … ℓ_K), with states ``(B, D + K)``.

    Arguments:
        ode: The flow.
        event_shape: The shape of x; D is its number of elements.
        estimate: The divergence.
        count: K.
        controlled: Whether ℓ takes part in the choice of steps.
    """

    def __init__(
        self, ode: ODE, event_shape: torch.Size, estimate: Divergence, count: int, *, controlled: bool
    ) -> None:
        super().__init__(interval=ode.interval)
        take_over(self, ode)
        self.schedule = self.score = None
        self.ode = ode
        self.event_shape = event_shape
        self.estimate = estimate
        self.count = count
        if not controlled:
            self.error_mask = torch.cat([torch.ones(event_shape.numel()), torch.zeros(count)])

    def join(self, x: Tensor) -> Tensor:
        """(x, 0)."""
        return torch.cat([x.flatten(1), x.new_zeros(len(x), self.count)], dim=1)

    def part(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """x with its event shape, and ℓ with shape ``(B, K)``."""
        return state[:, : -self.count].reshape(-1, *self.event_shape), state[:, -self.count :]

    def rows(self, keep: Tensor) -> Process:
        ode, estimate = self.ode.rows(keep), self.estimate
        if isinstance(estimate, Probing):
            estimate = estimate.rows(keep)
        if ode is self.ode and estimate is self.estimate:
            return self
        assert isinstance(ode, ODE)
        return Augmented(ode, self.event_shape, estimate, self.count, controlled=self.error_mask is None)

    def velocity(self, t: Time, x: Tensor) -> Tensor:
        velocity, traces = self.estimate(self.ode, t, self.part(x)[0])
        return torch.cat([velocity.flatten(1), traces], dim=1)
