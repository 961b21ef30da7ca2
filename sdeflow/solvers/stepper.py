"""What the adaptive loop asks of a method: try a step, carry on from it, and the polynomial through it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from sdeflow.solvers.controller import Tolerance

__all__ = ["Attempt", "Step", "Stepper", "horner"]


class Step(NamedTuple):
    """A step to try, from t to t1 = t + h on each clock.

    Attributes:
        t: A number where the batch shares its steps, else a float64 vector ``(n,)``; so are h and t1.
        h: The length; 0 for a sample that has arrived, whose new state is not used.
        t1: The end, exactly where it is to land.
        width: h broadcasting against the states, in their dtype: a number or a tensor ``(n, 1, …, 1)``.
    """

    t: float | Tensor
    h: float | Tensor
    t1: float | Tensor
    width: float | Tensor


class Attempt(NamedTuple):
    """What came of it.

    Attributes:
        x: The states at the end of the step.
        estimates: Estimates of their errors, stacked, one or two (see :meth:`~sdeflow.solvers.controller.Tolerance.error`).
    """

    x: Tensor
    estimates: Tensor


class Stepper(Protocol):
    """A one-step method with an error estimate.

    Attributes:
        error_order: The power of h in the error of one step, as estimated.
        dense: Whether :meth:`polynomial` says where the solution is inside a step; steps end at save times where it does not.
        evaluations: Evaluations of the velocity in an attempt.
        lookups: Those of :meth:`polynomial`.
        smallest: The shortest step that it can take; one that changes no digit of t is none in any case.
    """

    error_order: float
    dense: bool
    evaluations: int
    lookups: int
    smallest: float

    def start(self, low: float, high: float, t: float | Tensor, x: Tensor) -> int:
        """Begin a segment, between whose ends no coefficient jumps; returns how many evaluations that took."""

    def first_step(self, tolerance: Tolerance, t: float | Tensor, x: Tensor, longest: float) -> Tensor:
        """A length to begin with on each clock; costs one evaluation."""

    def end(self, t: float | Tensor, t1: float | Tensor) -> float | Tensor:
        """Where a step that was to end at t1 had better end, t < end ≤ t1; t1 itself where any end is as good."""

    def attempt(self, step: Step, x: Tensor) -> Attempt:
        """Try a step. What was computed on the way is kept for :meth:`advance` and :meth:`polynomial`."""

    def advance(self, accepted: Tensor | None) -> None:
        """The attempt was accepted: everywhere (None), or where the mask over the samples says so."""

    def polynomial(self) -> Tensor:
        """The attempt as a polynomial, x(t + θ h) = Σ_m c_m θ^m: the c_m, stacked in front of the axes of the state."""

    def narrow(self, keep: Tensor, t: float | Tensor, x: Tensor) -> bool:
        """Go on with some of the rows only; False where that cannot be, and nothing has changed."""

    def stiffness(self) -> Tensor | None:
        """h ρ on each sample, with ρ the greatest rate of change that the attempt has met; None where it is not known."""


def horner(coefficients: Tensor, place: float | Tensor) -> Tensor:
    """Σ_m c_m θ^m."""
    value = coefficients[-1]
    for m in range(coefficients.shape[0] - 2, -1, -1):
        value = coefficients[m] + place * value
    return value
