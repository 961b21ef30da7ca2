"""The steps of a flow's solves: whose they are, in which direction, and how to make them finer."""

from __future__ import annotations

from typing import Any

import torch

from sdeflow.solvers.grid import as_sequence
from sdeflow.solvers.registry import get_method

__all__ = ["own_clocks", "tightened", "turned"]

TOLERANCE = 1e-5


def own_clocks(options: dict[str, Any]) -> bool:
    """Whether a solve with these options can give each sample its own clock."""
    method = options.get("method")
    if method is None:
        return bool(options.get("gradient") != "adjoint")
    return "per-sample" in get_method(method).stepping


def turned(steps: Any, times: tuple[float, float]) -> Any:
    """A grid in the direction of the solve; a number of steps as it is."""
    steps = as_sequence(steps)
    if isinstance(steps, str) or not hasattr(steps, "__len__"):
        return steps
    nodes = list(steps)
    return nodes[::-1] if len(nodes) > 1 and (nodes[-1] > nodes[0]) != (times[1] > times[0]) else nodes


def tightened(options: dict[str, Any], factor: float) -> dict[str, Any]:
    """The step rule, finer: tolerances divided by the factor, or, for fixed steps, steps half as long."""
    options = dict(options)
    if factor == 1:
        return options
    if options.get("steps") is not None:
        options["steps"] = _halved(options["steps"])
    elif options.get("dt") is not None:
        options["dt"] = options["dt"] / 2
    else:
        given = {name: options[name] for name in ("rtol", "atol") if options.get(name) is not None}
        options.update({name: value / factor for name, value in (given or {"rtol": TOLERANCE}).items()})
    return options


def _halved(steps: Any) -> Any:
    """Twice the number of steps, or the grid with its midpoints."""
    if isinstance(steps, int):
        return 2 * steps
    nodes = torch.as_tensor(steps, dtype=torch.float64)
    middles = (nodes[1:] + nodes[:-1]) / 2
    return torch.cat([torch.stack([nodes[:-1], middles], 1).flatten(), nodes[-1:]])
