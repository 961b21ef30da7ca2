"""What a sampler takes beside its network: the time of a solve over that of its evaluations, called as the solver calls them.

    python benchmarks/sampling.py [NETWORK …] [--quick] [--out benchmarks/results]

One thread, float32, twenty steps; calls take turns and medians are compared. Rows are printed and written network by network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness  # first, since it sets the number of threads
import torch
from torch import nn

import sdeflow as sf

STEPS, BOUND = 20, 1.1
PLAIN = ("euler", "heun", "euler-maruyama", "shark")  # methods that know nothing of schedules
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # the network, an event, rows of a batch
    "unet": (lambda: sf.networks.UNet((8, 8), width=16), (8, 8), 64),
    "mlp": (lambda: sf.networks.MLP(2, width=128), (2,), 256),
    # Of another library's form, which is asked time by time: what ours save is not in this one.
    "foreign-mlp": (lambda: sf.adapt(perceptron(2, 128), order="x|t"), (2,), 256),
}


def perceptron(dims: int, width: int) -> nn.Module:
    """Four layers on the state and the time, as one would write them."""
    hidden = [part for _ in range(2) for part in (nn.SiLU(), nn.Linear(width, width))]
    return nn.Sequential(nn.Linear(dims + 1, width), *hidden, nn.SiLU(), nn.Linear(width, dims))


def costs(network: str, repeats: int) -> list[dict[str, Any]]:
    make, event, rows = NETWORKS[network]
    net = make()
    model = sf.models.DenoisingScoreMatching(net, sf.processes.VariancePreserving(), event, predicts="data")
    x = sf.paths.Draws(0).samples(model.base, rows)
    times = torch.linspace(*model.interval, STEPS).unbind()  # 0-d and of float32, as a solver gives them

    def evaluations() -> None:
        for t in times:
            net(t, x)  # and let go at once: what is kept takes fresh memory, and longer

    calls: dict[str, Callable[[], Any]] = {"network": evaluations}
    for method in [m for m in sf.methods() if "schedule" in m.needs or m.name in PLAIN]:
        process = model.ode() if method.ode_order is not None else model.sde()
        calls[method.name] = lambda p=process, m=method: sf.solve(p, x, steps=STEPS, method=m.name, seed=0)
    with torch.no_grad():
        ms = harness.side_by_side(calls, repeats)
    found = []
    for name in list(calls)[1:]:
        stages = sf.methods()[name].drift_evaluations
        assert stages is not None
        ratio = ms.ratio(name, "network") / stages
        row = {"network": network, "rows": rows, "method": name, "network, ms": ms["network"] / STEPS}
        found.append({**row, "over evaluations × network": ratio, "bound": BOUND, "met": ratio <= BOUND})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="*", help=f"{', '.join(NETWORKS)}; all by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    if unknown := set(options.network) - NETWORKS.keys():
        parser.error(f"unknown networks {sorted(unknown)}; there are {', '.join(NETWORKS)}")
    rows: list[dict[str, Any]] = []
    for network in options.network or NETWORKS:
        rows += (found := costs(network, 3 if options.quick else 31))
        harness.show({network: found})
        harness.write("sampling", {"rows": rows}, options.out)


if __name__ == "__main__":
    main()
