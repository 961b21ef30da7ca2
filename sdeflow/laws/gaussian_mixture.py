"""Gaussian mixtures: laws whose density, score and flow are known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from sdeflow.errors import ArgumentError
from sdeflow.laws.posterior import Components, each_chunk

if TYPE_CHECKING:
    from sdeflow.laws.along import Along
    from sdeflow.processes import Process, Schedule

__all__ = ["GaussianMixture"]


class GaussianMixture(Distribution):
    r"""The law :math:`\sum_k w_k\,\mathcal N(m_k, C_k)`, a ``torch.distributions.Distribution``.

    It computes in float64 whatever it is given, and answers in the dtype of x. Isotropic components cost two matrix
    products (5 ms for 256 points, 1,500 components, 64 dimensions), so that a kernel density over a data set
    (:func:`kernel_density`) can serve as a network; variances along the axes cost 25 times as much.

    Arguments:
        weights: w_k > 0 with shape ``(K,)``; normalised for you.
        means: m_k with shape ``(K, *event)``, any event shape, of D coordinates. Samples have their dtype and device.
        covariances: C_k: ``(K,)``, variances of isotropic components; ``(K, D)`` or ``(K, *event)``, variances along
            the axes; ``(K, D, D)``, full covariance matrices.

    Raises:
        ArgumentError: A shape does not fit, or a weight or covariance is not positive, symmetric and finite.

    Example:
        >>> law = sf.laws.GaussianMixture([1.0, 3.0], [[-2.0, 0.0], [2.0, 0.0]], [0.25, 0.25])
        >>> law.mean
        tensor([1., 0.])
        >>> law.score(torch.tensor([[2.0, 1.0]]))
        tensor([[0., -4.]])
        >>> law.along(sf.processes.VariancePreserving()).log_prob(1.0, torch.zeros(1, 2))  # close to N(0, I)
        tensor([-1.8379])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch declares it so)

    def __init__(self, weights: Any, means: Any, covariances: Any) -> None:
        given = _floating("means", means)
        if given.ndim == 0 or 0 in given.shape:
            raise ArgumentError(
                f"the means have shape {tuple(given.shape)}; give (K, *event), one row for each component, K ≥ 1."
            )
        self.dtype, self.device = given.dtype, given.device
        super().__init__(torch.Size(), given.shape[1:], validate_args=False)
        self.weights = _weights(_floating("weights", weights).to(given.device, torch.float64), len(given))
        self.means = given.to(torch.float64)
        self.covariances = _floating("covariances", covariances).to(given.device, torch.float64)
        eigenvalues, basis = _decompose(self.covariances, self.means)
        means = self.means.reshape(len(given), -1)
        self.components = Components(self.weights.log(), means, eigenvalues, basis)

    def remade(self, fn: Callable[[Tensor], Tensor]) -> GaussianMixture:
        """The same law with a function applied to its means, of which samples have the dtype and device."""
        return GaussianMixture(self.weights, fn(self.means.to(self.dtype)), self.covariances)

    @property
    def support(self) -> constraints.Constraint:
        """All of the space."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """Σ w_k m_k, with the event's shape."""
        return self.components.centre.reshape(self.event_shape).to(self.dtype)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, with the event's shape."""
        parts = self.components
        within = parts.eigenvalues
        if parts.isotropic:
            within = within[:, None]
        elif parts.basis is not None:
            within = torch.einsum("kij,kj->ki", parts.basis.square(), within)
        between = (parts.means - parts.centre).square()
        return (self.weights @ (within + between)).reshape(self.event_shape).to(self.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) for x with shape ``(*sample, *event)``: shape ``(*sample)``, the dtype of x."""
        return self._evaluate(value, "log_prob").reshape(value.shape[: value.ndim - len(self.event_shape)])

    def score(self, value: Tensor) -> Tensor:
        """∇log p(x), with the shape and dtype of x, ``(*sample, *event)``."""
        return self._evaluate(value, "score").reshape(value.shape)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  (torch's signature)
        """Samples with shape ``(*sample_shape, *event)``, from torch's global generator."""
        shape = torch.Size(sample_shape)
        return self.draw_from(None, shape.numel()).reshape(*shape, *self.event_shape)

    def draw(self, n: int, *, seed: int | None = None) -> Tensor:
        """n samples, ``(n, *event)``; with a seed, the global generators are neither read nor changed.

        Example:
            >>> law = sf.laws.GaussianMixture([1.0], [[3.0]], [1e-8])
            >>> law.draw(2, seed=0)
            tensor([[3.0],
                    [3.0]])
        """
        return self.draw_from(None if seed is None else torch.Generator().manual_seed(seed), n)

    def along(self, process: Process | Schedule) -> Along:
        """This law as the data of a Gaussian path: density, score, denoiser, flow and samples at every time.

        Arguments:
            process: A process with a schedule (a diffusion, its reversal, its probability flow), on its own clock;
                or a schedule.

        Raises:
            ArgumentError: The process has no schedule.
        """
        from sdeflow.laws.along import Along

        return Along(self, process)

    def check_state(self, x: Tensor, batch_axes: int | None = None) -> Tensor:
        """x as float64 rows ``(B, D)``, after a look at its shape."""
        split = x.ndim - len(self.event_shape)
        if split < 0 or x.shape[split:] != self.event_shape or batch_axes not in (None, split):
            leading = "*sample" if batch_axes is None else "B"
            raise ArgumentError(
                f"x has shape {tuple(x.shape)}; this law's events have shape {tuple(self.event_shape)}, "
                f"so give ({', '.join([leading, *map(str, self.event_shape)])})."
            )
        if not x.is_floating_point():
            raise ArgumentError(f"x is {x.dtype}; give a floating-point tensor, for example x.float().")
        return x.to(torch.float64).reshape(-1, self.components.means.shape[1])

    def _evaluate(self, x: Tensor, quantity: str) -> Tensor:
        rows = self.check_state(x)
        times = (rows.new_ones(()), rows.new_zeros(()))
        return each_chunk(self.components, rows, times, lambda p: getattr(p, quantity)()).to(x.dtype)

    def draw_from(self, generator: torch.Generator | None, n: int) -> Tensor:
        """n samples, ``(n, *event)``, from a CPU generator (the same numbers on every device) or the global one."""
        parts = self.components
        device = self.device if generator is None else torch.device("cpu")
        weights = self.weights.detach().to(device)
        with torch.no_grad():
            uniform = torch.rand(n, dtype=torch.float64, device=device, generator=generator)
            which = torch.searchsorted(weights.cumsum(0)[:-1], uniform, right=True)
            shape = (n, parts.means.shape[1])
            normal = torch.randn(shape, dtype=torch.float64, device=device, generator=generator)
            which, normal = which.to(self.device), normal.to(self.device)
            deviation = parts.eigenvalues.sqrt()
            normal = normal * (deviation[which, None] if parts.isotropic else deviation[which])
            if parts.basis is not None:
                for k in which.unique().tolist():
                    rows = which == k
                    normal[rows] = normal[rows] @ parts.basis[k].mT
            return (parts.means[which] + normal).reshape(n, *self.event_shape).to(self.dtype)

    def __repr__(self) -> str:
        shape = tuple(self.event_shape)
        kind = {1: "isotropic", 2: "diagonal"}[self.components.eigenvalues.ndim]
        if self.components.basis is not None:
            kind = "full"
        return f"GaussianMixture({len(self.weights)} {kind} components, event_shape={shape})"


