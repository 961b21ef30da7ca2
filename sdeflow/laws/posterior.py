r"""A Gaussian mixture seen through x_t = a x_data + s x_noise: where a state came from, and all that follows.

Given component k, x_t ~ N(a m_k, V_k) with V_k = a²C_k + s²I. Let r_k(x) be the probability that x came from it.
The score, the denoiser and the velocity of the probability flow are one formula with different coefficients,

.. math:: F(x) = \sum_k r_k(x)\,F_k(x), \qquad F_k(x) = \alpha\,m_k + G_k\,(x - a\,m_k),

===================  ======  =========================
F                    α       G_k
===================  ======  =========================
score                0       −V_k⁻¹
E[x_data | x_t]      1       a C_k V_k⁻¹
velocity dx/dt       ȧ       ½ V̇_k V_k⁻¹
===================  ======  =========================

and since ∇r_k = r_k (u_k − ū), with u_k = −V_k⁻¹(x − a m_k) and ū the score, the divergence is

.. math:: \nabla\cdot F = \sum_k r_k\,(\operatorname{tr} G_k + u_k\cdot F_k) - \bar u\cdot F.

Nothing is divided by a or s, so all of it is finite at both ends. C_k = U_k diag(λ_k) U_kᵀ is decomposed once; then
V_k⁻¹ and G_k are functions of λ_k. Everything here is float64; states are flat, ``(B, D)``, and times are 0-d or
``(B, 1)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Components", "FactoredPosterior", "IsotropicPosterior", "Posterior", "each_chunk"]

CHUNK_ELEMENTS = 2**20  # entries of one temporary, 8 MB; with 32 MB the diagonal case took three times as long


class Components:
    """The parts of a mixture, in float64, with what every evaluation needs of them made beforehand.

    Arguments:
        log_weights: ``(K,)``, normalised.
        means: ``(K, D)``.
        eigenvalues: Of the covariances: ``(K,)`` where they are isotropic, else ``(K, D)``.
        basis: Their eigenvectors as columns, ``(K, D, D)``; None where they are the axes.

    Attributes:
        centre: The mean; squared distances are expanded about it, where they lose the fewest digits.
        augmented: Rows (m, |m|², 1) of the centred means, ``(K, D + 2)``: distances become one matrix product.
        turned_means: U_kᵀ m_k, ``(K, D)``.
        to_axes: x ↦ U_kᵀ x for all k as one matrix, ``(D, K·D)``.
    """

    def __init__(self, log_weights: Tensor, means: Tensor, eigenvalues: Tensor, basis: Tensor | None = None) -> None:
        self.log_weights, self.means, self.eigenvalues, self.basis = log_weights, means, eigenvalues, basis
        self.isotropic = eigenvalues.ndim == 1
        self.centre = log_weights.exp() @ means
        self.turned_means = means
        if self.isotropic:
            m = means - self.centre
            self.augmented = torch.cat([m, m.square().sum(1, keepdim=True), torch.ones_like(m[:, :1])], 1)
        elif basis is not None:
            self.turned_means = torch.einsum("kij,ki->kj", basis, means)
            self.to_axes = basis.permute(1, 0, 2).flatten(1)

    def seen_from(self, x: Tensor, a: Tensor, variance: Tensor) -> Posterior:
        """The components at the time with coefficients a and s², given the states x."""
        return (IsotropicPosterior if self.isotropic else FactoredPosterior)(self, x, a, variance)


class Posterior(ABC):
    """What states x with shape ``(B, D)`` say about the component and the data they came from.

    Attributes:
        logits: log w_k + log N(x; a m_k, V_k), ``(B, K)``.
        eigenvalues: λ_k, ``(K,)`` or ``(K, D)``.
        variances: Eigenvalues of V_k: as λ_k, with a batch axis before it where times are one per row.
    """

    def __init__(self, components: Components, x: Tensor, a: Tensor, variance: Tensor) -> None:
        self.components = components
        self.eigenvalues = components.eigenvalues
        self.x = x
        self.a = a
        self.variances = self._lift(a).square() * self.eigenvalues + self._lift(variance)
        self.logits = self._logits()

    @abstractmethod
    def _lift(self, time: Tensor) -> Tensor:
        """A coefficient, 0-d or ``(B, 1)``, in a form that broadcasts against the eigenvalues."""

    @abstractmethod
    def _logits(self) -> Tensor: ...

    @abstractmethod
    def _blend(self, alpha: Tensor | float, gamma: Tensor) -> Tensor:
        """F = Σ r_k (α m_k + G_k(x − a m_k)), γ the eigenvalues of G_k."""

    @abstractmethod
    def _divergence(self, alpha: Tensor | float, gamma: Tensor) -> Tensor:
        """∇·F, ``(B,)``."""

    @cached_property
    def responsibilities(self) -> Tensor:
        return self.logits.softmax(1)

    def log_prob(self) -> Tensor:
        return self.logits.logsumexp(1)

    def score(self) -> Tensor:
        return self._blend(0.0, -self.variances.reciprocal())

    def denoiser(self) -> Tensor:
        return self._blend(1.0, self._lift(self.a) * self.eigenvalues / self.variances)

    def velocity(self, a_dot: Tensor, variance_dot: Tensor) -> Tensor:
        return self._blend(a_dot, self._rate(a_dot, variance_dot))

    def divergence(self, a_dot: Tensor, variance_dot: Tensor) -> Tensor:
        return self._divergence(a_dot, self._rate(a_dot, variance_dot))

    def velocity_and_divergence(self, a_dot: Tensor, variance_dot: Tensor) -> Tensor:
        """The velocity, and the divergence as one column more."""
        columns = self.velocity(a_dot, variance_dot), self.divergence(a_dot, variance_dot)[:, None]
        return torch.cat(columns, 1)

    def _rate(self, a_dot: Tensor, variance_dot: Tensor) -> Tensor:
        """½ V̇_k V_k⁻¹."""
        slope = self._lift(self.a * a_dot) * self.eigenvalues + 0.5 * self._lift(variance_dot)
        return slope / self.variances


class IsotropicPosterior(Posterior):
    """C_k = λ_k I: each quantity costs one matrix product of ``(B, D)`` with ``(D, K)`` and one back."""

    def _lift(self, time: Tensor) -> Tensor:
        return time

    def _logits(self) -> Tensor:
        self.centred = self.x - self.a * self.components.centre
        column = self.centred.new_ones(len(self.x), 1)
        distance = self.centred.square().sum(1, keepdim=True)
        features = torch.cat([self.a * self.centred, -0.5 * self.a.square() * column, -0.5 * distance], 1)
        self.half_squares = features @ self.components.augmented.mT  # −½|x − a m_k|²
        size = self.x.shape[1]
        offset = self.components.log_weights - 0.5 * size * (2 * math.pi * self.variances).log()
        return torch.addcdiv(offset, self.half_squares, self.variances)

    def _mean_of(self, value: Tensor) -> Tensor:
        """Σ r_k value_k, ``(B, 1)``."""
        r = self.responsibilities
        return (r @ value if value.ndim == 1 else (r * value).sum(1))[:, None]

    def _blend(self, alpha: Tensor | float, gamma: Tensor) -> Tensor:
        return self._about_centre(alpha, gamma) + alpha * self.components.centre

    def _about_centre(self, alpha: Tensor | float, gamma: Tensor) -> Tensor:
        m = self.components.augmented[:, :-2]
        return (self.responsibilities * (alpha - self.a * gamma)) @ m + self._mean_of(gamma) * self.centred

    def _divergence(self, alpha: Tensor | float, gamma: Tensor) -> Tensor:
        # u_k·F_k = −(α (y − a m)·m + γ |y − a m|²)/V_k about the centre, whose own part drops out: Σ r_k (u_k − ū) = 0
        along = torch.cat([self.centred, -self.a * torch.ones_like(self.centred[:, :1])], 1)
        inner = alpha * (along @ self.components.augmented[:, :-1].mT) - 2 * gamma * self.half_squares
        own = self.x.shape[1] * gamma - inner / self.variances
        score, field = self._about_centre(0.0, -self.variances.reciprocal()), self._about_centre(alpha, gamma)
        return (self.responsibilities * own).sum(1) - (score * field).sum(1)


class FactoredPosterior(Posterior):
    """Any covariance, along its own axes: z_k = U_kᵀ(x − a m_k) with shape ``(B, K, D)``."""

    def _lift(self, time: Tensor) -> Tensor:
        return time[..., None] if time.ndim else time

    def _logits(self) -> Tensor:
        parts = self.components
        count, size = parts.means.shape
        turned = self.x[:, None] if parts.basis is None else (self.x @ parts.to_axes).reshape(-1, count, size)
        self.z = turned - self._lift(self.a) * parts.turned_means
        logarithms = (2 * math.pi * self.variances).log().sum(-1)
        return parts.log_weights - 0.5 * (logarithms + (self.z.square() / self.variances).sum(-1))

    def _blend(self, alpha: Tensor | float, gamma: Tensor) -> Tensor:
        r, parts = self.responsibilities, self.components
        turned = r[:, :, None] * (gamma * self.z)
        spread = turned.sum(1) if parts.basis is None else turned.flatten(1) @ parts.to_axes.mT
        return spread + alpha * (r @ parts.means)

    def _divergence(self, alpha: Tensor | float, gamma: Tensor) -> Tensor:
        lifted = self._lift(alpha) if isinstance(alpha, Tensor) else alpha
        own = lifted * self.components.turned_means + gamma * self.z  # U_kᵀ F_k
        inner = gamma.sum(-1) - (self.z / self.variances * own).sum(-1)
        return (self.responsibilities * inner).sum(1) - (self.score() * self._blend(alpha, gamma)).sum(1)


def each_chunk(components: Components, x: Tensor, times: tuple[Tensor, ...], quantity: Callable[..., Tensor]) -> Tensor:
    """``quantity(posterior, *rest)`` for all rows, with memory that does not grow with their number.

    Arguments:
        components: The mixture.
        x: States, ``(B, D)``.
        times: a, s², and what else ``quantity`` takes: each 0-d or ``(B, 1)``.
        quantity: From a posterior to a tensor with one row per state.
    """
    rows = max(1, CHUNK_ELEMENTS // components.eigenvalues.numel())
    parts = []
    for start in range(0, max(1, len(x)), rows):
        a, variance, *rest = (v[start : start + rows] if v.ndim else v for v in times)
        parts.append(quantity(components.seen_from(x[start : start + rows], a, variance), *rest))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
