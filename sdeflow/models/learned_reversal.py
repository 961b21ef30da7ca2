r"""The reversal of any SDE, learned from its simulated paths: no transition law in closed form is needed.

With t decreasing, its drift is :math:`f^- = f - c` with :math:`c = \nabla\cdot\Sigma + \Sigma\nabla\log p_t`, and

.. math:: f^-(t_{k+1}, y) = E\Big[\frac{X_{k+1} - X_k}{\delta} \,\Big|\, X_{k+1} = y\Big] + O(\delta),

so c is what regression on the path's own increments finds, state-dependent noise included. The probability flow is f − ½c.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.errors import ArgumentError
from sdeflow.models.model import GenerativeModel
from sdeflow.models.ode import Conditional
from sdeflow.paths import Draws, Purpose
from sdeflow.processes.boundary import UserField
from sdeflow.processes.derived import DerivedSDE
from sdeflow.processes.nelson import nelson_score
from sdeflow.processes.sde import SDE
from sdeflow.solvers import solve
from sdeflow.types import Field, Time

__all__ = ["LearnedReversal"]


class LearnedReversal(GenerativeModel):
    r"""The reversal and the probability flow of a user's SDE, from a network c(t, x) fitted to simulated paths.

    Every row of a batch is a starting point; its path is simulated and looked at in one random cell of the grid. The loss is

    .. math:: \delta\,\Big\|f(t_{k+1}, X_{k+1}) - \frac{X_{k+1} - X_k}{\delta} - c_\theta(t_{k+1}, X_{k+1})\Big\|^2 ,

    whose minimum is off by O(δ). Data at t0 and the base at t1; the processes of the model run with t decreasing.

    Arguments:
        net: c(t, x) and the conditions, with the shape of x; 0 at first would make the reversal the process itself.
        process: The SDE, on a forward clock; a Stratonovich one is taken in its Itô form.
        base: The law at t1, which sampling starts from.
        steps: Of the simulation.

    Raises:
        ArgumentError: It is not an SDE that runs forward, or steps is not a whole number ≥ 2.

    References:
        Reverse-time diffusion equation models (Anderson, 1982), https://doi.org/10.1016/0304-4149(82)90051-5;
        Diffusion Schrödinger Bridge with Applications to Score-Based Generative Modeling (De Bortoli et al., 2021),
        https://arxiv.org/abs/2106.01357

    Example:
        >>> sde = sf.SDE(lambda t, x: -x, lambda t, x: 0.5 + 0.2 * x.cos())
        >>> model = sf.models.LearnedReversal(sf.networks.MLP(2), sde, sf.paths.LinearPath().base((2,)), steps=20)
        >>> model.loss(sf.data.moons(64, seed=0), seed=0).backward()
        >>> model.sample(5, seed=0, process=model.sde(), solver={"steps": 20}).shape
        torch.Size([5, 2])
    """

    def __init__(self, net: Any, process: SDE, base: Distribution, *, steps: int = 100) -> None:
        if not isinstance(process, SDE) or process.direction < 0:
            raise ArgumentError(
                f"the process is {getattr(process, 'title', type(process).__name__)}; give an sf.SDE that runs forward, "
                f"from the data at t0 to the base at t1."
            )
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
            raise ArgumentError(f"steps={steps!r} is not a whole number ≥ 2.")
        super().__init__(
            net, base, data_at="start", interval=process.interval, schedule="its score is found by Nelson's relation"
        )
        self.process, self.steps = process.to_ito(), steps

    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        if x0 is not None:
            raise ArgumentError("the paths start in the data and end where they end, so there is no use for x0.")
        start, end = self.interval
        step = (end - start) / self.steps
        grid = torch.linspace(start, end, self.steps + 1, dtype=torch.float64)
        with torch.no_grad():
            paths = solve(self.process, x, grid, steps=grid, seed=draws.seed, method="euler-maruyama").x
            u = draws.uniforms(Purpose.CHOICE, (len(x),), x.device)
            cell = (u * self.steps).long().clamp_max(self.steps - 1)
            row = torch.arange(len(x), device=x.device)
            before, after = paths[cell, row], paths[cell + 1, row]
            time = grid.to(x.device)[cell + 1].reshape(-1, *[1] * (x.ndim - 1))
            target = self.process.drift(time, after) - (after - before) / step
        return step * (self.prediction(time, after, **condition) - target).flatten(1).square().sum(1)

    def velocity(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        return self.process.drift(t, x) - 0.5 * self.prediction(t, x, **condition)

    def score(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        """∇log p_t(x) = Σ⁻¹(c − ∇·Σ).

        Raises:
            ArgumentError: Σ is singular there.
        """
        return nelson_score(self.process, self.sde(**condition))(t, x)

    def interval_of(self, *wanted: str) -> tuple[float, float]:
        return self.interval

    def sde(self, epsilon: Time | Field | None = None, **condition: Any) -> SDE:
        """The reversal, in Itô form and with t decreasing; with an ε the SDE of equal marginals that has noise √(2ε)."""
        if epsilon is not None:
            return super().sde(epsilon, **condition)
        return Reversal(self.process, Conditional(self, "prediction", condition))


class Reversal(DerivedSDE, precise_time=True):
    """Drift f − c with the noise of the original, on its time axis, the other way."""

    plain_name = "the learned reversal"

    def __init__(self, original: SDE, difference: Field) -> None:
        super().__init__(original)
        self.direction = -original.direction
        self.schedule = self.score = None
        self.difference = UserField(difference, "network", original.interval)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        difference: Tensor = self.difference(t, x)
        return self.original.drift(t, x) - difference
