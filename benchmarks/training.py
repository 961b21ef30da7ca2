"""What a step of training costs beside its parts: the network forward and backward, the optimiser, the batch's noise.

    python benchmarks/training.py [--quick] [--out benchmarks/results]

One thread, float32. "parts" is what one writes without a library: draw times and noise, evaluate the network, take the mean
squared error, go back, step. "loss" is ``model.loss`` with the same network, optimiser and batch; "fit" is a step of
``sf.fit``, which also reads the batch from the data, bounds the gradient, averages the weights, watches for NaN and keeps the
record. Calls of ten steps take turns and medians are compared; each has its own network and optimiser. ``ratio`` is over
"parts". The targets are 1.3 for three layers of 64, and 1.15 for the larger networks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import torch
from torch import Tensor, nn

import sdeflow as sf
from sdeflow.training.training import Training

STEPS = 10
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # the network, an event, rows of a batch
    "MLP 3 × 64": (lambda: sf.networks.MLP(2), (2,), 256),
    "MLP 3 × 256": (lambda: sf.networks.MLP(2, width=256), (2,), 512),
    "UNet 32, 8 × 8": (lambda: sf.networks.UNet((8, 8), width=32), (8, 8), 64),
}
MODELS: dict[str, Callable[[nn.Module, tuple[int, ...]], sf.models.GenerativeModel]] = {
    "flow matching": lambda net, event: sf.models.FlowMatching(net, sf.paths.LinearPath().base(event)),
    "denoising": lambda net, event: sf.models.DenoisingScoreMatching(net, sf.processes.VariancePreserving(), event),
}


class Stopped(Exception):
    """Out of ``sf.fit`` with a run in hand."""


def run_of(model: sf.models.GenerativeModel, data: Tensor, rows: int, optimiser: Any) -> Training:
    """A run that is ready for its first step."""
    held: list[Training] = []
    advance = Training.advance

    def stop(self: Training) -> bool:
        held.append(self)
        raise Stopped

    Training.advance = stop  # type: ignore[method-assign]
    try:
        sf.fit(model, data, 10**9, batch_size=rows, optimiser=optimiser, seed=0, progress=False)
    except Stopped:
        pass
    finally:
        Training.advance = advance  # type: ignore[method-assign]
    return held[0]


def adam(fused: bool) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters, lr: torch.optim.Adam(parameters, lr, fused=fused)


def costs(network: str, kind: str, fused: bool, repeats: int) -> list[dict[str, Any]]:
    make, event, rows = NETWORKS[network]
    data, make_optimiser = torch.randn(4096, *event), adam(fused)

    def parts() -> Callable[[], None]:
        net, x = make(), data[:rows]
        optimiser = make_optimiser(net.parameters(), lr=1e-3)

        def step() -> None:
            t, noise = torch.rand(rows, *[1] * len(event)), torch.randn_like(x)
            optimiser.zero_grad()
            (net(t, noise) - x).square().flatten(1).sum(1).mean().backward()
            optimiser.step()

        return step

    def loss() -> Callable[[], None]:
        model, x = MODELS[kind](make(), event), data[:rows]
        optimiser = make_optimiser(model.parameters(), lr=1e-3)

        def step() -> None:
            optimiser.zero_grad()
            model.loss(x).backward()
            optimiser.step()

        return step

    def whole() -> Callable[[], Any]:
        return run_of(MODELS[kind](make(), event), data, rows, make_optimiser).advance

    def repeated(step: Callable[[], Any]) -> Callable[[], None]:
        return lambda: [step() for _ in range(STEPS)] and None

    calls = {name: repeated(made()) for name, made in (("parts", parts), ("loss", loss), ("fit", whole))}
    ms = harness.side_by_side(calls, repeats)
    common = {"network": network, "model": kind, "optimiser": "Adam, fused" if fused else "Adam"}
    return [{**common, "what": name, "ms": ms[name] / STEPS, "ratio": ms[name] / ms["parts"]} for name in calls]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, half a minute")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    rows = [
        row
        for network in NETWORKS
        for kind in MODELS
        for fused in (False, True)
        for row in costs(network, kind, fused, 5 if options.quick else 31)
    ]
    results = {"a step of training": rows}
    harness.write("training", results, options.out)
    harness.show(results)


if __name__ == "__main__":
    main()
