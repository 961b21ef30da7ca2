r"""Score, velocity, data and noise: four views of one thing on a Gaussian path x_t = a x_data + s x_noise.

With x̂₁ = E[x_data | x_t] and x̂₀ = E[x_noise | x_t], the state is a x̂₁ + s x̂₀, and each quantity is another linear
combination of the same two:

=============  ==========  ==============  ======================================================
quantity       of x̂₁       of x̂₀           finite where
=============  ==========  ==============  ======================================================
``data``       1           0               everywhere; found from the others where a > 0
``noise``      0           1               everywhere; found from the others where s > 0
``velocity``   ȧ           ṡ               ȧ and ṡ are finite (ṡ is not at s = 0 of VP, VE, OU)
``score``      0           −1/s            s > 0
=============  ==========  ==============  ======================================================

So every conversion is one 2×2 solve. It needs x_noise ~ N(0, I) independent of x_data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.errors import choose
from sdeflow.processes.boundary import as_time
from sdeflow.processes.schedule import Schedule
from sdeflow.types import Time

__all__ = ["QUANTITIES", "coefficients", "convert"]

QUANTITIES = ("data", "noise", "velocity", "score")


def _row(quantity: str, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(p, q, r) with r · quantity = p x̂₁ + q x̂₀; r is s for the score, so that the row is finite at s = 0."""
    one = t.new_ones(())
    zero = t.new_zeros(())
    if quantity == "data":
        return one, zero, one
    if quantity == "noise":
        return zero, one, one
    if quantity == "velocity":
        return schedule.a_dot(t), schedule.s_dot(t), one
    return zero, -one, schedule.s(t)


def convert(schedule: Schedule, t: Time, x: Tensor, value: Tensor, *, given: str, wanted: str) -> Tensor:
    """One of score, velocity, data and noise from another, at the state x.

    Arguments:
        schedule: a(t) and s(t), on the clock of t.
        t: The time, or one time per row.
        x: The state, with shape ``(B, *event)``.
        value: The quantity given, with the shape of x.
        given: ``"score"``, ``"velocity"``, ``"data"`` or ``"noise"``.
        wanted: One of the same words.

    Returns:
        The quantity wanted, with the shape of x. See the module's table for where it is finite.

    Example:
        >>> from sdeflow.processes import LinearSchedule, convert
        >>> x, v = torch.tensor([[1.0]]), torch.tensor([[3.0]])
        >>> convert(LinearSchedule(), 0.5, x, v, given="velocity", wanted="score")  # (t v − x)/(1 − t)
        tensor([[1.]])
    """
    choose("given", given, QUANTITIES)
    choose("wanted", wanted, QUANTITIES)
    if given == wanted:
        return value  # at the ends too, where the solve below would be 0/0
    of_x, of_value = coefficients(schedule, as_time(t, x), given, wanted)
    return torch.addcmul(of_x.to(x.dtype) * x, of_value.to(x.dtype), value)


def coefficients(schedule: Schedule, t: Tensor, given: str, wanted: str) -> tuple[Tensor, Tensor]:
    """What :func:`convert` multiplies the state with, and the quantity given: float64, at float64 times of any shape."""
    if given == wanted:
        return torch.zeros_like(t), torch.ones_like(t)
    a, s = schedule.a(t), schedule.s(t)
    p, q, r = _row(given, schedule, t)
    u, w, z = _row(wanted, schedule, t)
    determinant = (a * q - s * p) * z
    return (u * q - w * p) / determinant, (w * a - u * s) * r / determinant
