"""What a gradient through an SDE solve costs and how far it is from the truth, in each mode of gradient=.

    python benchmarks/gradients.py [--quick] [--out benchmarks/results]

dx = μx dt + σx dW: x(1) = x(0) exp(μ − σ²/2 + σW), so the gradients of mean x(1) with respect to x(0), μ and σ are known
path by path. "error" is how far the gradient is from that, relative; "from backprop" how far from the gradient of the steps
themselves, which for an optimiser is the one that matters. "states" is the most memory that tensors took at once, in states.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, side_by_side, write  # first, since it sets the number of threads

import sdeflow as sf
from sdeflow.analysis.memory import peak_bytes

BATCH, EVENT = 256, 4


class Geometric(sf.SDE):
    """Geometric Brownian motion with parameters, in the calculus that is asked for."""

    def __init__(self, calculus: str) -> None:
        super().__init__(noise="diagonal", calculus=calculus)
        self.mu = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.sigma = torch.nn.Parameter(torch.tensor(0.6, dtype=torch.float64))

    def drift(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        rate = self.mu if self.calculus == "ito" else self.mu - self.sigma**2 / 2
        return rate * x

    def diffusion(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.sigma * x


CASES = [
    ("euler-maruyama", "backprop", "ito"),
    ("euler-maruyama", "checkpoint", "ito"),
    ("sriw1", "backprop", "ito"),
    ("sriw1", "checkpoint", "ito"),
    ("torchsde:euler", "backprop", "ito"),
    ("torchsde:euler", "adjoint", "ito"),
    ("torchsde:milstein", "adjoint", "ito"),
    ("heun", "backprop", "stratonovich"),
    ("heun", "checkpoint", "stratonovich"),
    ("torchsde:midpoint", "backprop", "stratonovich"),
    ("torchsde:midpoint", "adjoint", "stratonovich"),
    ("torchsde:reversible_heun", "backprop", "stratonovich"),
    ("torchsde:reversible_heun", "adjoint", "stratonovich"),
]


def gradient(process: Geometric, method: str, mode: str, path: sf.BrownianPath) -> list[torch.Tensor]:
    x = torch.ones(BATCH, EVENT, dtype=torch.float64, requires_grad=True)
    final = sf.solve(process, x, steps=path.cells, method=method, gradient=mode, brownian=path).final
    return list(torch.autograd.grad(final.mean(), [x, process.mu, process.sigma]))


def truth(path: sf.BrownianPath) -> list[torch.Tensor]:
    W = path(0.0, 1.0)
    x, mu, sigma = torch.ones_like(W), torch.tensor(0.3), torch.tensor(0.6)
    leaves = [value.double().requires_grad_() for value in (x, mu, sigma)]
    x, mu, sigma = leaves
    return list(torch.autograd.grad((x * torch.exp(mu - sigma**2 / 2 + sigma * W)).mean(), leaves))


def distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """Relative, the worst of the three."""
    return max(float((u - v).norm() / v.norm()) for u, v in zip(a, b, strict=True))


def rows(steps: int, repeats: int) -> list[dict[str, Any]]:
    path = sf.BrownianPath((BATCH, EVENT), 0, 1, seed=0, cells=steps, levy="space-time", dtype=torch.float64)
    exact, found = truth(path), []
    for method, mode, calculus in CASES:
        process = Geometric(calculus)
        call = lambda process=process, method=method, mode=mode: gradient(process, method, mode, path)  # noqa: E731
        found.append(
            {
                "method": method,
                "gradient": mode,
                "steps": steps,
                "error": distance(call(), exact),
                "from backprop": distance(call(), gradient(process, method, "backprop", path)),
                "states": peak_bytes(call, torch.device("cpu")) / (8 * BATCH * EVENT),
                "call": call,
            }
        )
    ms = side_by_side({f"{row['method']} {row['gradient']}": row["call"] for row in found}, repeats)
    return [
        {k: v for k, v in row.items() if k != "call"} | {"ms": ms[f"{row['method']} {row['gradient']}"]}
        for row in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 steps only, not 256 as well")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [row for steps in ((64,) if options.quick else (64, 256)) for row in rows(steps, 3)]
    for row in found:
        print(*(f"{v:.2e}" if isinstance(v, float) else f"{v!s:26}" for v in row.values()))
    write("gradients", {"rows": found}, options.out)


if __name__ == "__main__":
    main()
