"""The SDE engine beside its peers: dx = −x/2 dt + dW, 500 steps, float32, one thread.

    python benchmarks/sde_engine.py [PART…] [--quick] [--out benchmarks/results]

The calls take turns, and a ratio is the median of those of the rounds; jax has a process of its own. "Noise" is what drawing
the same normals costs without a solver: SFC64 and Box–Muller, the generator of a BrownianPath on the CPU. A peer that is not
there is written down as not run. The whole suite takes about a quarter of an hour, most of it the peers'.
"""

from __future__ import annotations

import argparse
import math
import resource
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torchsde
from harness import RESULTS, Times, in_jax, side_by_side, write  # first, since it sets the number of threads

import sdeflow as sf

STEPS = 500
SIZES = [(64, 2), (1024, 2), (10_000, 2), (256, 784), (64, 3072)]

Row = dict[str, Any]


def process() -> sf.SDE:
    return sf.SDE(lambda t, x: -0.5 * x, lambda t, x: 1.0, additive=True)


class Raw(torch.nn.Module):
    """The same for torchsde."""

    noise_type = "diagonal"
    sde_type = "ito"

    def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -0.5 * y

    def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(y)


class RawGeometric(Raw):
    def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.3 * y

    def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.6 * y


def by_hand(x: torch.Tensor) -> torch.Tensor:
    """Euler–Maruyama as one would write it."""
    h = 1 / STEPS
    for _ in range(STEPS):
        x = x - 0.5 * x * h + math.sqrt(h) * torch.randn_like(x)
    return x


