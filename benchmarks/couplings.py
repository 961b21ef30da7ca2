"""Flows from a normal base to eight Gaussians by five couplings: how well they end, and what their paths cost.

    python benchmarks/couplings.py [--seeds 12] [--quick] [--out benchmarks/results]

Each seed has data and starting points of its own, which its five flows share, so that what they differ by is known better than
what they are. "W2" is to fresh data; "(data)" says what two samples of the data come to. "path energy" is (E∫‖v‖²dt − W₂²)/W₂²
with W₂² between the starts and the ends of the very same paths: 0 for optimal transport and more for all else, whatever the
sample. (With W₂² to other data it is as noisy as that is, and a flow that falls short of the data gains by it.) "energy" is
E∫‖v‖²dt itself. Standard errors are over seeds; figures are printed and written after each. One core, about a minute a seed.

For exact plans the order is known: none has less energy than optimal transport; the Schrödinger bridge lies between it and the
independent coupling, to which it tends as its noise grows, and to the former as the noise goes to nothing (Tong et al., 2024,
https://arxiv.org/abs/2302.00482); and a reflow never costs more than the flow whose pairs it learns (Liu et al., 2023,
https://arxiv.org/abs/2209.03003). What batches and networks make of it is measured.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import harness  # first, since it sets the number of threads
import torch
from scipy.stats import t as student
from torch import Tensor

import sdeflow as sf

SMALL, LARGE = 256, 1000  # points in a batch whose optimal transport is taken
COUPLINGS = (
    "independent",
    f"optimal transport of {SMALL}",
    f"optimal transport of {LARGE}",
    "rectified",
    "Schrödinger bridge",
)
SOLVER = {"method": "rk4", "steps": 40}
GROUP = 500  # points in an assignment that W₂ is measured by
CHANCE = 0.01  # at which two couplings are told apart

Row = dict[str, Any]


def trained(coupling: str, seed: int, data: Tensor, steps: int, first: Any) -> sf.models.RectifiedFlow:
    """The flow of a coupling; ``first`` is that of the independent one, which a reflow begins from."""
    base = sf.paths.LinearPath().base((2,))
    torch.manual_seed(seed)
    net, kind, _, points = sf.networks.MLP(2, width=64, time_features=1), *coupling.partition(" of ")
    given: Any = data
    model: Any = sf.models.RectifiedFlow(net, base)
    if coupling == "rectified":
        model, given = first.reflow(), first.pairs(len(data), seed=seed, solver=SOLVER)
    elif coupling == "Schrödinger bridge":
        model = sf.models.SchrodingerBridge(net, sf.networks.MLP(2, width=64, time_features=1), base, sigma=1.0)
    elif kind == "optimal transport" and int(points) == SMALL:
        model = sf.models.RectifiedFlow(net, base, coupling="optimal-transport")
    elif kind == "optimal transport":  # batches of this size are paired once, and learned from in smaller ones
        model = sf.models.RectifiedFlow(net, base, coupling="given")
        starts = sf.paths.Draws(seed).samples(base, len(data))
        transport = sf.paths.OptimalTransport()
        pairs = [transport(*some) for some in zip(starts.split(LARGE), data.split(LARGE), strict=True)]
        given = tuple(torch.cat(part) for part in zip(*pairs, strict=True))
    sf.fit(
        model,
        given[::-1] if isinstance(given, tuple) else given,
        steps,
        names=("x", "x0") if isinstance(given, tuple) else ("x",),
        batch_size=SMALL,
        learning_rate=2e-3,
        schedule="cosine",
        ema=0.995,
        seed=seed,
        progress=False,
    )
    return sf.models.RectifiedFlow(model.net, base)  # with its methods, whatever it was trained as


def wasserstein(x: Tensor, y: Tensor) -> float:
    """W₂ of two samples, from its square in groups of their rows."""
    transport = sf.paths.OptimalTransport()
    pairs = [transport(*some) for some in zip(x.split(GROUP), y.split(GROUP), strict=True)]
    return float(torch.stack([(p - q).square().sum(1).mean() for p, q in pairs]).mean().sqrt())


@torch.no_grad()
def judged(flow: sf.models.RectifiedFlow, x0: Tensor, data: Tensor) -> dict[str, float]:
    """W₂ to the data, path energy, and energy."""
    ends = flow.transport(x0, solver=SOLVER)
    groups = list(zip(x0.split(GROUP), ends.split(GROUP), strict=True))
    over = sum(float(flow.path_energy(*some, solver=SOLVER)) for some in groups) / len(groups)
    return {"W2": wasserstein(ends, data), "path energy": over, "energy": (1 + over) * wasserstein(x0, ends) ** 2}


def rows_of(found: dict[str, list[dict[str, float]]]) -> list[Row]:
    """Means with standard errors, and for neighbours in the order of each quantity by how much they differ."""
    rows: list[Row] = []
    for name, values in found.items():
        row: Row = {"coupling": name, "seeds": len(values)}
        for quantity in values[0]:
            row[quantity], row[f"{quantity} ±"] = mean_of([value[quantity] for value in values])
        rows.append(row)
    quantities = found[COUPLINGS[0]][0]
    for quantity in quantities if len(found[COUPLINGS[0]]) > 1 else ():
        of = {name: [value[quantity] for value in found[name]] for name in COUPLINGS}
        for less, more in itertools.pairwise(sorted(of, key=lambda name: sum(of[name]))):
            differences = [b - a for a, b in zip(of[less], of[more], strict=True)]
            mean, error = mean_of(differences)
            chance = float(student.sf(mean / error, len(differences) - 1))
            row = {"order by": quantity, "less": less, "more": more, "difference": mean, "±": error}
            rows.append({**row, "by chance": chance, "told apart": chance < CHANCE})
    return rows


def mean_of(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    x = torch.tensor(values, dtype=torch.float64)
    return x.mean().item(), (x.std() / len(x) ** 0.5).item() if len(x) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="two seeds and hardly any training")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    law, base = sf.data.eight_gaussians(5.0, 1.0), sf.paths.LinearPath().base((2,))
    steps, points, count = (30, 1000, 500) if options.quick else (2500, 50_000, 2000)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*COUPLINGS, "(data)")}
    for seed in range(2 if options.quick else options.seeds):
        data = law.draw(points, seed=seed)
        x0, x1 = sf.paths.Draws(100 + seed).samples(base, count), law.draw(count, seed=1000 + seed)
        first = None
        for name in COUPLINGS:
            began = time.perf_counter()
            flow = trained(name, seed, data, steps, first)
            first = first or flow
            found[name].append(judged(flow, x0, x1))
            harness.show({f"seed {seed}, {name}": [{**found[name][-1], "seconds": time.perf_counter() - began}]})
        found["(data)"].append({"W2": wasserstein(law.draw(count, seed=2000 + seed), x1)})
        rows = rows_of(found)
        harness.write("couplings", {"rows": rows}, options.out)
    harness.show({"couplings": rows})


if __name__ == "__main__":
    main()
