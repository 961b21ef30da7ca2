"""A problem: a process, where it starts, and what is right."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdeflow.brownian import BrownianPath, Driver
from sdeflow.errors import ArgumentError
from sdeflow.processes import SDE, Process
from sdeflow.solvers import Solution, methods, solve
from sdeflow.solvers.noise import noise_shape

__all__ = ["Moment", "Problem"]

Exact = Tensor | Callable[[Any], Tensor]
KEPT = 2  # reference solutions: the truth, and the one with half the steps


@dataclass(frozen=True)
class Moment:
    """An expectation that is known: E φ(x_t) = value(t).

    Attributes:
        function: φ, from states ``(B, *event)`` to ``(B,)``.
        value: Its expectation at a time, on the clock of the process.
    """

    function: Callable[[Tensor], Tensor]
    value: Callable[[float], float]


@dataclass(frozen=True, eq=False)
class Problem:
    """What solvers are compared on.

    Arguments:
        process: An SDE or an ODE.
        x0: Where it starts, with shape ``(B, *event)``; float64, if small errors are to be seen. For an SDE, B is the number
            of paths.
        t: (from, to); the process's interval in its own direction by default.
        exact: The state at the end: a tensor for an ODE, for an SDE a function of the Brownian path that drives it (the
            solution x(W) of that path). It says the truth, so no reference is computed.
        reference: What :func:`sdeflow.solve` is told for a reference solution where no exact one is known, such as
            ``{"method": "rk4", "steps": 4096}``. For an SDE it is solved on the same path as the methods. It is solved once for
            each path, and again when x0 or a parameter of the process has changed; a process that changes otherwise, such
            as by a constant that its drift reads, is another problem.
        moments: Expectations that are known, by name; enough by themselves where only weak errors are asked for.
        breakpoints: Times at which a coefficient jumps; every solve is told.
        accuracy: How far off the truth may be, root-mean-square; what is known of a stored or a reference solution.
        tags: Words to find it by, such as ``"stiff"``.
        name: For tables and pictures.
        source: Where it comes from: title, year, link.

    Raises:
        ArgumentError: Both exact and reference are given, or none of exact, reference and moments.

    Example:
        >>> import math
        >>> decay = sf.analysis.Problem(
        ...     sf.ODE(lambda t, x: -x), torch.ones(1, 1), exact=torch.full((1, 1), math.exp(-1)), name="decay"
        ... )
        >>> decay.truth()
        tensor([[0.3679]])
    """

    process: Process
    x0: Tensor
    t: tuple[float, float] | None = None
    exact: Exact | None = None
    reference: dict[str, Any] | None = None
    moments: Mapping[str, Moment] = field(default_factory=dict)
    breakpoints: tuple[float, ...] = ()
    accuracy: float = 0.0
    tags: tuple[str, ...] = ()
    name: str = "problem"
    source: str = ""
    _solved: dict[Hashable, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        both = self.exact is not None and self.reference is not None
        if both or (self.exact is None and self.reference is None and not self.moments):
            raise ArgumentError(
                "a problem has either exact= (a tensor, or a function of the Brownian path) or reference= (options of "
                "solve for a fine solution), or else moments= for weak errors alone."
            )
        if isinstance(self.exact, Tensor) and self.is_stochastic:
            raise ArgumentError("the exact end of an SDE depends on its noise; give exact= as a function of the path.")

    @property
    def span(self) -> tuple[float, float]:
        """(from, to), in the direction of the solve."""
        if self.t is not None:
            return self.t
        start, end = self.process.interval
        return (start, end) if self.process.direction > 0 else (end, start)

    @property
    def length(self) -> float:
        """Of the span."""
        return abs(self.span[1] - self.span[0])

    @property
    def is_stochastic(self) -> bool:
        return isinstance(self.process, SDE)

    @property
    def truth_is(self) -> str:
        """What says the truth at the end: ``"exact"``, ``"stored"``, ``"reference"`` or ``"moments"``."""
        if self.exact is not None:
            return "stored" if self.accuracy else "exact"
        return "reference" if self.reference is not None else "moments"

    def path(self, cells: int, *, seed: int, levy: bool) -> Driver | None:
        """The Brownian path that all methods share, on the clock that runs forward; None for an ODE."""
        if not isinstance(self.process, SDE):
            return None
        start, end = self.span
        if start > end:
            total = self.process.interval[0] + self.process.interval[1]
            start, end = total - start, total - end
        return BrownianPath(
            noise_shape(self.process, self.span[0], self.x0),
            start,
            end,
            seed=seed,
            cells=cells,
            levy="space-time" if levy else "none",
            dtype=self.x0.dtype,
            device=self.x0.device,
        )

    def solve(self, **options: Any) -> Solution:
        """:func:`sdeflow.solve` on this problem, without gradients."""
        if self.breakpoints:
            options = {"breakpoints": self.breakpoints, **options}
        with torch.no_grad():
            return solve(self.process, self.x0, self.span, **options)

    def truth(self, path: Driver | None = None) -> Tensor:
        """The state at the end, on the given path for an SDE.

        Raises:
            ArgumentError: Only moments are known.
        """
        if self.exact is not None:
            return self.exact(path) if callable(self.exact) else self.exact
        if self.reference is None:
            raise ArgumentError(
                f"of {self.name!r} only moments are known, {', '.join(map(repr, self.moments))}, not the end of each path; "
                f"ask for weak errors, or give the problem a reference=."
            )
        return self._referred(self.reference, path)

    def doubt(self, path: Driver | None = None) -> float:
        """How far off the truth may be, root-mean-square: what is said of it, rounding, and how far a reference solution is
        from one with half its steps.

        Example:
            >>> import math
            >>> decay = sf.analysis.Problem(
            ...     sf.ODE(lambda t, x: -x), torch.ones(1, 1).double(), reference={"method": "heun", "steps": 64}
            ... )
            >>> off = abs(float(decay.truth()) - math.exp(-1))
            >>> off < decay.doubt() < 5 * off
            True
        """
        truth = self.truth(path)
        known = max(self.accuracy, 8 * torch.finfo(truth.dtype).eps * truth.square().mean().sqrt().item())
        steps = (self.reference or {}).get("steps")
        if self.reference is None or not isinstance(steps, int) or self.accuracy:
            return known
        coarser = self._referred({**self.reference, "steps": steps // 2}, path)
        return max(known, (truth - coarser).square().mean().sqrt().item())

    def _referred(self, options: dict[str, Any], path: Driver | None) -> Tensor:
        """A reference solution; the last ones are kept, so that methods which are compared one by one share theirs."""
        tensors = (self.x0, *self.process.parameters(), *self.process.buffers())
        state = tuple((tensor.data_ptr(), None if tensor.is_inference() else tensor._version) for tensor in tensors)
        key = (repr(sorted(options.items())), state, _identity(path))
        if key not in self._solved:
            while len(self._solved) >= KEPT:
                del self._solved[next(iter(self._solved))]
            self._solved[key] = self.solve(**options, **({} if path is None else {"brownian": path})).final
        return self._solved[key].clone()

    def needs_levy(self, names: Sequence[str]) -> bool:
        """Whether one of the methods, or the reference, asks for space-time Lévy area."""
        table = methods()
        used = [*names, *([self.reference["method"]] if self.reference and "method" in self.reference else [])]
        return any({"H", "A"} & set(table[name].needs) for name in used if name in table)


def _identity(path: Driver | None) -> Hashable:
    """What a path is a function of; a driver of another kind is only itself. Lévy area, there or not, changes no W."""
    if not isinstance(path, BrownianPath):
        return path
    edges = path.edges().tobytes()
    return path.seed, path.shape, path.first_row, edges, path.dtype, str(path.device)
