r"""The score that a forward and a reverse process imply together.

Nelson's relation on the backward clock is :math:`f^+ - f^- = \nabla\cdot\Sigma + \Sigma\nabla\log p_t`, and with the reverse
process on the flipped clock :math:`f^+(t) + f^-(t_0 + t_1 - t)` takes the place of the left side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.calculus import covariance
from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import as_time
from sdeflow.processes.flipped import flip
from sdeflow.processes.sde import SDE
from sdeflow.types import Field, Time

__all__ = ["nelson_score"]


def nelson_score(sde: SDE, reverse: SDE) -> Field:
    """The score ∇log p_t(x), a function of (t, x) on the clock of ``sde``, that makes ``reverse`` its reversal.

    Arguments:
        sde: The forward process.
        reverse: Its reversal, on either clock: a process that runs the other way on the same axis, or the same way on the
            flipped one.

    Raises:
        ArgumentError: The intervals differ, or Σ is singular somewhere, so that the score is not determined.

    References:
        Dynamical Theories of Brownian Motion (Nelson, 1967)

    Example:
        >>> sde = sf.processes.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
        >>> rev = sde.reverse(lambda t, x: -2 * x)
        >>> sf.nelson_score(sde, rev)(0.5, torch.ones(1, 1))
        tensor([[-2.]])
    """
    for name, process in (("sde", sde), ("reverse", reverse)):
        if not isinstance(process, SDE):
            raise ArgumentError(f"{name} is {type(process).__name__}, which has no noise; give two SDEs.")
    if sde.interval != reverse.interval:
        raise ArgumentError(f"the processes have different intervals, {sde.interval} and {reverse.interval}.")
    backward = reverse if reverse.direction == -sde.direction else flip(reverse)
    assert isinstance(backward, SDE)
    forward, backward = sde.to_ito(), backward.to_ito()

    def score(t: Time, x: Tensor) -> Tensor:
        t = as_time(t, x)
        difference = sde.direction * (forward.drift(t, x) - backward.drift(t, x)) - forward.diffusion_divergence(t, x)
        g = forward.diffusion(t, x)
        if forward.noise == "diagonal":
            variances, singular = (g * g).expand_as(x), bool((g == 0).any())
            solved = difference / variances
        else:
            sigma = covariance(forward.noise, g, x)
            singular = bool((torch.linalg.matrix_rank(sigma) < sigma.shape[-1]).any())
            solved = difference if singular else torch.linalg.solve(sigma, difference.flatten(1)).reshape(x.shape)
        if singular:
            raise ArgumentError(
                f"Σ is singular at t = {t.flatten()[0].item():g}: the noise does not reach every direction "
                f"(as in underdamped Langevin dynamics), so two processes do not determine a score."
            )
        return solved

    return score
