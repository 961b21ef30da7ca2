"""Random linear SDEs dx = A x dt + Σ_k σ_k(x) dW_k for property tests, with random stable A and σ_k(x) = B_k x + c_k."""

import torch
from hypothesis import strategies as st

import sdeflow as sf

NOISES = ("diagonal", "scalar", "general")
CLOCKS = ("flipped", "backward")
INTERVAL = (-0.3, 1.1)
seeds, dimensions = st.integers(0, 2**31), st.integers(1, 4)


class Drawn:
    """A random SDE, a score, and a few states. B_k = 0 where the noise is additive; M is 1 to 4 where it is general."""

    def __init__(self, seed, size, noise, additive, columns=None, calculus="ito", interval=INTERVAL):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        factor, turn = normal(size, size), normal(size, size)
        A = turn - turn.mT - factor @ factor.mT / size - 0.1 * torch.eye(size, dtype=torch.float64)  # stable
        columns = columns or 1 + seed % 4
        count = columns if noise == "general" else 1
        B, c = 0.2 * normal(count, size, size), 0.3 * normal(count, size)
        B.diagonal(dim1=1, dim2=2).fill_(0.3)  # so that the dependence on the state is never negligible
        B = B * (not additive)
        if noise == "general" and columns == size:
            c = c + 2 * torch.eye(size, dtype=torch.float64)  # far from singular
        if noise == "diagonal" or size == 1:
            c = c + 3
        W, b = normal(size, size), normal(size)

        def diffusion(t, x):
            fields = torch.einsum("kij,bj->bik", B, x) + c.mT  # (B, D, M)
            fields = (1 + 0.3 * t) * fields
            return fields if noise == "general" else fields[:, :, 0]

        self.sde = sf.SDE(
            lambda t, x: x @ A.mT,
            diffusion,
            noise=noise,
            additive=additive,
            calculus=calculus,
            interval=interval,
        )
        self.score = lambda t, x: torch.tanh(x @ W.mT + b * t) - x
        self.x = normal(4, size)


@st.composite
def drawn(draw, noise, **options):
    return Drawn(draw(seeds), draw(dimensions), noise, draw(st.booleans()), **options)


def reflected(score):
    return lambda t, x: score(sum(INTERVAL) - t, x)


def matrix(sde, t, x):
    """σ with shape (B, D, M), whatever the noise."""
    g = sde.diffusion(t, x)
    return {"general": lambda: g, "scalar": lambda: g[:, :, None], "diagonal": lambda: torch.diag_embed(g)}[sde.noise]()
