"""Foreign networks as they are: their order of arguments, their form of time, their names of conditions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sdeflow.errors import ArgumentError, choose
from sdeflow.processes.parameters import finite_number
from sdeflow.types import Time

__all__ = ["adapt"]

ORDERS = ("tx", "xt", "x|t")
TIMES = ("broadcast", "flat", "scalar", "integer")


class Adapted(nn.Module):
    """A network behind the signature ``(t, x, **condition)``."""

    def __init__(self, net: Any, order: str, time: str, time_scale: float, rename: dict[str, str]) -> None:
        super().__init__()
        self.net = net
        self.order, self.time, self.time_scale, self.rename = order, time, time_scale, rename

    def _time(self, t: Time, x: Tensor) -> Tensor:
        time = torch.as_tensor(t, dtype=x.dtype, device=x.device) * self.time_scale
        if self.time == "scalar":
            if time.numel() != 1:
                raise ArgumentError(
                    f"the network takes one time for the batch (time='scalar'), but {time.numel()} rows have times of "
                    f"their own, as in training or with stepping='per-sample'. Adapt it with time='flat' if it can."
                )
            return time.reshape(())
        flat = time.reshape(-1).expand(len(x))
        if self.time == "broadcast":
            return flat.reshape(-1, *[1] * (x.ndim - 1))
        return flat.round().long() if self.time == "integer" else flat

    def forward(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        time = self._time(t, x)
        named = {self.rename.get(name, name): value for name, value in condition.items()}
        if self.order == "x|t":
            if x.ndim != 2:
                raise ArgumentError(f"order='x|t' joins t to states of shape (B, D); this one is {tuple(x.shape)}.")
            out = self.net(torch.cat([x, time.reshape(len(x), 1)], dim=1), **named)
        else:
            out = self.net(*((time, x) if self.order == "tx" else (x, time)), **named)
        value = getattr(out, "sample", None) if not isinstance(out, Tensor) else out
        if value is None and isinstance(out, (tuple, list)) and out:
            value = out[0]
        if not isinstance(value, Tensor):
            raise ArgumentError(
                f"the network returned {type(out).__name__}; a tensor, a tuple that begins with one, or an object with "
                f"a tensor .sample is understood."
            )
        return value


def adapt(
    net: Any,
    order: str = "tx",
    time: str = "broadcast",
    time_scale: float = 1.0,
    rename: dict[str, str] | None = None,
) -> nn.Module:
    """A network of another library, as a network of ``(t, x, **condition)``.

    ==========================================  =====================================================
    written for                                 ``sf.adapt(net, …)``
    ==========================================  =====================================================
    torchcfm's MLP: ``net(cat([x, t], -1))``    ``order="x|t"``
    torchcfm's U-Net: ``net(t, x, y=label)``    ``time="flat", rename={"label": "y"}``
    torchdyn: ``net(t, x, args=…)``             ``time="flat"``
    flow_matching: ``net(x, t)``                ``order="xt", time="flat"``
    diffusers: ``net(sample, timestep)``        ``order="xt", time="integer", time_scale=1000.0``
    ==========================================  =====================================================

    What it returns may be a tensor, an object with a tensor ``.sample``, or a tuple that begins with a tensor.

    Arguments:
        net: A function or module; its parameters become parameters of the result.
        order: ``"tx"``, ``"xt"``, or ``"x|t"``: joined along the last axis of states ``(B, D)``.
        time: ``"broadcast"``: ``(B, 1, …, 1)``; ``"flat"``: ``(B,)``; ``"integer"``: ``(B,)``, rounded to int64;
            ``"scalar"``: 0-d, which suits solving and not training, where each row has its own time.
        time_scale: What t is multiplied by.
        rename: From the names of conditions here to those that the network has.

    Raises:
        ArgumentError: A word is unknown, or (when called) a shape cannot be brought to what was said.

    Example:
        >>> theirs = torch.nn.Linear(3, 2)
        >>> net = sf.adapt(theirs, order="x|t")
        >>> net(torch.tensor(0.5), torch.zeros(4, 2)).shape
        torch.Size([4, 2])
    """
    if not callable(net):
        raise ArgumentError(f"the network is {type(net).__name__}; give a module or a function.")
    choose("order", order, ORDERS)
    choose("time", time, TIMES)
    if order == "x|t" and time in ("scalar", "integer"):
        raise ArgumentError(f"order='x|t' joins one time per row to the state, so time={time!r} does not apply.")
    if rename is not None and not (isinstance(rename, dict) and all(isinstance(v, str) for v in rename.values())):
        raise ArgumentError(f"rename={rename!r} is not a dictionary of names.")
    return Adapted(net, order, time, finite_number("time_scale", time_scale), dict(rename or {}))