def _floating(name: str, value: Any) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"the {name} are {value!r}; give a tensor, or numbers that make one.") from None
    if tensor.dtype not in (torch.float32, torch.float64):
        if tensor.is_floating_point() or tensor.is_complex():
            raise ArgumentError(f"the {name} are {tensor.dtype}; give float32 or float64.")
        tensor = tensor.to(torch.get_default_dtype())
    if not bool(tensor.isfinite().all()):
        raise ArgumentError(f"the {name} are not all finite; look for NaN and infinity where they are made.")
    return tensor


def _weights(weights: Tensor, count: int) -> Tensor:
    if weights.shape != (count,):
        raise ArgumentError(
            f"the weights have shape {tuple(weights.shape)} for {count} means; give one for each, ({count},)."
        )
    if not bool((weights > 0).all()):
        raise ArgumentError(
            f"the smallest weight is {weights.min().item():g}; give positive ones, and leave out components "
            f"that have weight 0."
        )
    return weights / weights.sum()


def _decompose(covariances: Tensor, means: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues ``(K,)`` or ``(K, D)``, and eigenvectors where they are not the axes."""
    count, event = len(means), means.shape[1:]
    size = math.prod(event)
    if covariances.shape in {(count,), (count, size), means.shape}:
        if not bool((covariances > 0).all()):
            raise ArgumentError(
                f"the smallest variance is {covariances.min().item():g}; variances are positive. "
                f"For a point mass give a small one, such as 1e-6."
            )
        return (covariances if covariances.ndim == 1 else covariances.reshape(count, size)), None
    if covariances.shape != (count, size, size):
        raise ArgumentError(
            f"the covariances have shape {tuple(covariances.shape)} for means of shape {tuple(means.shape)}; give "
            f"({count},) for isotropic variances, ({count}, {size}) for variances along the axes, "
            f"or ({count}, {size}, {size}) for matrices."
        )
    asymmetry = (covariances - covariances.mT).abs().amax((1, 2))
    scale = covariances.abs().amax((1, 2))
    if bool((asymmetry > 1e-5 * scale).any()):
        k = int((asymmetry / scale).argmax())
        raise ArgumentError(
            f"covariance {k} differs from its transpose by {asymmetry[k].item():g}; give symmetric matrices, "
            f"for example (C + Cᵀ)/2."
        )
    eigenvalues, basis = torch.linalg.eigh((covariances + covariances.mT) / 2)
    least = eigenvalues.min(1).values
    if bool((least <= size * torch.finfo(torch.float64).eps * scale).any()):
        k = int((least / scale).argmin())
        raise ArgumentError(
            f"covariance {k} has the eigenvalue {least[k].item():g}; give positive definite matrices. "
            f"For a law on a subspace add a small multiple of the identity."
        )
    return eigenvalues, basis