def noise_alone(shape: tuple[int, ...]) -> None:
    """The increments of the path, drawn as a compiled solve draws them, and dropped."""
    path = sf.BrownianPath(shape, 0.0, 1.0, seed=0, cells=STEPS)
    together = max(1, min(16, 2**18 // math.prod(shape)))
    for k in range(0, STEPS, together):
        path.cell_increments(k, min(together, STEPS - k))


def ratio(figure: str, shape: tuple[int, ...], times: Times, ours: str, theirs: str, bound: str, **more: Any) -> Row:
    """A row of the record: how many times as fast as the peer we are."""
    what = {"figure": figure, "shape": list(shape), "bound": bound}
    return {**what, "ms": times[ours], "peer ms": times[theirs], "ratio": times.ratio(theirs, ours), **more}


def beside_jax(figure: str, shape: tuple[int, ...], ms: float, peer: dict[str, Any], bound: str) -> Row:
    """The same, of medians, beside a peer in a process of its own; it says why where that was not run."""
    row = {"figure": figure, "shape": list(shape), "ms": ms}
    if "ms" not in peer:
        return row | peer
    return row | {"bound": bound, "peer ms": peer["ms"], "ratio": peer["ms"] / ms, "peer": peer}


def repeats_for(shape: tuple[int, ...], quick: bool) -> int:
    return 3 if quick else 7 if math.prod(shape) > 10**5 else 15


def euler(shape: tuple[int, ...], quick: bool) -> list[Row]:
    """Euler–Maruyama: native, compiled, through torchsde, and the peers of each."""
    x, sde = torch.zeros(shape), process()
    compiled = sf.solve(sde, x, steps=STEPS, seed=0, method="euler-maruyama", compile=True).stats
    ms = side_by_side(
        {
            "hand": lambda: by_hand(x),
            "noise": lambda: noise_alone(shape),
            "native": lambda: sf.solve(sde, x, steps=STEPS, seed=0, method="euler-maruyama"),
            "compiled": lambda: sf.solve(sde, x, steps=STEPS, seed=0, method="euler-maruyama", compile=True),
            "torchsde, our path": lambda: sf.solve(sde, x, steps=STEPS, seed=0, method="torchsde:euler"),
            "torchsde": lambda: torchsde.sdeint(Raw(), x, [0.0, 1.0], dt=1 / STEPS, method="euler"),
        },
        repeats_for(shape, quick),
    )
    slower = f"≥ {1 / (1.5 if shape == (64, 2) else 1.25):.2f}"
    diffrax = in_jax("diffrax_sde.py", what="euler-maruyama", shape=shape, steps=STEPS, repeats=3 if quick else 9)
    rows = [
        ratio("torchsde euler: our path / its own", shape, ms, "torchsde, our path", "torchsde", "≥ 5"),
        ratio("native Euler–Maruyama / hand-written loop", shape, ms, "native", "hand", slower),
        ratio(
            "compiled Euler–Maruyama / its normals alone",
            shape,
            ms,
            "compiled",
            "noise",
            f"≥ {1 / 1.5:.2f}" if math.prod(shape) >= 20_000 else "",
            **{"compile seconds": compiled["compile_seconds"]},
        ),
    ]
    rows.append(beside_jax("compiled Euler–Maruyama / diffrax, jit", shape, ms["compiled"], diffrax, "reported"))
    return [row | {"in multiples of the noise": row["ms"] / ms["noise"]} for row in rows]


def order_one_and_a_half(shape: tuple[int, ...], quick: bool) -> list[Row]:
    """SRA1 and ShARK against torchsde's srk."""
    x, sde = torch.zeros(shape), process()
    names = ("sra1", "shark")
    calls = {name: lambda name=name: sf.solve(sde, x, steps=STEPS, seed=0, method=name) for name in names}
    srk = {"srk": lambda: torchsde.sdeint(Raw(), x, [0.0, 1.0], dt=1 / STEPS, method="srk")}
    ms = side_by_side(calls | srk, min(5, repeats_for(shape, quick)))
    bound = "≥ 12" if math.prod(shape) <= 20_000 else "≥ 6"
    return [ratio(f"{name} / torchsde srk", shape, ms, name, "srk", bound) for name in names]


def geometric(quick: bool) -> list[Row]:
    """SRIW1 against torchsde's srk on geometric Brownian motion, 200 steps."""
    shape = (1024, 8)
    x, gbm = torch.ones(shape), sf.processes.GeometricBrownianMotion(0.3, 0.6)
    ms = side_by_side(
        {
            "sriw1": lambda: sf.solve(gbm, x, steps=200, seed=0, method="sriw1"),
            "srk": lambda: torchsde.sdeint(RawGeometric(), x, [0.0, 1.0], dt=1 / 200, method="srk"),
        },
        3 if quick else 9,
    )
    return [ratio("sriw1 / torchsde srk, GBM", shape, ms, "sriw1", "srk", "≥ 6")]


def tree(shape: tuple[int, ...], depth: int, quick: bool) -> Row:
    """Sequential queries of a path that has one cell, on a lattice of 2^depth steps."""
    queries = 50 if quick else STEPS
    path = sf.BrownianPath(shape, 0.0, 1.0, seed=0)
    times = [round(k / queries * 2**depth) / 2**depth for k in range(queries + 1)]

    def ask() -> None:
        for s, t in pairwise(times):
            path(s, t)

    large = math.prod(shape) > 10**5
    ms = side_by_side({"ours": ask}, 1 if large else 3 if quick else 9)["ours"]
    figure = f"{queries} queries of a tree, depth {depth}, / diffrax VirtualBrownianTree, jit"
    peer = in_jax(
        "diffrax_sde.py",
        what="tree",
        shape=shape,
        queries=queries,
        depth=depth,
        repeats=1 if quick or large else 9,
    )
    return beside_jax(figure, shape, ms, peer, "≥ 5" if depth == 10 and math.prod(shape) > 128 else "reported")


def memory(quick: bool) -> Row:
    """How far the peak of the process rises in 100,000 steps at 1024 × 2 without gradients."""
    x, steps = torch.zeros(1024, 2), 10_000 if quick else 100_000
    sf.solve(process(), x, steps=100, seed=0, method="euler-maruyama")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sf.solve(process(), x, steps=steps, seed=0, method="euler-maruyama")
    risen = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"figure": f"peak memory of {steps:,} steps", "shape": [1024, 2], "MB": risen, "bound": "≤ 50 MB"}


PARTS: dict[str, Callable[[tuple[int, ...], bool], list[Row]]] = {
    "euler": euler,
    "order-1.5": order_one_and_a_half,
    "tree": lambda shape, quick: [tree(shape, 10, quick)],
    "deep-tree": lambda shape, quick: [tree(shape, 20, quick)],
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[[], "memory", "geometric", *PARTS], help="these rows; all of them if none"
    )
    parser.add_argument(
        "--quick", action="store_true", help="three sizes, no deep tree, fewer repeats: about two minutes"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quick = options.quick
    parts = options.parts or ["memory", "geometric", *(name for name in PARTS if not (quick and name == "deep-tree"))]
    rows: list[Row] = []

    def record(new: list[Row]) -> None:
        for row in new:
            value = f"{row['ratio']:8.2f} ×" if "ratio" in row else f"{row['MB']:8.1f} MB" if "MB" in row else "not run"
            print(f"{row['figure']:75} {row['shape']!s:12} {value}  {row.get('bound', '')}", flush=True)
            rows.append(row)
        # Some parts have a record of their own, so that one record is one run.
        write("_".join(["sde_engine", *options.parts]), {"rows": rows}, options.out)

    if "memory" in parts:
        record([memory(quick)])  # first, while the peak is still the start's
    if "geometric" in parts:
        record(geometric(quick))
    for name, part in PARTS.items():
        for shape in SIZES[:3] if quick else SIZES:
            if name in parts:
                record(part(shape, quick))


if __name__ == "__main__":
    main()
