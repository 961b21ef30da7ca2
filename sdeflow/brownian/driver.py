"""What a solver may ask of a Brownian path, whichever way time runs on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdeflow.brownian.area import foster_area
from sdeflow.errors import ArgumentError

__all__ = ["Driver", "Interval", "ReversedPath", "Time"]

Time = float | Tensor

DOUBLE_EPS = 2.0**-52
OUTSIDE = 1e-9  # how far outside [t0, t1] a time may be, in units of t1 - t0


class Interval(NamedTuple):
    """An interval of time, and the relative rounding of its ends."""

    start: float
    stop: float
    eps: float


class Driver(ABC):
    """A Brownian path on [t0, t1]: increments, space-time Lévy areas and Lévy areas over any interval.

    Attributes:
        seed: The seed of the path, an integer.
        shape: The shape of an increment, ``(B, *event)``.
        t0: Where the path begins.
        t1: Where the path ends.
        cells: The number of base cells, each one keyed draw.
        has_levy: Whether the path was made with ``levy="space-time"``.
        dtype: The dtype of what it returns.
        device: The device of what it returns.
        resolution: How far apart times are at which it is known, at most.
        equal_cells: Whether its cells are equal by construction.
    """

    seed: int
    shape: tuple[int, ...]
    t0: float
    t1: float
    cells: int
    has_levy: bool
    dtype: torch.dtype
    device: torch.device
    resolution: float = 0.0
    equal_cells: bool = False

    # The primitives, on a checked interval; (W, H) and the noise of the Lévy area only where has_levy.

    @abstractmethod
    def _increment(self, interval: Interval) -> Tensor: ...

    @abstractmethod
    def _increment_and_levy(self, interval: Interval) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _rows(self, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _area_noise(self, interval: Interval) -> Tensor: ...

    @abstractmethod
    def edge(self, k: int) -> float:
        """The time at which cell k begins; ``edge(cells)`` is t1."""

    def edges(self) -> NDArray[np.float64]:
        """The edges of all cells, from t0 to t1."""
        return np.asarray([self.edge(k) for k in range(self.cells + 1)])

    @abstractmethod
    def cell_increments(self, first: int, count: int) -> Tensor:
        """W over cells ``first, …, first + count − 1``, with shape ``(count, B, *event)``: one keyed draw a cell.

        The fastest way along the base grid: small draws are transformed together.
        """

    @abstractmethod
    def cell_levies(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """(W, H) over cells ``first, …, first + count − 1``, each ``(count, B, *event)``: two keyed draws a cell."""

    def cell(self, k: int) -> Tensor:
        """W over cell k, with shape ``(B, *event)``."""
        return self.cell_increments(k, 1)[0]

    def cell_levy(self, k: int) -> tuple[Tensor, Tensor]:
        """(W, H) over cell k, each with shape ``(B, *event)``."""
        W, H = self.cell_levies(k, 1)
        return W[0], H[0]

    @abstractmethod
    def reverse(self) -> Driver:
        """The path on which time runs the other way."""

    @overload
    def __call__(self, ta: Time, tb: Time | None = None) -> Tensor: ...

    @overload
    def __call__(
        self, ta: Time, tb: Time | None = None, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, ...]: ...

    def __call__(
        self, ta: Time, tb: Time | None = None, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        r"""W over [ta, tb], or over [t0, ta] where only one time is given.

        The two flags are those of torchsde, which takes a path as its ``bm=``.

        Arguments:
            ta: Where the interval begins, a number or a tensor with one element; or one time for each row, ``(B,)``.
            tb: Where it ends, ta <= tb. Both may be outside [t0, t1] by 1e-9 of its length, and are then at
                its end. Rows with times of their own get what they would get if all were asked about their interval.
            return_U: Also return :math:`U = \int_{ta}^{tb} W_{ta,r} \, dr = h (W/2 + H)`.
            return_A: Also return an approximate Lévy area, see :meth:`area`.

        Returns:
            W with shape ``(B, *event)``; or the tuple of W, U and A, those that were asked for.

        Raises:
            ArgumentError: If ta > tb, if the interval leaves [t0, t1], or if U or A is asked of a path that
                was not made with ``levy="space-time"``.
        """
        ta, tb = (self.t0, ta) if tb is None else (ta, tb)
        if (by_row := self._each(ta, tb)) is not None and not (return_U or return_A):
            return self._rows(*by_row)[0]
        interval = self._interval(ta, tb)
        if not (return_U or return_A):
            return self._increment(interval)
        self._require_levy()
        W, H = self._increment_and_levy(interval)
        answer = [W]
        if return_U:
            answer.append((interval.stop - interval.start) * (0.5 * W + H))
        if return_A:
            answer.append(self._area(interval, W, H))
        return tuple(answer)

    def levy(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """(W, H) over [s, t], each with shape ``(B, *event)``; s and t may be one time for each row, ``(B,)``.

        Raises:
            ArgumentError: As a call does; and if the path was not made with ``levy="space-time"``.
        """
        self._require_levy()
        if (by_row := self._each(s, t)) is not None:
            return self._rows(*by_row)
        return self._increment_and_levy(self._interval(s, t))

    @overload
    def shorten(self, s: float, t: float) -> float: ...

    @overload
    def shorten(self, s: Tensor, t: Tensor) -> Tensor: ...

    def shorten(self, s: Time, t: Time) -> Time:
        """A time in (s, t], at most a sixteenth of the interval before t, at which the path is had with fewest draws.

        For solvers that choose their steps: a time is found by halving, one draw for each binary digit of its place in the
        cell, and the last digits of a step that is an estimate anyway are not worth theirs. Times that are next to each
        other on the finest lattice stay as they are.

        Arguments:
            s: Where the interval begins, a number; or one for each row, float64 with shape ``(B,)``.
            t: Where it ends.

        Example:
            >>> from sdeflow.brownian import BrownianPath
            >>> BrownianPath((4, 2), 0.0, 1.0, seed=0).shorten(0.0, 0.3)  # 19/64
            0.296875
        """
        if isinstance(t, Tensor):
            start = torch.as_tensor(s, dtype=torch.float64, device=t.device).expand_as(t)
            there = self._shorten(start.detach().cpu().numpy(), t.detach().cpu().numpy())
            return torch.from_numpy(there).to(t.device)
        return float(self._shorten(np.asarray([s]), np.asarray([t]))[0])

    def _shorten(self, s: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
        return t

    def area(self, s: Time, t: Time) -> Tensor:
        """Foster's approximation of the Lévy area over [s, t], one M × M matrix a row.

        A function of the interval and the path's identity, as W and H are. It is not additive: the areas of
        two intervals do not make that of their union, which has the right moments but noise of its own.
        A path with shape ``(B,)`` is B scalar motions, and has area 0. The formula is
        :func:`~sdeflow.brownian.area.foster_area`.

        Raises:
            ArgumentError: As :meth:`levy` does.
        """
        interval = self._interval(s, t)
        return self._area(interval, *self.levy(s, t))

    def _area(self, interval: Interval, W: Tensor, H: Tensor) -> Tensor:
        if W.ndim == 1:
            return torch.zeros_like(W)
        return foster_area(W, H, interval.stop - interval.start, self._area_noise(interval))

    @property
    def levy_area_approximation(self) -> str:
        """What torchsde reads to know which of its methods may be driven by this path."""
        return "foster" if self.has_levy else "none"

    def size(self) -> tuple[int, ...]:
        """The shape, under the name that torchsde also uses."""
        return self.shape

    def _require_levy(self) -> None:
        if not self.has_levy:
            raise ArgumentError(
                'This path was made with levy="none", and H, U or A was asked of it; make it with '
                'levy="space-time" (W stays the same).'
            )

    def _each(self, s: Time, t: Time) -> tuple[Tensor, Tensor] | None:
        """Times of each row's own, checked, on the CPU in float64; None where there is one interval for all."""
        batch = self.shape[0]
        if not any(isinstance(v, Tensor) and v.shape == (batch,) and batch > 1 for v in (s, t)):
            return None
        start, stop = (torch.as_tensor(v, dtype=torch.float64, device="cpu").detach().expand(batch) for v in (s, t))
        slack = OUTSIDE * (self.t1 - self.t0)
        if not bool(((start <= stop + slack) & (start >= self.t0 - slack) & (stop <= self.t1 + slack)).all()):
            raise ArgumentError(
                f"The rows ask for intervals between {float(start.min())} and {float(stop.max())}; give to each a start "
                f"that is not after its stop, both in [{self.t0}, {self.t1}]."
            )
        start = start.clamp(self.t0, self.t1)
        return start, stop.clamp(self.t0, self.t1).maximum(start)

    def _interval(self, s: Time, t: Time) -> Interval:
        """The interval, if the path covers it; ends that are outside by rounding are moved inside."""
        (start, start_eps), (stop, stop_eps) = _number(s), _number(t)
        eps = max(start_eps, stop_eps)
        slack = OUTSIDE * (self.t1 - self.t0) + 2 * eps * max(abs(self.t0), abs(self.t1))
        if start > stop + slack:
            raise ArgumentError(
                f"The interval from {start} to {stop} was asked for, which runs backward; give the earlier "
                "time first, or ask path.reverse()."
            )
        if not (self.t0 - slack <= start and stop <= self.t1 + slack):  # so that nan is refused too
            raise ArgumentError(
                f"The interval [{start}, {stop}] was asked for, but the path is on [{self.t0}, {self.t1}] "
                "only; make it with a t0 and t1 that cover all queries."
            )
        return Interval(max(start, self.t0), min(max(start, stop), self.t1), eps)


