r"""What a native method is, and what it steps with.

A method is an object with

- ``places``: the places in [0, 1] of a step at which it wants the time;
- ``error_order``: the power of h in its estimate of the error of a step; None where it has none;
- ``step(terms, times, x, first=None, error=False)``: one step from x, as an :class:`Advance`.

``times`` are those places as the process wants them, 0-d or one time per row. ``terms`` holds the process, the step h and the
noise (W, H) of the step. h is a number where the batch shares its steps; where every sample has its own, it is a tensor
in the dtype of x that broadcasts against it. A method never asks which: :func:`along` is x + w h k for both.

**The error.** With ``error=True`` an advance carries an estimate of the local error, with the shape of x: the difference to
a method of lower order from the same evaluations. Its sign means nothing. It is a pathwise error of one step, not of the
solve, and it is blind to what both methods miss: for noise that does not commute, to the Lévy area.

**What a step hands to the next.** An advance hands it out as ``last``, and the next step takes it as ``first``. It is the
diffusion at the end, where it depends on time only and a method needs it at both ends of a step; or the history of a multistep
method. Pass None where a coefficient jumps between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sdeflow.processes.boundary import check_diffusion, check_field
from sdeflow.processes.process import Process, prepared
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At
from sdeflow.solvers.job import Counter
from sdeflow.solvers.moments import Moment

__all__ = ["Advance", "Step", "Stepper", "Terms", "along", "root"]

Step = float | Tensor


class Advance(NamedTuple):
    """What a step comes to.

    Attributes:
        x: The state at the end of the step.
        error: The estimate of its error, where one was asked for.
        last: What serves the next step: the diffusion at the end of this one, or the history of a multistep method.
        failed: Which samples found no solution of an implicit equation, ``(B,)``; None where there is none.
    """

    x: Tensor
    error: Tensor | None = None
    last: Any = None
    failed: Tensor | None = None


class Terms:
    """The coefficients of a process, counted, and the step and noise that they are taken with.

    Attributes:
        process: The process.
        counter: The evaluations so far.
        h: The length of the step.
        W: The Brownian increment over it; None for an ODE.
        H: Its space-time Lévy area, for the methods that need it.
        constant: A diffusion that is a number, and its tensor, which is the same one whenever the process returns that number.
        remember: Whether to keep a diffusion that is a number as a tensor; a graph would have it among its outputs.
    """

    def __init__(self, process: Process, counter: Counter, remember: bool = True) -> None:
        self.process = process
        self.counter = counter
        self.h: Step = 0.0
        self.W: Tensor | None = None
        self.H: Tensor | None = None
        self.remember = remember
        self.constant: tuple[float, Tensor | None] = (0.0, None)
        self._noise = process.noise
        self._general = process.noise == "general"
        # Times come prepared, and the loop is outside inference mode: of a coefficient's guard only the check is left.
        self._drift = prepared(process, "drift")
        if isinstance(process, SDE):
            self._diffusion = prepared(process, "diffusion")

    def drift(self, t: Tensor | Moment, x: Tensor) -> Tensor:
        self.counter.drift += 1
        return check_field("drift", t.drift(x) if isinstance(t, Moment) else self._drift(t, x), x)

    def diffusion(self, t: Tensor | Moment, x: Tensor) -> Tensor:
        self.counter.diffusion += 1
        g = t.diffusion(x) if isinstance(t, Moment) else self._diffusion(t, x)  # type: ignore[misc]
        if not (self.remember and isinstance(g, float)):
            return check_diffusion(self._noise, g, x)
        number, tensor = self.constant
        if tensor is None or number != g:  # a number becomes a tensor once, not in every step
            tensor = check_diffusion(self._noise, g, x)
            self.constant = g, tensor
        return tensor

    def denoised(self, denoiser: At, x: Tensor) -> Tensor:
        """E[x_data | x_t = x]: one evaluation of the model, counted as one of the drift."""
        self.counter.drift += 1
        return check_field("denoiser", denoiser(x), x)

    def apply(self, g: Tensor, v: Tensor | None) -> Tensor:
        """σ v, broadcasting to the state."""
        assert v is not None
        return torch.matmul(g, v.unsqueeze(-1)).squeeze(-1) if self._general else g * v

    def plus(self, x: Tensor, g: Tensor, v: Tensor | None, weight: float = 1.0, in_place: bool = False) -> Tensor:
        """x + w σ v."""
        assert v is not None
        number, constant = self.constant
        if g is constant:  # it scales what is added: no product
            weight *= number
            return x.add_(v, alpha=weight) if in_place else torch.add(x, v, alpha=weight)
        if self._general:
            return torch.add(x, self.apply(g, v), alpha=weight)
        return x.addcmul_(g, v, value=weight) if in_place else torch.addcmul(x, g, v, value=weight)


class Stepper(Protocol):
    """A native method."""

    @property
    def places(self) -> Sequence[float]: ...

    @property
    def error_order(self) -> float | None: ...

    def step(self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        """One step from x; ``first`` is what the step before handed on, None where there is none."""
        ...


def along(x: Tensor, k: Tensor, weight: float, h: Step) -> Tensor:
    """x + w h k."""
    return torch.add(x, k, alpha=weight * h) if isinstance(h, float) else torch.addcmul(x, k, h, value=weight)


def root(h: Step) -> Step:
    """√h."""
    return h**0.5 if isinstance(h, float) else h.sqrt()
