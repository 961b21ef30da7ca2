r"""What a diffusion σ does, for each of its three shapes.

============  =======================  =====================  =============================================
noise         diffusion                Brownian motion        the matrix σ of one row
============  =======================  =====================  =============================================
``diagonal``  broadcasts to x          the shape of x         diag(g)
``scalar``    broadcasts to x          ``(B, 1, …, 1)``       g, one column
``general``   ``(B, D, M)``            ``(B, M)``             as given; the state is ``(B, D)``
============  =======================  =====================  =============================================

With the columns σ_k, two vector fields describe a noise that depends on the state:

.. math:: c = \sum_k (\partial\sigma_k)\,\sigma_k, \qquad d = \sum_k \sigma_k\,(\nabla\cdot\sigma_k).

The Itô–Stratonovich correction is c/2, and the divergence of Σ = σσᵀ, which every reversal needs, is c + d.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdeflow.calculus.derivatives import diagonal, jacobian

__all__ = ["NOISES", "apply_covariance", "apply_diffusion", "covariance", "noise_terms"]

NOISES = ("diagonal", "scalar", "general")


def apply_diffusion(noise: str, g: Tensor, increment: Tensor) -> Tensor:
    """σ ΔW, broadcasting to the state.

    Example:
        >>> apply_diffusion("diagonal", torch.tensor(2.0), torch.tensor([[1.0, -1.0]]))
        tensor([[ 2., -2.]])
    """
    return torch.einsum("bdm,bm->bd", g, increment) if noise == "general" else g * increment


def apply_covariance(noise: str, g: Tensor, v: Tensor) -> Tensor:
    """Σ v = σσᵀ v, with the shape of v.

    Example:
        >>> apply_covariance("scalar", torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([[3., 6.]])
    """
    if noise == "diagonal":
        return g * g * v
    if noise == "scalar":
        g = g.expand_as(v)
        return g * (g * v).flatten(1).sum(1).reshape(-1, *[1] * (v.ndim - 1))
    return torch.einsum("bdm,bem,be->bd", g, g, v)


def covariance(noise: str, g: Tensor, x: Tensor) -> Tensor:
    """Σ itself with shape ``(B, D, D)``, D the number of coordinates of x.

    Example:
        >>> covariance("diagonal", torch.tensor(2.0), torch.zeros(1, 2))
        tensor([[[4., 0.],
                 [0., 4.]]])
    """
    if noise == "general":
        return g @ g.mT
    flat = g.expand_as(x).flatten(1)
    return torch.diag_embed(flat * flat) if noise == "diagonal" else flat[:, :, None] * flat[:, None, :]


def noise_terms(noise: str, diffusion: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The fields c = Σ_k (∂σ_k)σ_k and d = Σ_k σ_k(∇·σ_k) of the module's docstring, exactly, with the shape of x.

    Example:
        >>> c, d = noise_terms("diagonal", lambda x: 3 * x, torch.tensor([[1.0, 2.0]]))
        >>> c + d  # the divergence of Σ = 9x²
        tensor([[18., 36.]])
    """
    if noise == "diagonal":  # (∂σ_k)σ_k = σ_k(∇·σ_k) = g_k ∂_k g_k along the k-th axis
        g, slope = diagonal(lambda y: diffusion(y).expand_as(y), x)
        return g * slope, g * slope
    g, J = jacobian((lambda y: diffusion(y).expand_as(y)) if noise == "scalar" else diffusion, x)
    size = x[0].numel()
    columns = g.reshape(len(x), size, -1)  # (B, D, M)
    J = J.reshape(len(x), size, columns.shape[2], size)  # ∂_j σ_ik at [b, i, k, j]
    c = torch.einsum("bikj,bjk->bi", J, columns)
    d = torch.einsum("bik,bjkj->bi", columns, J)
    return c.reshape(x.shape), d.reshape(x.shape)