class ReversedPath(Driver):
    r"""The same path with time running the other way: :math:`\tilde B_s = B_{t_0 + t_1 - s} - B_{t_1}`.

    Over [s, t] it has the (W, H) of the original over the mirrored interval as (−W, H). H keeps its sign: the
    path lies on the same side of its chord from whichever end one looks, while its increment changes sign.
    The Lévy area changes sign too. Cells are mirrored: cell k is the original's cell ``cells − 1 − k``.

    Example:
        >>> from sdeflow.brownian import BrownianPath
        >>> path = BrownianPath((4, 2), 0.0, 1.0, seed=0)
        >>> torch.equal(path.reverse()(0.25, 0.5), -path(0.5, 0.75))
        True
    """

    def __init__(self, path: Driver) -> None:
        self.path = path
        self.seed, self.shape, self.t0, self.t1 = path.seed, path.shape, path.t0, path.t1
        self.cells, self.has_levy = path.cells, path.has_levy
        self.dtype, self.device, self.resolution = path.dtype, path.device, path.resolution

    def __repr__(self) -> str:
        return f"{self.path!r}.reverse()"

    def _mirror(self, interval: Interval) -> Interval:
        both = self.t0 + self.t1
        return Interval(max(both - interval.stop, self.t0), min(both - interval.start, self.t1), interval.eps)

    def _increment(self, interval: Interval) -> Tensor:
        return -self.path._increment(self._mirror(interval))

    def _increment_and_levy(self, interval: Interval) -> tuple[Tensor, Tensor]:
        W, H = self.path._increment_and_levy(self._mirror(interval))
        return -W, H

    def _area_noise(self, interval: Interval) -> Tensor:
        return -self.path._area_noise(self._mirror(interval))

    def edge(self, k: int) -> float:
        return self.t0 + self.t1 - self.path.edge(self.cells - k)

    def edges(self) -> NDArray[np.float64]:
        return self.t0 + self.t1 - self.path.edges()[::-1]

    def cell_increments(self, first: int, count: int) -> Tensor:
        return -self.path.cell_increments(self.cells - first - count, count).flip(0)

    def cell_levies(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        W, H = self.path.cell_levies(self.cells - first - count, count)
        return -W.flip(0), H.flip(0)

    def _rows(self, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        both = self.t0 + self.t1
        W, H = self.path._rows((both - stop).clamp(self.t0, self.t1), (both - start).clamp(self.t0, self.t1))
        return -W, H

    def reverse(self) -> Driver:
        return self.path


def _number(t: Time) -> tuple[float, float]:
    """The time as a float, and the relative rounding of the dtype it came in."""
    if isinstance(t, float):
        return t, DOUBLE_EPS
    try:
        if isinstance(t, Tensor) and t.is_floating_point():
            return float(t), torch.finfo(t.dtype).eps
        return float(t), DOUBLE_EPS
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"The time {t!r} was given; give a number, or a tensor of one.") from None
