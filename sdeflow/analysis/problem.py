"""A problem: a process, where it starts, and what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdeflow.brownian import BrownianPath, Driver
from sdeflow.errors import ArgumentError
from sdeflow.processes import SDE, Process
from sdeflow.solvers import methods, solve
from sdeflow.solvers.noise import noise_shape

__all__ = ["Problem"]

Exact = Tensor | Callable[[Any], Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    """What solvers are compared on.

    Arguments:
        process: An SDE or an ODE.
        x0: Where it starts, with shape ``(B, *event)``; float64, if small errors are to be seen.
        t: (from, to); the process's interval in its own direction by default.
        exact: The state at the end: a tensor for an ODE, for an SDE a function of the Brownian path that drives it (the
            solution x(W) of that path). It says the truth, so no reference is computed.
        reference: What :func:`sdeflow.solve` is told for a reference solution where no exact one is known, such as
            ``{"method": "rk4", "steps": 4096}``. For an SDE it is solved on the same path as the methods.
        name: For tables and pictures.

    Raises:
        ArgumentError: Both or neither of exact and reference are given.

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
    name: str = "problem"

    def __post_init__(self) -> None:
        if (self.exact is None) == (self.reference is None):
            raise ArgumentError(
                "a problem has either exact= (a tensor, or a function of the Brownian path) or reference= (options of "
                "solve for a fine solution)."
            )

    @property
    def span(self) -> tuple[float, float]:
        """(from, to), in the direction of the solve."""
        if self.t is not None:
            return self.t
        start, end = self.process.interval
        return (start, end) if self.process.direction > 0 else (end, start)

    @property
    def is_stochastic(self) -> bool:
        return isinstance(self.process, SDE)

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

    def truth(self, path: Driver | None = None) -> Tensor:
        """The state at the end, on the given path for an SDE."""
        if self.exact is not None:
            return self.exact(path) if callable(self.exact) else self.exact
        assert self.reference is not None
        with torch.no_grad():
            options = self.reference if path is None else {**self.reference, "brownian": path}
            return solve(self.process, self.x0, self.span, **options).final

    def needs_levy(self, names: list[str]) -> bool:
        """Whether one of the methods, or the reference, asks for space-time Lévy area."""
        table = methods()
        used = [*names, *([self.reference["method"]] if self.reference and "method" in self.reference else [])]
        return any({"H", "A"} & set(table[name].needs) for name in used if name in table)
