"""torchsde's adjoint: which backward method goes with which process, and which tensors get a gradient."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from sdeflow.calculus import leaves
from sdeflow.errors import MethodError, SdeflowWarning
from sdeflow.processes.sde import SDE

__all__ = ["adjoint_options", "captured", "once_only"]


def captured(process: SDE, x: Tensor, times: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Every tensor that a gradient can go to: the parameters, and what closures hold without saying so.

    The second kind is found by evaluating the coefficients at the first and the last time, and walking their graphs.
    """
    found: dict[int, Tensor] = {id(p): p for p in process.parameters() if p.requires_grad}
    with torch.enable_grad():
        for t in (times[0], times[-1]):
            for y in (process.drift(t, x.detach()), process.diffusion(t, x.detach())):
                found.update((id(leaf), leaf) for leaf in leaves(y))
    return tuple(found.values())


def adjoint_options(process: SDE, method: str, calculus: str, parameters: tuple[Tensor, ...]) -> dict[str, Any]:
    """What ``torchsde.sdeint_adjoint`` is told besides what ``torchsde.sdeint`` is.

    A backward method that does not fit would fail only in the backward pass, with a message about something else; so it
    is chosen here. Itô: Milstein's for a noise on the diagonal that depends on the state, else Euler's. Stratonovich:
    Heun's for itself, for reversible Heun its own inverse, else the midpoint rule. At steps of 1/64 the gradients then
    differ from those of backpropagation by about 1e-2 for Itô methods, 4e-3 for ``euler_heun`` and ``milstein``, 6e-4
    for the other Stratonovich methods, and by rounding for ``reversible_heun``.
    """
    if method == "reversible_heun":
        backward = "adjoint_reversible_heun"
    elif calculus == "stratonovich":
        backward = "heun" if method == "heun" else "midpoint"
    else:
        backward = "milstein" if process.noise == "diagonal" and not process.additive else "euler"
    if calculus == "ito" and process.noise == "general" and not process.additive:
        warnings.warn(
            "gradient='adjoint' of an Itô SDE with general noise is inaccurate: gradients were off by 2 to 20 % at "
            "steps of 1/64. Use gradient='backprop', or the process in Stratonovich form, process.to_stratonovich().",
            SdeflowWarning,
            stacklevel=5,
        )
    return {"adjoint_method": backward, "adjoint_params": parameters}


class _OnceOnly(torch.autograd.Function):
    """The identity, whose backward pass refuses to be differentiated itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise MethodError(
                "create_graph=True asks for gradients of gradients, and gradient='adjoint' has none for Itô methods and "
                "'torchsde:reversible_heun'. Use gradient='backprop', or another Stratonovich method."
            )
        return gradient


def once_only(x: Tensor) -> Tensor:
    """The same tensor; differentiating it twice is refused in a sentence, where torchsde asks for a bug report."""
    same: Tensor = _OnceOnly.apply(x)  # type: ignore[no-untyped-call]
    return same
