"""What a process says of its noise, looked at where a solve starts: a false promise would silently cost order, or be wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.calculus import gradient, jacobian
from sdeflow.errors import ArgumentError, MethodError
from sdeflow.processes.boundary import state_time
from sdeflow.processes.process import Process, prepared
from sdeflow.processes.sde import SDE
from sdeflow.solvers.methods import Method

__all__ = ["check_additive", "check_commuting"]


def check_additive(process: Process, t: float, x: Tensor) -> None:
    """A diffusion that was declared additive and depends on x would silently lose its correction terms.

    The promise is that of the SDE which the process was made from, by reversal, as its probability flow, and so on.
    """
    root = _root(process)
    if not isinstance(root, SDE) or not root.additive or type(root).precise_time:  # the library's own are what they say
        return
    bare, time = prepared(root, "diffusion"), state_time(t, x, root.interval)
    with torch.no_grad():
        here = bare(time, x)
        if not isinstance(here, Tensor):  # a number
            return
        there = bare(time, x + 1)
    if not torch.equal(here, there):
        raise ArgumentError("the process says additive=True, but its diffusion changes with x; drop additive=True.")


def check_commuting(process: Process, method: Method, t: float, x: Tensor) -> None:
    """A method whose order needs commuting noise gets it.

    Raises:
        ArgumentError: The process says commutative=True, and its columns do not commute.
        MethodError: The noise is on the diagonal, a coordinate of it depends on others, and the method has no order then.
    """
    if not isinstance(process, SDE) or process.additive:
        return
    if process.commutative and not _columns_commute(process, t, x):
        raise ArgumentError(
            "the process says commutative=True, but at x0 its columns do not commute, (∂σ_k)σ_l ≠ (∂σ_l)σ_k; "
            "drop commutative=True."
        )
    needs = method.engine == "native" and "general" not in method.strong_order
    if process.noise == "diagonal" and needs and not is_elementwise(process, t, x):
        from sdeflow.solvers.registry import methods  # the registry stands above; this is for its error only

        able = [m.name for m in methods() if "general" in m.strong_order and not m.misfit(process)]
        raise MethodError(
            f"method={method.name!r} cannot solve this: coordinate i of the diffusion depends on other coordinates of the "
            f"state, so that this diagonal noise does not commute, and its order takes Lévy areas. "
            f"Methods that can: {', '.join(able)}."
        )


def is_elementwise(process: SDE, t: float, x: Tensor) -> bool:
    """Whether coordinate i of a diagonal diffusion depends on coordinate i only: rᵀJ = r · 1ᵀJ for all r, so for one."""
    if x[0].numel() == 1:
        return True
    r = torch.linspace(1, 2, x[0].numel(), dtype=x.dtype, device=x.device).reshape(x[0].shape)

    def pulled_back(w: Tensor) -> Tensor:
        return gradient(lambda y: (w * process.diffusion(t, y).expand_as(y)).flatten(1).sum(1), x)[1]

    with torch.no_grad():
        return _agree(pulled_back(r), r * pulled_back(torch.ones_like(r)))


def _columns_commute(process: SDE, t: float, x: Tensor) -> bool:
    with torch.no_grad():
        g, J = jacobian(lambda y: process.diffusion(t, y), x)
    brackets = torch.einsum("bikj,bjl->bikl", J.reshape(*g.shape, x.shape[1]), g)
    return _agree(brackets, brackets.mT)


def _agree(a: Tensor, b: Tensor) -> bool:
    """Whether they are equal up to rounding; what is not finite shows nothing."""
    rounding = 1e3 * torch.finfo(a.dtype).eps * a.abs().amax()
    return not bool(((a - b).abs() > rounding).any())


def _root(process: Process) -> Process:
    while parent := _made_from(process):
        process = parent
    return process


def _made_from(process: Process) -> Process | None:
    parents = map(process._modules.get, ("original", "sde", "flow"))
    return next((parent for parent in parents if isinstance(parent, Process)), None)
