"""Judge the estimator of orders: is the true slope within .1 of the estimate, and in the interval as often as it says?

``python benchmarks/order_estimator.py`` draws 2,000 synthetic data sets of each kind (``tests/order_data.py`` states
the family) and writes what it finds to ``results/order_estimator.json``. CI runs fewer of them,
in ``tests/analysis/test_fit.py``.
"""

from __future__ import annotations

import argparse
import json
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
        "seed": options.seed,
    }
    for powers in ("whole", "half"):
        report[powers] = family = {}
        for kind in ("strong", "weak", "ode"):
            family[kind] = order_data.judge(kind, options.sets, options.seed, powers)
        family["all"] = {key: sum(family[kind][key] for kind in ("strong", "weak", "ode")) / 3 for key in family["ode"]}
        for kind, v in family.items():
            shares = "  ".join(f"{key} {value:.4f}" for key, value in v.items())
            print(f"{powers:6} {kind:7} {shares}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "order_estimator.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
