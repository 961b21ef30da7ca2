"""Pinned SDEs on which orders show themselves sharply: one for each class of noise, in either calculus.

Coefficients depend on time and are not linear; the noise is strong, so that its errors, not the drift's, are what is seen.
"""

import torch
from given_noise import given_cells

import sdeflow as sf

D = torch.float64
M = torch.tensor([[0.2, 0.5], [-0.4, 0.3]], dtype=D)
EYE = torch.eye(2, dtype=D)
B = torch.stack([0.4 * EYE + 0.5 * M, 0.3 * M @ M - 0.2 * EYE])  # they commute


def drift(t, x):
    return torch.sin(2 * x) + 0.5 * torch.cos(t) - 0.5 * x.flip(1)


def additive(t, x):
    return 0.9 * torch.sqrt(1 + t)


def elementwise(t, x):
    return (0.8 + 0.2 * t) * (1 + 0.6 * torch.sin(2 * x))


def commuting(t, x):
    return 0.8 * (1 + 0.3 * torch.sin(3 * t))[..., None] * torch.einsum("kij,bj->bik", B, x)


def general(t, x):
    a, b = x.unbind(1)
    rows = [[0.8 + 0 * a, 0.8 * torch.sin(2 * b + t.flatten())], [0.8 * torch.cos(2 * a), 0.8 * a]]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


DIFFUSIONS = {
    "additive": (additive, "diagonal"),
    "diagonal": (elementwise, "diagonal"),
    "scalar": (elementwise, "scalar"),
    "commutative": (commuting, "general"),
    "general": (general, "general"),
}


def sharp(kind, calculus):
    """The pinned problem of a class of noise."""
    diffusion, noise = DIFFUSIONS[kind]
    return sf.SDE(
        drift,
        diffusion,
        noise=noise,
        additive=kind == "additive",
        commutative=kind == "commutative",
        calculus=calculus,
    )


def start(rows):
    return torch.tensor([[0.8, 0.5]], dtype=D).repeat(rows, 1)


def noise_for(kind, rows, t1, cells, seed=1):
    return given_cells((rows, 1 if kind == "scalar" else 2), t1, cells, seed)


def claims(kinds=DIFFUSIONS, engines=("native", "torchsde")):
    """Every (method, class, calculus) that a method claims a strong order for, native or torchsde's.

    Additive noise is the same in either calculus. Methods for semi-linear processes, which need a schedule, are not for these
    problems.
    """
    return [
        (method, kind, calculus)
        for method in sf.methods()
        if method.engine in engines and "schedule" not in method.needs
        for kind in kinds
        if kind in method.strong_order
        for calculus in ("ito", "stratonovich")
        if (calculus == "ito" if kind == "additive" else method.calculus in ("any", calculus))
    ]
