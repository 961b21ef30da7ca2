"""What drives an SDE: the caller's Brownian path if it fits, else one whose cells are the steps of the solve."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdeflow.brownian import BrownianPath, Driver, fresh_seed
from sdeflow.errors import ArgumentError
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.solvers.grid import Grid
from sdeflow.solvers.methods import Method
from sdeflow.solvers.promises import check_additive, check_commuting

__all__ = ["driver_for", "noise_shape"]


def driver_for(
    process: Process,
    x0: Tensor,
    times: list[float],
    grid: Grid | None,
    method: Method,
    seed: int | None,
    brownian: Driver | None,
) -> Driver | None:
    """What drives an SDE on the forward clock: the caller's path if it fits, else one whose cells are the solve's steps."""
    check_additive(process, times[0], x0)
    check_commuting(process, method, times[0], x0)
    if not isinstance(process, SDE):
        if brownian is not None:
            raise ArgumentError("brownian= is given, but an ODE has no noise.")
        if seed is not None:
            fresh_seed(seed)  # it draws nothing here, but a typing error in it is one
        return None
    shape = noise_shape(process, times[0], x0)
    levy = bool({"H", "A"} & set(method.needs))
    if brownian is None:
        cells: Any = 1 if grid is None else grid.steps if grid.uniform else grid.nodes.tolist()
        return BrownianPath(
            shape,
            times[0],
            times[-1],
            seed=fresh_seed(seed),
            cells=cells,
            levy="space-time" if levy else "none",
            dtype=x0.dtype,
            device=x0.device,
        )
    if seed is not None:
        raise ArgumentError("seed and brownian are given together; a path carries its own seed.")
    if not isinstance(brownian, Driver):
        raise ArgumentError(f"brownian is {type(brownian).__name__}; give an sf.BrownianPath.")
    slack = 1e-9 * (times[-1] - times[0])
    if brownian.t0 > times[0] + slack or brownian.t1 < times[-1] - slack:
        raise ArgumentError(
            f"the path covers [{brownian.t0:g}, {brownian.t1:g}], but the solve needs [{times[0]:g}, {times[-1]:g}] "
            f"(for decreasing t, on the flipped clock)."
        )
    if tuple(brownian.shape) != tuple(shape) or brownian.dtype != x0.dtype or brownian.device != x0.device:
        raise ArgumentError(
            f"the path has shape {tuple(brownian.shape)}, {brownian.dtype} on {brownian.device}; with "
            f"noise={process.noise!r} this solve needs {tuple(shape)}, {x0.dtype} on {x0.device}."
        )
    if levy and not brownian.has_levy:
        raise ArgumentError(f"method={method.name!r} needs space-time Lévy area; make the path with levy='space-time'.")
    return brownian


def noise_shape(process: SDE, t: float, x0: Tensor) -> tuple[int, ...]:
    if process.noise == "diagonal":
        return tuple(x0.shape)
    if process.noise == "scalar":
        return (len(x0), *[1] * (x0.ndim - 1))
    with torch.no_grad():  # the number of columns is only known from the diffusion itself
        return (len(x0), process.diffusion(t, x0).shape[2])
