r"""The state with its log-determinant: d/dt (x, ℓ) = (v, ∇·v).

A *divergence* here is a function of (ode, t, x) that returns the velocity and K estimates of its divergence, ``(B, K)``: one
exact one, or one for each Hutchinson probe. The K integrals run along one trajectory, which no probe may influence:
estimates stay out of the error norm by which an adaptive solver chooses its steps. An exact log-determinant belongs in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdeflow.brownian import Stream, normals, signs
from sdeflow.calculus import divergence, hutchinson
from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import as_time, check_field, state_time
from sdeflow.processes.integrals import WithIntegrals
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.types import Field, Time

__all__ = ["Augmented", "ClosedForm", "Divergence", "Probing", "draw_probes", "exact"]

Divergence = Callable[[ODE, Time, Tensor], tuple[Tensor, Tensor]]

PROBE_LAWS = {"rademacher": signs, "gaussian": normals}


def exact(ode: ODE, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
    """The trace of the Jacobian, by automatic differentiation: D vector–Jacobian products, evaluated together."""
    velocity, trace = divergence(lambda y: ode.velocity(t, y), x)
    return velocity, trace[:, None]


@dataclass(frozen=True)
class ClosedForm:
    """A formula (t, x) → ``(B,)`` that the user knows, or → the velocity and it; ``flipped`` on the flipped clock."""

    function: Field | Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    flipped: bool = False

    def __call__(self, ode: ODE, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
        time = ode.reflect(as_time(t, x)) if self.flipped else t
        answer = self.function(state_time(time, x, ode.interval), x)
        velocity, trace = answer if isinstance(answer, tuple) and len(answer) == 2 else (None, answer)
        if not isinstance(trace, Tensor) or trace.shape != x.shape[:1]:
            given = f"shape {tuple(trace.shape)}" if isinstance(trace, Tensor) else type(trace).__name__
            raise ArgumentError(f"the divergence returned {given}; return one number per sample, shape ({len(x)},).")
        trace = trace.to(x.dtype)[:, None]
        if velocity is None:
            return ode.velocity(t, x), -trace if self.flipped else trace
        velocity = check_field("velocity", velocity, x)
        return (-velocity, -trace) if self.flipped else (velocity, trace)

    def flip(self) -> ClosedForm:
        return replace(self, flipped=not self.flipped)


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


class Augmented(WithIntegrals, precise_time=True):
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
        super().__init__(ode, event_shape, count)
        self.estimate = estimate
        if not controlled:
            self.error_mask = (torch.arange(event_shape.numel() + count, device="cpu") < event_shape.numel()).float()

    def rates(self, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.estimate(self.ode, t, x)

    def rows(self, keep: Tensor) -> Process:
        ode, estimate = self.ode.rows(keep), self.estimate
        if isinstance(estimate, Probing):
            estimate = estimate.rows(keep)
        if ode is self.ode and estimate is self.estimate:
            return self
        assert isinstance(ode, ODE)
        return self.of(ode, estimate)

    def flip(self) -> Process:
        ode, estimate = self.ode.flip(), self.estimate
        assert isinstance(ode, ODE)
        return self.of(ode, estimate.flip() if isinstance(estimate, ClosedForm) else estimate)

    def of(self, ode: ODE, estimate: Divergence) -> Augmented:
        """The same of another flow."""
        other = Augmented(ode, self.event_shape, estimate, self.count, controlled=True)
        other.error_mask = self.error_mask
        return other
