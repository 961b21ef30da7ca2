r"""Learned Doob transforms: a process given what happens at its end, from simulations of it that know nothing of the end.

With :math:`h(t, x) = E[L(X_T) \mid X_t = x]` the process of drift :math:`f + \Sigma\nabla\log h` is the original one, its
paths weighed by L. The loss

.. math:: E\big[e^{n(t, X_t)} - L(X_T)\,n(t, X_t)\big]

over simulated paths is convex in n and least at n = log h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.errors import ArgumentError
from sdeflow.models.model import GenerativeModel
from sdeflow.models.ode import Conditional
from sdeflow.networks import Gradient
from sdeflow.paths import Draws, Purpose
from sdeflow.processes.boundary import state_time
from sdeflow.processes.sde import SDE
from sdeflow.solvers import solve
from sdeflow.types import Field, Time

__all__ = ["DoobTransform"]

NO_FLOW = "a Doob transform is a diffusion without a score, so it has no flow and no likelihood; sample it."


class DoobTransform(GenerativeModel):
    r"""The process given its end, from a network for log h.

    Its base is the law of the starting points, and what ``loss`` is given are starting points too: paths are simulated from
    them, and each is looked at at one random time of the grid. Where L is near 0 on nearly all paths it has
    little to learn from.

    Arguments:
        net: log h(t, x) and the conditions, with shape ``(B,)``; such as ``sf.networks.MLP(2, scalar=True)``.
        process: The SDE, on a forward clock.
        base: The law of the starting points at t0.
        likelihood: L(x) ≥ 0 of the end points, ``(B, *event)`` to ``(B,)``.
        steps: Of the simulation.

    Raises:
        ArgumentError: It is not an SDE that runs forward, or (when called) L has another shape or is negative.

    References:
        Diffusions, Markov Processes and Martingales, vol. 2, IV.39 (Rogers & Williams, 2000)

    Example:
        >>> right = lambda x: (x[:, 0] > 0).to(x)  # Brownian motion that ends on the right
        >>> net, start = sf.networks.MLP(2, scalar=True), sf.paths.LinearPath().base((2,))
        >>> model = sf.models.DoobTransform(net, sf.processes.BrownianMotion(1.0), start, right, steps=20)
        >>> model.loss(torch.randn(64, 2), seed=0).backward()
        >>> model.sample(5, seed=0, solver={"steps": 20}).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        net: Any,
        process: SDE,
        base: Distribution,
        likelihood: Callable[[Tensor], Tensor],
        *,
        steps: int = 100,
    ) -> None:
        if not isinstance(process, SDE) or process.direction < 0:
            raise ArgumentError(
                f"the process is {getattr(process, 'title', type(process).__name__)}; give an sf.SDE that runs forward."
            )
        if not callable(likelihood):
            raise ArgumentError(f"the likelihood is {likelihood!r}; give a function of the end points.")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ArgumentError(f"steps={steps!r} is not a whole number ≥ 1.")
        super().__init__(
            Gradient(net), base, interval=process.interval, schedule="it learns how a process is bent, and no score"
        )
        self.process, self.likelihood, self.steps = process, likelihood, steps

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        if x0 is not None:
            raise ArgumentError("the paths start in x itself, so there is no use for x0.")
        grid = torch.linspace(*self.interval, self.steps + 1, dtype=torch.float64)
        with torch.no_grad():
            paths = solve(self.process, x, grid, steps=grid, seed=draws.seed).x
            u = draws.uniforms(Purpose.CHOICE, (len(x),), x.device)
            node = (u * (self.steps + 1)).long().clamp_max(self.steps)
            state = paths[node, torch.arange(len(x), device=x.device)]
            time = grid.to(x.device)[node].reshape(-1, *[1] * (x.ndim - 1))
            weight = self.likelihood(paths[-1])
            if not isinstance(weight, Tensor) or weight.shape != x.shape[:1] or bool((weight < 0).any()):
                raise ArgumentError(
                    f"the likelihood returned no numbers ≥ 0 of shape ({len(x)},), one for each end point."
                )
        log_h = self.net.energy(state_time(time, x, self.interval), state, **condition)
        loss: Tensor = log_h.exp() - weight.to(x.dtype) * log_h
        return loss

    def grad_log_h(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        """∇log h(t, x), with the shape of x."""
        return self.prediction(t, x, **condition)

    def velocity(self, t: Time, x: Tensor, **condition: Any) -> NoReturn:
        """Refused: the transform is a diffusion whose score is not learned."""
        raise ArgumentError(NO_FLOW)

    def ode(self, **condition: Any) -> NoReturn:
        """Refused, as :meth:`velocity`."""
        raise ArgumentError(NO_FLOW)

    def sde(self, epsilon: Time | Field | None = None, **condition: Any) -> SDE:
        """The process given its end: drift f + Σ∇log h, and its own noise."""
        if epsilon is not None:
            raise ArgumentError("the noise of a Doob transform is that of its process; another ε needs a score.")
        return self.process.condition(Conditional(self, "grad_log_h", condition))

    def carrier(self, **condition: Any) -> SDE:
        """The conditioned process; so ``sample`` wants a step in ``solver``, as in ``{"steps": 100}``."""
        return self.sde(**condition)
