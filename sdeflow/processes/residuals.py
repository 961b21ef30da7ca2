r"""Do a process and a density belong together? The equations for p_t, by automatic differentiation.

Both residuals are divided by p_t, so that they are of the size of ∂_t log p_t and can be read in any number of dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdeflow.calculus import apply_covariance, divergence, gradient, noise_terms, outside_inference_mode
from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import as_time
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.types import Field, Time

__all__ = ["continuity_residual", "fokker_planck_residual"]

LogDensity = Callable[[Time, Tensor], Tensor]


@outside_inference_mode
def continuity_residual(velocity: Process | Field, log_prob: LogDensity, t: Time, x: Tensor) -> Tensor:
    r"""∂_t log p_t + ∇·v + v·∇log p_t at each row, with shape ``(B,)``: zero where the flow v carries p_t.

    Arguments:
        velocity: An ODE, or a function of (t, x).
        log_prob: log p_t(x), a function of (t, x) with shape ``(B,)`` that autograd can follow in t and in x.
        t: The time, or one time per row.
        x: Where, with shape ``(B, *event)``.

    Example:
        >>> normal = lambda t, x: -0.5 * (x * torch.exp(t)).square().sum(1) + t.flatten() * x.shape[1]
        >>> x = torch.randn(3, 2, dtype=torch.float64)
        >>> sf.continuity_residual(lambda t, x: -x, normal, 0.5, x).abs().max() < 1e-12
        tensor(True)
    """
    if not x.is_floating_point():
        raise ArgumentError(f"x is {x.dtype}; give a floating-point state.")
    field = velocity.drift if isinstance(velocity, Process) else velocity
    times = as_time(t, x).detach().expand(len(x), *[1] * (x.ndim - 1)).contiguous()
    with torch.enable_grad():
        _, rate = gradient(lambda s: log_prob(s, x), times)
        _, slope = gradient(lambda y: log_prob(times, y), x)
        v, spread = divergence(lambda y: field(times, y), x)
        residual = rate.flatten() + spread + (v * slope).flatten(1).sum(1)
    return residual.detach()


@outside_inference_mode
def fokker_planck_residual(process: Process, log_prob: LogDensity, t: Time, x: Tensor) -> Tensor:
    r"""The Fokker–Planck equation divided by p_t, at each row, with shape ``(B,)``: zero where p_t is the law of the process.

    .. math:: \frac{\partial_t p + \nabla\cdot(f p) \mp \tfrac12 \nabla\cdot\nabla\cdot(\Sigma p)}{p},

    with − on a clock that runs forward and + on the backward clock. The flux is differentiated as it stands, from the
    diffusion itself, so that a closed form of ∇·Σ which a process brings along is put to the test as well.

    Arguments:
        process: An SDE in either calculus, or an ODE (then the residual is the continuity equation's).
        log_prob: log p_t(x), a function of (t, x) with shape ``(B,)`` that autograd can follow in t and, three times, in x.
        t: The time, or one time per row.
        x: Where, with shape ``(B, *event)``; float64, if the residual is to mean much.

    Example:
        >>> sde = sf.processes.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
        >>> stationary = lambda t, x: -x.square().sum(1)
        >>> x = torch.randn(3, 2, dtype=torch.float64)
        >>> sf.fokker_planck_residual(sde, stationary, 0.5, x).abs().max() < 1e-12
        tensor(True)
    """
    if not isinstance(process, SDE):
        return continuity_residual(process, log_prob, t, x)
    ito = process.to_ito()

    def current(t: Time, y: Tensor) -> Tensor:
        """The velocity of the probability current."""
        _, slope = gradient(lambda z: log_prob(t, z), y)
        spread = apply_covariance(ito.noise, ito.diffusion(t, y), slope)
        if not ito.additive:
            c, d = noise_terms(ito.noise, lambda z: ito.diffusion(t, z), y)
            spread = spread + c + d
        return ito.drift(t, y) - 0.5 * ito.direction * spread

    return continuity_residual(current, log_prob, t, x)
