"""A field that is the gradient of a network: an energy as a score, an action as a velocity."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdeflow.calculus import gradient
from sdeflow.errors import ArgumentError
from sdeflow.types import Time

__all__ = ["Gradient"]


class Gradient(nn.Module):
    """The field (t, x) → scale · ∇_x E(t, x) of a network with one value a row; its Jacobian is symmetric.

    Arguments:
        energy: A function of (t, x) and the conditions, with shape ``(B,)``.
        scale: −1 makes the score of the density e^{−E}/Z.

    Raises:
        ArgumentError: (When called) the energy has another shape.

    Example:
        >>> score = sf.networks.Gradient(lambda t, x: 0.5 * x.square().sum(1), scale=-1.0)
        >>> score(0.0, torch.ones(1, 2))
        tensor([[-1., -1.]])
    """

    def __init__(self, energy: Any, scale: float = 1.0) -> None:
        super().__init__()
        self.energy, self.scale = energy, scale

    def forward(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        def value(y: Tensor) -> Tensor:
            energy = self.energy(t, y, **condition)
            if not isinstance(energy, Tensor) or energy.shape != y.shape[:1]:
                shape = tuple(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
                raise ArgumentError(f"the energy returned {shape}; return one number a row, shape ({len(y)},).")
            return energy

        return self.scale * gradient(value, x)[1]
