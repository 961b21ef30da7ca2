r"""Continuous normalising flows by maximum likelihood, with the regularisers that keep them easy to solve.

.. math:: L = -\log p(x) + \lambda_K \int E\|v\|^2 dt + \lambda_J \int E\|\nabla v\|_F^2 dt

along the trajectory of each data point to the base.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.brownian import Stream, fresh_seed, signs
from sdeflow.calculus import gradient, jacobian
from sdeflow.errors import ArgumentError, choose
from sdeflow.models.model import GenerativeModel
from sdeflow.paths import Draws
from sdeflow.processes.ode import ODE
from sdeflow.processes.parameters import finite_number
from sdeflow.solvers import solve
from sdeflow.types import Time

__all__ = ["ContinuousFlow"]

EXACT_UP_TO = 64
Terms = Callable[[ODE, Time, Tensor], tuple[Tensor, Tensor, Tensor]]


class ContinuousFlow(GenerativeModel):
    """A continuous normalising flow: a velocity trained by the likelihood of the data.

    Each training step solves an ODE; the simulation-free losses of the other models do not. With the regularisers it is RNODE.

    Arguments:
        net: v(t, x) and the conditions, with the shape of x; base at t = 0, data at t = 1.
        base: The law at t = 0.
        kinetic: λ_K ≥ 0, the weight of ∫‖v‖² dt.
        jacobian: λ_J ≥ 0, the weight of ∫‖∇v‖_F² dt.
        divergence: ``"exact"`` (the default up to 64 dimensions), or ``"hutchinson"``: one probe of signs e a sample and
            trajectory, for ∇·v by e·(∇v)e and for ‖∇v‖_F² by ‖(∇v)ᵀe‖².
        solver: Options of :func:`sdeflow.solve` for training; tolerances of 1e-5 by default.

    Raises:
        ArgumentError: A weight is negative, or above 64 dimensions no divergence was chosen.

    References:
        Neural Ordinary Differential Equations (Chen et al., 2018), https://arxiv.org/abs/1806.07366;
        How to Train Your Neural ODE: the World of Jacobian and Kinetic Regularization (Finlay et al., 2020),
        https://arxiv.org/abs/2002.02798

    Example:
        >>> base = sf.paths.LinearPath().base((2,))
        >>> model = sf.models.ContinuousFlow(
        ...     sf.networks.MLP(2), base, kinetic=0.01, solver={"steps": 8, "method": "heun"}
        ... )
        >>> model.loss(sf.data.moons(32, seed=0)).backward()
    """

    def __init__(
        self,
        net: Any,
        base: Distribution,
        *,
        kinetic: float = 0.0,
        jacobian: float = 0.0,
        divergence: str | None = None,
        solver: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(net, base, schedule="its marginals are those of no fixed path")
        self.kinetic, self.jacobian = (
            _weight(name, value) for name, value in (("kinetic", kinetic), ("jacobian", jacobian))
        )
        dims = base.event_shape.numel()
        if divergence is None:
            if dims > EXACT_UP_TO:
                raise ArgumentError(
                    f"the state has {dims} dimensions, and an exact divergence costs one product with the Jacobian for "
                    f"each. Choose: divergence='exact' or 'hutchinson'."
                )
            divergence = "exact"
        self.divergence = choose("divergence", divergence, ("exact", "hutchinson"))
        self.solver = dict(solver or {})

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        if x0 is not None:
            raise ArgumentError(
                "maximum likelihood has no use for x0: each data point has the base point that it flows to."
            )
        ode = self.ode(**condition)
        terms: Terms = exact_terms
        if self.divergence == "hutchinson":
            probe = signs(
                fresh_seed(draws.seed), Stream.PROBES, (0, 0, 1), tuple(x.shape), dtype=x.dtype, device=x.device
            )
            terms = probed_terms(probe)
        integrated = Accumulating(ode, x.shape[1:], terms)
        # No probe chooses the steps, and no integral that is weighed by 0.
        known = self.divergence == "exact"
        counted = [*[True] * x[0].numel(), known, self.kinetic > 0, known and self.jacobian > 0]
        integrated.error_mask = x.new_tensor(counted)
        start, end = ode.interval
        state = torch.cat([x.flatten(1), x.new_zeros(len(x), 3)], dim=1)
        final = solve(integrated, state, (end, start), **self.solver).final
        latent, (change, energy, size) = final[:, :-3].reshape(x.shape), final[:, -3:].unbind(1)
        # the integrals run from the data to the base, against the clock
        return -(self.base.log_prob(latent) + change) - self.kinetic * energy - self.jacobian * size


def exact_terms(ode: ODE, t: Time, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(v, ∇·v, ‖∇v‖_F²) from the whole Jacobian."""
    velocity, matrix = jacobian(lambda y: ode.velocity(t, y), x)
    return velocity, matrix.diagonal(dim1=1, dim2=2).sum(1), matrix.flatten(1).square().sum(1)


def probed_terms(probe: Tensor) -> Terms:
    """(v, e·(∇v)e, ‖(∇v)ᵀe‖²) for the probe e of each row, from one product with the Jacobian."""

    def terms(ode: ODE, t: Time, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen: list[Tensor] = []

        def projected(y: Tensor) -> Tensor:
            seen[:] = [ode.velocity(t, y)]
            return (seen[0] * probe).flatten(1).sum(1)

        product = gradient(projected, x)[1]
        velocity = seen[0] if product.requires_grad or torch.is_grad_enabled() else seen[0].detach()
        return velocity, (product * probe).flatten(1).sum(1), product.flatten(1).square().sum(1)

    return terms


class Accumulating(ODE, precise_time=True):
    """(x, ∫∇·v, ∫‖v‖², ∫‖∇v‖_F²) as one state ``(B, D + 3)``."""

    plain_name = "the flow with its integrals"

    def __init__(self, ode: ODE, event_shape: torch.Size, terms: Terms) -> None:
        super().__init__(interval=ode.interval)
        self.ode, self.event_shape, self.terms = ode, event_shape, terms

    def velocity(self, t: Time, x: Tensor) -> Tensor:
        velocity, divergence, size = self.terms(self.ode, t, x[:, :-3].reshape(-1, *self.event_shape))
        flat = velocity.flatten(1)
        return torch.cat([flat, torch.stack([divergence, flat.square().sum(1), size], dim=1)], dim=1)


def _weight(name: str, value: float) -> float:
    number = finite_number(name, value)
    if number < 0:
        raise ArgumentError(f"{name}={value!r}: give a weight ≥ 0.")
    return number
