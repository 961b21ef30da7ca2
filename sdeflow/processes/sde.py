"""SDEs: dx = f(t, x) dt + σ(t, x) dW."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.calculus import NOISES, apply_covariance, noise_terms
from sdeflow.errors import ArgumentError, choose
from sdeflow.processes.process import Process
from sdeflow.types import Field, Time

if TYPE_CHECKING:
    from sdeflow.processes.conditioning import Conditioned
    from sdeflow.processes.marginal_preserving import MarginalPreserving
    from sdeflow.processes.probability_flow import ProbabilityFlow

__all__ = ["SDE"]

CALCULI = ("ito", "stratonovich")


class SDE(Process):
    r"""A stochastic differential equation :math:`dx = f(t, x)\,dt + \sigma(t, x)\,dW`.

    Give the coefficients, or subclass and override :meth:`drift` and :meth:`diffusion`. A subclass with a linear drift
    A(t) x + b(t) may also have a method ``drift_resolvent(t, h, v)`` that returns (I − h A(t))⁻¹ v, with the shape of v:
    implicit methods then take one linear solve a step, and no derivatives.

    Arguments:
        drift: f(t, x), with the shape of x.
        diffusion: σ(t, x): broadcasting to x for ``"diagonal"`` and ``"scalar"`` noise, ``(B, D, M)`` for ``"general"``.
        noise: ``"diagonal"`` (one Brownian motion per coordinate), ``"scalar"`` (one per sample) or ``"general"``.
        additive: Whether the diffusion is independent of x. Say so where it holds: methods of higher order follow, and ∇·Σ
            costs nothing. It is a promise, which ``solve`` spot-checks.
        commutative: Whether the columns of general noise commute, (∂σ_k)σ_l = (∂σ_l)σ_k. Methods of strong order 1 and above
            need it, since for other noise that takes Lévy areas. It is a promise too. Scalar noise always commutes, and
            diagonal noise does where coordinate i of the diffusion depends on coordinate i only.
        calculus: ``"ito"`` or ``"stratonovich"``.
        interval: (t0, t1), in the units of t.

    Raises:
        ArgumentError: A word is unknown, a coefficient is not a function, or the interval is empty.

    Example:
        >>> sde = sf.SDE(lambda t, x: -x, lambda t, x: 0.3 * x)
        >>> sol = sf.solve(sde, torch.ones(4, 2), steps=100, seed=0)
        >>> sol.final.shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        drift: Field | None = None,
        diffusion: Field | None = None,
        *,
        noise: str = "diagonal",
        additive: bool = False,
        commutative: bool = False,
        calculus: str = "ito",
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(interval)
        self.noise = choose("noise", noise, NOISES)
        self.calculus = choose("calculus", calculus, CALCULI)
        for name, flag in (("additive", additive), ("commutative", commutative)):
            if not isinstance(flag, bool):
                raise ArgumentError(f"{name}={flag!r} is neither True nor False.")
        if commutative and noise != "general":
            raise ArgumentError(f"commutative=True is for noise='general', and this is noise={noise!r}; drop it.")
        self.additive = additive
        self.commutative = commutative
        for name, value in (("drift", drift), ("diffusion", diffusion)):
            if value is not None and not callable(value):
                raise ArgumentError(
                    f"the {name} is {value!r}; give a function of (t, x), such as lambda t, x: {value}."
                )
        self.drift_function = drift
        self.diffusion_function = diffusion

    def drift(self, t: Time, x: Tensor) -> Tensor:
        """f(t, x), with the shape of x, in this process's calculus."""
        if self.drift_function is None:
            return super().drift(t, x)
        return self.drift_function(t, x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        """σ(t, x), broadcasting to x, or ``(B, D, M)`` for general noise."""
        if self.diffusion_function is None:
            raise ArgumentError(f"{self.title} has no diffusion: give it one, or override the method.")
        return self.diffusion_function(t, x)

    def diffusion_divergence(self, t: Time, x: Tensor) -> Tensor:
        r"""∇·Σ, the vector Σ_j ∂_j(σσᵀ)_ij, with the shape of x: exact, by automatic differentiation.

        Override it where a closed form is known. A diffusion that does not depend on x costs nothing.
        """
        if self.additive:
            return torch.zeros_like(x)
        c, d = noise_terms(self.noise, lambda y: self.diffusion(t, y), x)
        return c + d

    def ito_correction(self, t: Time, x: Tensor) -> Tensor:
        """Σ_k (∂σ_k)σ_k, with the shape of x: on a forward clock the Stratonovich drift is the Itô drift minus half of it."""
        if self.additive:
            return torch.zeros_like(x)
        if self.noise == "diagonal":  # ∇·Σ = 2 g∂g there, and a process may know it in closed form
            return self.diffusion_divergence(t, x) / 2
        return noise_terms(self.noise, lambda y: self.diffusion(t, y), x)[0]

    def covariance_times(self, t: Time, x: Tensor, v: Tensor) -> Tensor:
        """Σ(t, x) v, with the shape of x."""
        return apply_covariance(self.noise, self.diffusion(t, x), v)

    def marginal(self, x0: Tensor, t: Time, s: Time | None = None) -> Distribution:
        """p(x_t | x_s = x0) as a ``torch.distributions.Distribution``, s = t0 by default.

        Raises:
            ArgumentError: This process has no transition law in closed form, or t ≤ s.
        """
        raise ArgumentError(f"{self.title} has no transition law in closed form; simulate it with solve().")

    def prior(self, event_shape: tuple[int, ...] | torch.Size) -> Distribution:
        """The law at the noise end, for events of the given shape.

        Raises:
            ArgumentError: This process has none.
        """
        raise ArgumentError(f"{self.title} has no prior in closed form.")

    def to_ito(self) -> SDE:
        """The same process written in Itô form; itself where it already is.

        On the forward clock the Itô drift is the Stratonovich drift + ½ Σ_k (∂σ_k)σ_k; on the backward clock the sign turns.
        """
        from sdeflow.processes.stratonovich import InCalculus

        return self if self.calculus == "ito" else InCalculus(self, "ito")

    def to_stratonovich(self) -> SDE:
        """The same process written in Stratonovich form; itself where it already is.

        Example:
            >>> gbm = sf.processes.GeometricBrownianMotion(0.3, 0.6)
            >>> gbm.to_stratonovich().drift(0.0, torch.ones(1, 1))  # .3 − .6²/2
            tensor([[0.1200]])
        """
        from sdeflow.processes.stratonovich import InCalculus

        return self if self.calculus == "stratonovich" else InCalculus(self, "stratonovich")

    def reverse(self, score: Field, clock: Literal["flipped", "backward"] = "flipped") -> SDE:
        r"""The process whose paths are this one's, run the other way (Nelson's relation).

        On the backward clock (t decreasing) its drift is :math:`f - \nabla\cdot\Sigma - \Sigma\nabla\log p_t`; the flipped
        clock is the same process on s = t0 + t1 − t, an ordinary SDE that runs forward. Started from the law at
        the end, it has the path law of the original: E[x_s xᵀ_t] included, at the same original times. Reversing a reversal,
        each with the score on its own clock, gives the drift back.

        Arguments:
            score: ∇log p_t(x), a function of (t, x) on *this* process's clock.
            clock: ``"flipped"`` keeps the direction and turns the axis; ``"backward"`` keeps the axis and turns the direction.

        References:
            Reverse-time diffusion equation models (Anderson, 1982), https://doi.org/10.1016/0304-4149(82)90051-5;
            Dynamical Theories of Brownian Motion (Nelson, 1967)

        Example:
            >>> sde = sf.processes.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
            >>> rev = sde.reverse(lambda t, x: -2 * x)  # the stationary law N(0, 1/2)
            >>> rev.drift(0.0, torch.ones(1, 1))
            tensor([[-1.]])
        """
        from sdeflow.processes.reversal import reverse

        return reverse(self, score, clock)

    def probability_flow(self, score: Field) -> ProbabilityFlow:
        r"""The ODE with the same marginals: :math:`v = f - \tfrac12\nabla\cdot\Sigma - \tfrac12\Sigma\nabla\log p_t`.

        Arguments:
            score: ∇log p_t on this process's clock.

        References:
            Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021),
            https://arxiv.org/abs/2011.13456
        """
        from sdeflow.processes.probability_flow import ProbabilityFlow

        return ProbabilityFlow(self, score)

    def marginal_preserving(self, score: Field, epsilon: Time | Field) -> MarginalPreserving:
        r"""The SDE with this one's marginals and noise √(2ε): drift :math:`v + \varepsilon\nabla\log p_t`.

        v is the velocity of the probability flow.

        Arguments:
            score: ∇log p_t on this process's clock.
            epsilon: A number ≥ 0, or a function of t; 0 is the probability flow.
        """
        from sdeflow.processes.marginal_preserving import MarginalPreserving

        return MarginalPreserving(self, score, epsilon)

    def condition(self, grad_log_h: Field) -> Conditioned:
        r"""Doob's h-transform: drift :math:`f + \Sigma\nabla\log h`, the process given that it ends as h says.

        h(t, x) = E[L(X_T) | X_t = x] for a likelihood L of the end point. For a reversed process, h = p_t(y | x) is guidance.

        Arguments:
            grad_log_h: ∇log h(t, x) on this process's clock.

        References:
            Diffusions, Markov Processes and Martingales, vol. 2, IV.39 (Rogers & Williams, 2000)

        Example:
            >>> brownian = sf.processes.BrownianMotion(1.0)
            >>> bridge = brownian.condition(lambda t, x: (2.0 - x) / (1 - t))  # ends at 2
            >>> bridge.drift(0.5, torch.ones(1, 1))
            tensor([[2.]])
        """
        from sdeflow.processes.conditioning import Conditioned

        return Conditioned(self, grad_log_h)
