"""Judge the estimator of orders: is the true slope within .1 of the estimate, and in the interval as often as it says?

``python benchmarks/order_estimator.py`` draws 2,000 synthetic data sets of each kind (``tests/order_data.py`` states
the family) with each of two seeds, of ODEs, which are cheap, of five, and writes the shares of all seeds, with their standard
errors, to ``results/order_estimator.json``; so too for bends that the estimator was not made for. CI runs fewer of them, in
``tests/analysis/test_fit.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import sdeflow as sf

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import order_data  # noqa: E402

SEEDS = {"strong": 2, "weak": 2, "ode": 5}
Shares = dict[str, float]


def pooled(kind: str, sets: int, seed: int, powers: str, other: bool) -> Shares:
    """The means over the seeds, and the standard errors of the shares."""
    found = [order_data.judge(kind, sets, seed + k, powers, other) for k in range(SEEDS[kind])]
    shares: Shares = {key: sum(one[key] for one in found) / len(found) for key in found[0]}
    for key in ("covered", "within"):
        shares[f"standard error of {key}"] = math.sqrt(shares[key] * (1 - shares[key]) / (sets * len(found)))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=2000, help="data sets of each kind")
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "environment": sf.analysis.environment(),
        "sets of each kind": options.sets,
        "first seed": options.seed,
        "seeds": SEEDS,
    }
    for powers, other in ((powers, other) for other in (False, True) for powers in ("whole", "half")):
        name = f"other {powers}" if other else powers
        report[name] = family = {}
        for kind in ("ode",) if other else ("strong", "weak", "ode"):
            family[kind] = pooled(kind, options.sets, options.seed, powers, other)
            shares = "  ".join(f"{key} {value:.4f}" for key, value in family[kind].items())
            print(f"{name:12} {kind:7} {shares}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "order_estimator.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
