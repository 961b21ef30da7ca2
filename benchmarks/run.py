"""The benchmark suites: what a solve costs beside the loop one would write by hand, and what accuracy costs.

    python benchmarks/run.py [--quick] [--out benchmarks/results]

One thread, medians, all ratios from one process run; the results are JSON files with versions and machine. Nothing in the
package needs this folder.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torchdiffeq
import torchsde
from torch.utils.benchmark import Timer

import sdeflow as sf

STEPS = 500
SIZES = [(64, 2), (1024, 2), (10_000, 2)]


def median_ms(function: Any, repeats: int) -> float:
    """The median wall time of a call, after one to warm up."""
    function()
    timer = Timer("function()", globals={"function": function})
    return 1e3 * torch.tensor([timer.timeit(1).mean for _ in range(repeats)]).median().item()


def by_hand(x: torch.Tensor) -> torch.Tensor:
    """Euler–Maruyama for dx = −x/2 dt + dW, as one would write it."""
    h = 1 / STEPS
    for _ in range(STEPS):
        x = x - 0.5 * x * h + math.sqrt(h) * torch.randn_like(x)
    return x


class Raw(torch.nn.Module):
    """The same for torchsde, on its own Brownian path."""

    noise_type = "diagonal"
    sde_type = "ito"

    def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -0.5 * y

    def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(y)


def fixed_steps(repeats: int, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """500 Euler–Maruyama steps, in multiples of the loop by hand."""
    process = sf.SDE(lambda t, x: -0.5 * x, lambda t, x: 1.0, additive=True)
    rows = []
    for shape in sizes:
        x = torch.zeros(shape)
        peers = {
            "by hand, torch.randn": lambda x=x: by_hand(x),
            "sdeflow euler-maruyama": lambda x=x: sf.solve(process, x, steps=STEPS, seed=0),
            "sdeflow torchsde:euler": lambda x=x: sf.solve(process, x, steps=STEPS, seed=0, method="torchsde:euler"),
            "torchsde euler, its own path": lambda x=x: torchsde.sdeint(
                Raw(), x, [0.0, 1.0], dt=1 / STEPS, method="euler"
            ),
            "the normals alone, torch.randn": lambda shape=shape: [torch.randn(shape) for _ in range(STEPS)],
        }
        times = {name: median_ms(call, repeats) for name, call in peers.items()}
        base = times["by hand, torch.randn"]
        rows += [{"shape": list(shape), "what": n, "ms": ms, "ratio": ms / base} for n, ms in times.items()]
    return rows


def adaptive_steps(repeats: int) -> list[dict[str, Any]]:
    """Van der Pol, batch 256: what the wrapping of torchdiffeq costs."""

    def velocity(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        y, dy = x.unbind(-1)
        return torch.stack([dy, 2 * (1 - y * y) * dy - y], -1)

    x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    process, t = sf.ODE(velocity, interval=(0.0, 10.0)), torch.tensor([0.0, 10.0])
    peers = {
        "torchdiffeq dopri5": lambda: torchdiffeq.odeint(velocity, x, t, rtol=1e-6, atol=1e-6, method="dopri5"),
        "sdeflow torchdiffeq:dopri5": lambda: sf.solve(process, x, rtol=1e-6, method="torchdiffeq:dopri5"),
    }
    times = {name: median_ms(call, repeats) for name, call in peers.items()}
    base = times["torchdiffeq dopri5"]
    return [{"what": name, "ms": ms, "ratio": ms / base} for name, ms in times.items()]


def accuracy(repeats: int, finest: int) -> list[sf.analysis.WorkPrecision]:
    """Work against precision: geometric Brownian motion, a reversed diffusion, and its probability flow."""
    generator = torch.Generator().manual_seed(0)
    dts = [2.0**-k for k in range(3, finest)]
    x0 = torch.full((1000, 1), 0.8, dtype=torch.float64)
    gbm = sf.analysis.Problem(
        sf.processes.GeometricBrownianMotion(0.4, 0.7),
        x0,
        exact=lambda path: x0 * torch.exp((0.4 - 0.245) + 0.7 * path(0.0, 1.0)),
        name="geometric Brownian motion",
    )
    law = sf.laws.GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [2.0, 1.0]], [0.1, 0.2])
    sde = sf.processes.VariancePreserving(interval=(1e-3, 1.0))
    truth = law.along(sde)
    noise = torch.randn(256, 2, generator=generator, dtype=torch.float64)
    reversal = sf.analysis.Problem(
        sde.reverse(truth.score), noise, reference={"method": "torchsde:srk", "steps": 2048}, name="reversed diffusion"
    )
    flow = sf.analysis.Problem(
        sde.probability_flow(truth.score),
        noise,
        t=(1.0, 1e-3),
        reference={"method": "torchdiffeq:dopri8", "rtol": 1e-12, "atol": 1e-12},
        name="probability flow",
    )
    sde_methods = ["euler-maruyama", "torchsde:milstein", "torchsde:srk"]
    tolerances = [10.0**-k for k in range(2, 9, 2)]
    return [
        sf.analysis.work_precision(gbm, sde_methods, dts=dts, repeats=repeats),
        sf.analysis.work_precision(reversal, [*sde_methods, "heun"], dts=[0.999 * h for h in dts], repeats=repeats),
        sf.analysis.work_precision(
            flow,
            ["euler", "heun", "rk4", "torchdiffeq:dopri5", "torchdiffeq:bosh3"],
            dts=[0.999 * h for h in dts],
            tolerances=tolerances,
            repeats=repeats,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats, about a minute")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    repeats = 3 if options.quick else 9
    results: dict[str, Any] = {
        "environment": sf.analysis.environment(),
        "fixed steps": fixed_steps(repeats, SIZES[: 1 if options.quick else None]),
        "adaptive steps": adaptive_steps(repeats),
    }
    for suite in ("fixed steps", "adaptive steps"):
        print(f"\n{suite}")
        for row in results[suite]:
            print(f"  {row.get('shape', '')!s:12} {row['what']:34} {row['ms']:9.2f} ms  {row['ratio']:6.2f} ×")
    (options.out / "overhead.json").write_text(json.dumps(results, indent=1) + "\n")
    for result in accuracy(3, 7 if options.quick else 9):
        print(f"\n{result.problem}\n{result.table()}")
        result.to_json(options.out / f"{result.problem.replace(' ', '-').lower()}.json")


if __name__ == "__main__":
    main()
