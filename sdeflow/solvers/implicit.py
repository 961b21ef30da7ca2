r"""The drift-implicit Euler–Maruyama method, for drifts so stiff that explicit steps would have to be tiny.

.. math:: x_1 = x + h f(t + h, x_1) + \sigma(t, x) W

For a linear drift f = A(t) x + b(t) that is one linear solve. A process says so by a method

    ``drift_resolvent(t, h, v)``, which returns (I − h A(t))⁻¹ v, with the shape of v

(h a number or a tensor that broadcasts against the state): v / (1 + hθ) for an Ornstein–Uhlenbeck process, a
``torch.linalg.solve`` for a matrix. Any other drift is solved by Newton's method for the whole batch, with the Jacobian by
automatic differentiation. Each iteration asks the device once whether all samples have converged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdeflow.calculus import jacobian
from sdeflow.processes.process import Process
from sdeflow.solvers.terms import Advance, Step, Terms, along

__all__ = ["ImplicitEuler", "newton"]

MOST_ITERATIONS = 20  # quadratic convergence needs about five; halving an error to rounding would need fifty


class ImplicitEuler:
    """The drift-implicit Euler–Maruyama method."""

    places = (0.0, 1.0)
    error_order = None

    def step(
        self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Tensor | None = None, error: bool = False
    ) -> Advance:
        (start, end), h, W = times, terms.h, terms.W
        assert W is not None
        known = terms.plus(x, terms.diffusion(start, x), W)
        resolvent = drift_resolvent(terms.process)
        if resolvent is not None:
            # x + (I − hA)⁻¹ (known + h f(x) − x) solves it, whatever the constant part of f is.
            return Advance(x + resolvent(end, h, along(known, terms.drift(end, x), 1.0, h) - x))
        z, failed = newton(lambda z: terms.drift(end, z), known, h)
        return Advance(z, failed=failed)


def drift_resolvent(process: Process) -> Callable[..., Tensor] | None:
    """The process's own, unless a subclass has given the process another drift since."""
    for base in type(process).__mro__:
        if "drift_resolvent" in vars(base):
            method: Callable[..., Tensor] = getattr(process, "drift_resolvent")  # noqa: B009 — not every process has one
            return method
        if "drift" in vars(base):
            break
    return None


def newton(f: Callable[[Tensor], Tensor], known: Tensor, h: Step) -> tuple[Tensor, Tensor]:
    """The z with z = known + h f(z), with the shape of known, and for which samples none was found, ``(B,)``.

    Where gradients are wanted they are those of the solution, by the implicit function theorem: the iterations leave no graph,
    and one more, with its matrix held fixed, has the derivatives of z in it. Derivatives of second order are not.
    """
    size = known[0].numel()
    identity = torch.eye(size, dtype=known.dtype, device=known.device)
    width: Any = h.reshape(-1, 1, 1) if isinstance(h, Tensor) else h
    small = 8 * torch.finfo(known.dtype).eps

    def improve(z: Tensor, value: Tensor, matrix: Tensor) -> Tensor:
        residual = (along(known, value, 1.0, h) - z).flatten(1)
        change: Tensor = torch.linalg.solve_ex(matrix, residual.unsqueeze(-1))[0]
        return change.reshape(z.shape)

    with torch.no_grad():
        z, last = known, known.new_full((len(known),), float("inf"))
        done = torch.zeros_like(last, dtype=torch.bool)
        matrix = identity.expand(len(known), -1, -1)
        for _ in range(MOST_ITERATIONS):
            value, J = jacobian(f, z)
            matrix = identity - width * J
            change = improve(z, value, matrix)
            z = torch.where(done.reshape(-1, *[1] * (z.ndim - 1)), z, z + change)
            moved, scale = change.flatten(1).abs().amax(1), z.flatten(1).abs().amax(1)
            # Converged to rounding, or stalled next to it: the next step would be its square.
            done = done | (moved <= small * (1 + scale)) | ((moved <= small**0.5 * (1 + scale)) & (moved >= last / 2))
            last = moved
            if bool((done | ~moved.isfinite()).all()):
                break
    if torch.is_grad_enabled():
        value = f(z)
        if value.requires_grad or known.requires_grad:
            z = z + improve(z, value, matrix)
    return z, ~done
