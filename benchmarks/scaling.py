"""What a solve costs against its size: batch, dimension, steps, threads, each to where it bends.

    python benchmarks/scaling.py [--quick] [--out benchmarks/results]

The cost of a solve of n rows (coordinates, steps) is a + b n: below n = a / b one pays for what does not grow, calls of small
operations; above, for the arithmetic. That n is where the curve bends, and it is what is recorded, with the curve. Each axis is
doubled until it is well past its bend, or a solve takes too long. Of threads the speed-up is recorded, up to the cores there
are.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, side_by_side, write  # first, since it sets the number of threads

import sdeflow as sf

Solve = Callable[[int, int, int], Any]  # of batch, dimension, steps
Row = dict[str, Any]

BASE = {"batch": 64, "dimension": 2, "steps": 100}
LARGEST = {"batch": 2**20, "dimension": 2**18, "steps": 2**16}
PAST = 8.0  # a sweep ends when a solve costs so many times the cheapest one, twice in a row
LONGEST = 4000.0  # milliseconds


def solver(method: str) -> Solve:
    """A solve of a linear equation of the kind that the method is for."""
    process: sf.SDE | sf.ODE
    if sf.methods()[method].strong_order:
        process = sf.SDE(lambda t, x: -0.5 * x, lambda t, x: 0.5 * x)
    else:
        process = sf.ODE(lambda t, x: -0.5 * x)
    noise = {"seed": 0} if isinstance(process, sf.SDE) else {}

    def solve(batch: int, dimension: int, steps: int) -> Any:
        return sf.solve(process, torch.ones(batch, dimension), steps=steps, method=method, **noise)

    return solve


def bend(sizes: list[int], ms: list[float]) -> tuple[float, float]:
    """(a, b) of a + b n, by least squares of relative residuals, neither of them negative."""
    n, t = (torch.tensor(values, dtype=torch.float64) for values in (sizes, ms))
    design = torch.stack([1 / t, n / t], 1)
    a, b = torch.linalg.lstsq(design, torch.ones(len(sizes), 1, dtype=torch.float64)).solution.flatten().tolist()
    if a < 0:
        return 0.0, float((n / t).sum() / (n / t).square().sum())
    if b < 0:
        return float((1 / t).sum() / (1 / t).square().sum()), 0.0
    return a, b


def sweep(method: str, axis: str, quick: bool) -> Row:
    """Milliseconds along one axis, the others as in BASE."""
    solve, sizes, ms = solver(method), list[int](), list[float]()
    size = 1
    while size <= LARGEST[axis] // (16 if quick else 1):
        arguments = {**BASE, axis: size}
        ms.append(side_by_side({"it": lambda a=arguments: solve(**a)}, 3 if quick else 7)["it"])
        sizes.append(size)
        if ms[-1] > LONGEST / (8 if quick else 1) or (len(ms) > 4 and ms[-2] > PAST * min(ms)):
            break
        size *= 2
    a, b = bend(sizes, ms)
    return {
        "method": method,
        "axis": axis,
        "others": {key: value for key, value in BASE.items() if key != axis},
        "sizes": sizes,
        "ms": ms,
        "ms that do not grow": a,
        "microseconds for each": 1e3 * b,
        "bends at": a / b if b else None,
    }


def threads(method: str, quick: bool) -> Row:
    """The speed-up of a large solve with more threads; it bends where twice the threads give less than 1.5 times the speed."""
    solve = solver(method)
    counts = [2**k for k in range(int(math.log2(os.cpu_count() or 1)) + 1)]
    size = {"batch": 2**14 if quick else 2**16, "dimension": 16, "steps": 20}
    ms = [side_by_side({"it": lambda: solve(**size)}, 3 if quick else 7, threads=n)["it"] for n in counts]
    bends = next((n for n, (a, b) in zip(counts, pairwise(ms), strict=False) if a / b < 1.5), None)
    return {
        "method": method,
        "axis": "threads",
        "others": size,
        "sizes": counts,
        "ms": ms,
        "speed-up": [ms[0] / value for value in ms],
        "bends at": bends,
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two methods and smaller sizes, under a minute")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    methods = ("euler-maruyama", "rk4") if options.quick else ("euler-maruyama", "sriw1", "torchsde:euler", "rk4")
    rows = []
    for method in methods:
        for axis in (*BASE, "threads"):
            row = threads(method, options.quick) if axis == "threads" else sweep(method, axis, options.quick)
            rows.append(row)
            bends = "does not bend" if row["bends at"] is None else f"bends at {row['bends at']:,.0f}"
            print(f"{method:16} {axis:10} {row['sizes'][0]} to {row['sizes'][-1]:<8} {bends}", flush=True)
        write("scaling", {"rows": rows}, options.out)


if __name__ == "__main__":
    main()
