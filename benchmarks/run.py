"""What accuracy costs: work against precision on three problems, native and wrapped methods side by side.

    python benchmarks/run.py [--quick] [--out benchmarks/results]

One thread, medians; the results are JSON files with versions and machine. What the engines cost beside their peers is in
sde_engine.py and ode_engine.py. Nothing in the package needs this folder.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import sdeflow as sf


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
    for result in accuracy(3, 7 if options.quick else 9):
        print(f"\n{result.problem}\n{result.table()}")
        result.to_json(options.out / f"{result.problem.replace(' ', '-').lower()}.json")


if __name__ == "__main__":
    main()
