"""What a step of training costs beside its parts: the network forward and backward, the optimiser, the batch's noise.

    python benchmarks/training.py [NETWORK …] [--quick] [--out benchmarks/results]

One thread, float32. "parts" is what one writes without a library: draw times and noise, evaluate the network, take the mean
squared error, go back, step. "loss" is ``model.loss`` with the same network, optimiser and batch; "fit" is a step of
``sf.fit``, which also reads the batch from the data, bounds the gradient, averages the weights, watches for NaN and keeps the
record. Calls of ten steps take turns and medians are compared; each has its own network and optimiser. ``ratio`` is over
"parts", and ``bound`` is what it is held to: more of a small network's step is spent beside it. Rows are printed and written as
they are measured, about three minutes in all; networks that are not asked for keep what was recorded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import harness
import torch
from torch import Tensor, nn

import sdeflow as sf
from sdeflow.training.training import Training

STEPS = 10
SUITE = "a step of training"


class Case(NamedTuple):
    """A network, an event, the rows of a batch, what the ratio is held to, and how often calls take turns."""

    make: Callable[[], nn.Module]
    event: tuple[int, ...]
    rows: int
    bound: float
    repeats: int


NETWORKS = {
    "mlp-64": Case(lambda: sf.networks.MLP(2), (2,), 256, 1.3, 61),
    "mlp-256": Case(lambda: sf.networks.MLP(2, width=256), (2,), 512, 1.15, 31),
    "unet-32": Case(lambda: sf.networks.UNet((8, 8), width=32), (8, 8), 64, 1.15, 11),
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


def costs(network: str, kind: str, fused: bool, quick: bool) -> list[dict[str, Any]]:
    make, event, rows, bound, repeats = NETWORKS[network]
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
    ms = harness.side_by_side(calls, 3 if quick else repeats)
    common = {"network": network, "model": kind, "optimiser": "Adam, fused" if fused else "Adam"}
    found = []
    for name in calls:
        ratio = ms[name] / ms["parts"]
        held = {"bound": bound, "met": ratio <= bound} if name != "parts" else {}
        found.append({**common, "what": name, "ms": ms[name] / STEPS, "ratio": ratio, **held})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="*", help=f"{', '.join(NETWORKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, some seconds")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    if unknown := set(options.network) - NETWORKS.keys():
        parser.error(f"unknown networks {sorted(unknown)}; there are {', '.join(NETWORKS)}")
    wanted = options.network or list(NETWORKS)
    rows = [row for row in recorded(options.out) if row["network"] not in wanted]
    torch.manual_seed(0)
    for network in wanted:
        for kind in MODELS:
            for fused in (False, True):
                rows += (found := costs(network, kind, fused, options.quick))
                harness.show({f"{network}, {kind}": found})
                harness.write("training", {SUITE: rows}, options.out)


def recorded(out: Path) -> list[dict[str, Any]]:
    """The rows of an earlier run."""
    path = out / "training.json"
    if not path.exists():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text())[SUITE]
    return found


if __name__ == "__main__":
    main()
