"""What ODEs and SDEs have in common: an interval, a direction, and the promise about time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from sdeflow.calculus.inference import in_inference_mode, outside_inference_mode
from sdeflow.errors import ArgumentError
from sdeflow.processes.affine import combined
from sdeflow.processes.boundary import (
    as_time,
    check_diffusion,
    check_field,
    check_interval,
    state_time,
)
from sdeflow.processes.together import At, doubles_of, fields_at, together
from sdeflow.types import Field, Time, Times

if TYPE_CHECKING:
    from sdeflow.processes.schedule import Schedule

__all__ = ["Process", "already_guarded", "prepared"]


def _guarded(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A method (self, t, x) whose time is prepared and whose answer is checked."""

    is_diffusion = name == "diffusion"

    @wraps(method)
    def call(self: Process, t: Time, x: Tensor) -> Tensor:
        if in_inference_mode():
            return thawed(self, t, x)
        time = as_time(t, x) if self.precise_time else state_time(t, x, self.interval)
        value = method(self, time, x)
        return check_diffusion(self.noise, value, x) if is_diffusion else check_field(name, value, x)

    thawed = outside_inference_mode(call)
    call.unguarded = method  # type: ignore[attr-defined]
    return already_guarded(call)


def prepared(process: Process, name: str) -> Callable[[Tensor, Tensor], Any]:
    """A coefficient for a caller that prepares times itself, outside inference mode, and checks what comes back."""
    method = getattr(process, name)
    bare = getattr(method, "unguarded", None)
    return method if bare is None else MethodType(bare, process)


def already_guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a method that needs no guard, because all that it does is to call one that has it."""
    method.guarded = True  # type: ignore[attr-defined]
    return method


class _SetByInit:
    """What ``Process.__init__`` sets, as it is before: a sentence for the subclass that forgot to call it."""

    def __get__(self, process: Process | None, owner: type[Process]) -> Any:
        if process is None:
            return self
        raise ArgumentError(
            f"{owner.__name__} was not initialised: call super().__init__(interval=…) first in its __init__."
        )


class Process(nn.Module):
    r"""Something that moves: the common part of :class:`SDE` and :class:`ODE`.

    A process is an ``nn.Module``, so optimisers and adjoints find the parameters of a learned drift. Every coefficient is a
    method ``(t, x)`` with x of shape ``(B, *event)``; t is a number, a 0-d tensor, or one time per row.

    Attributes:
        interval: (t0, t1) with t0 < t1, the times on which the coefficients are finite.
        direction: +1 where the process runs with t increasing, −1 where it runs with t decreasing (the backward clock).
        noise: ``"none"`` for an ODE, else ``"diagonal"``, ``"scalar"`` or ``"general"``.
        additive: Whether the diffusion is independent of x.
        commutative: Whether the columns of a general diffusion commute.
        calculus: ``"ito"`` or ``"stratonovich"``.
        schedule: a(t) and s(t) of a Gaussian path, on this process's own clock, or None.
        score: ∇log p_t on this process's own clock where one is known (it makes the process semi-linear), or None.
    """

    interval: tuple[float, float] = _SetByInit()  # type: ignore[assignment]
    direction: int
    schedule: Schedule | None
    score: Field | None

    noise: str = "none"
    additive: bool = True
    commutative: bool = False
    calculus: str = "ito"

    precise_time: ClassVar[bool] = False
    """Whether the methods of the class want float64 time (the library's own), or time in the dtype of x (a user's)."""

    confined: bool = False
    """Whether the coefficients are meaningless outside the interval, so that solving there is refused."""

    guards: ClassVar[frozenset[str]] = frozenset({"drift", "diffusion", "velocity", "diffusion_divergence"})

    plain_name: ClassVar[str | None] = None
    """What messages call a process whose class is no part of the interface."""

    def __init_subclass__(cls, precise_time: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.precise_time = precise_time
        for name in cls.guards & cls.__dict__.keys():
            if not hasattr(cls.__dict__[name], "guarded"):
                setattr(cls, name, _guarded(cls.__dict__[name], name))

    def __init__(self, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__()
        # All at once: one by one they take as long as the rest of making a process, as each solve on a flipped clock does.
        self.__dict__.update(interval=check_interval(interval), direction=1, schedule=None, score=None)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take along: not the compiled steps, which belong to this object."""
        return {name: value for name, value in self.__dict__.items() if name != "_fused"}

    @property
    def title(self) -> str:
        """What messages call this process."""
        return self.plain_name or type(self).__name__

    def drift(self, t: Time, x: Tensor) -> Tensor:
        """The drift f(t, x), with the shape of x."""
        raise ArgumentError(f"{self.title} has no drift: give it one, or override the method.")

    def _denoisers(self, times: Times, like: Tensor) -> Sequence[At]:
        schedule, score = self._semi_linear()
        if (known := getattr(score, "expected_data", None)) is not None:
            return fields_at(known, times, like)
        from sdeflow.processes.conversions import coefficients

        p, q = coefficients(schedule, doubles_of(times, like), "score", "data")
        return combined(p, q, fields_at(score, times, like), like)

    @together(_denoisers)
    def denoiser(self, t: Time, x: Tensor) -> Tensor:
        """E[x_data | x_t = x], with the shape of x: what exponential integrators step with.

        Raises:
            ArgumentError: The process has no schedule or no score, so it is not semi-linear.
        """
        schedule, score = self._semi_linear()
        if (known := getattr(score, "expected_data", None)) is not None:
            data: Tensor = known(t, x)
            return data
        from sdeflow.processes.conversions import convert

        return convert(schedule, t, x, score(t, x), given="score", wanted="data")

    def _semi_linear(self) -> tuple[Schedule, Field]:
        """The schedule and the score, or an ArgumentError."""
        schedule, score = self.schedule, self.score
        if schedule is None or score is None:
            raise ArgumentError(
                f"{self.title} has no {'schedule' if schedule is None else 'score'}, so no denoiser. "
                f"Reversals and flows of a diffusion with a schedule (VariancePreserving, …) have both."
            )
        return schedule, score

    @property
    def semi_linear(self) -> bool:
        """Whether it has a schedule and a score, and so a denoiser."""
        return self.schedule is not None and self.score is not None

    def rows(self, keep: Tensor) -> Process:
        """This process for some rows of the batch: itself, unless it carries data of its own for each row."""
        return self

    def reflect(self, t: Time) -> Time:
        """t0 + t1 − t: the same time on the flipped clock."""
        return (self.interval[0] + self.interval[1]) - t

    def flip(self) -> Process:
        """This process on the clock s = t0 + t1 − t: the same paths, run with the other direction.

        Example:
            >>> ode = sf.ODE(lambda t, x: t * x)
            >>> ode.flip().drift(0.25, torch.ones(1, 1)), ode.flip().direction
            (tensor([[-0.7500]]), -1)
        """
        from sdeflow.processes.flipped import flip

        return flip(self)
