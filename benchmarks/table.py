"""The tables that pages show, from what the suites have recorded: nobody types a figure.

    python benchmarks/table.py          rewrite the marked part of README.md
    python benchmarks/table.py --check  only say whether it is as it should be

A line of the table names the rows of a record that it sums up; what has not been recorded is not in the table.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE.parent / "README.md", HERE / "results"
SLACK = 0.1  # that an interval may be short of a claim by
BEGIN, END = "<!-- made by benchmarks/table.py: do not edit -->", "<!-- end of what is made -->"

Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """What a line is about, and the rows that it sums up: of a suite, in a part of its record, with a name.

    ``size`` is of suites whose rows do not tell theirs.
    """

    text: str
    beside: str
    suite: str
    part: str
    name: str
    size: str = ""


LINES = (
    Line("Euler–Maruyama", "a loop written by hand", "sde_engine", "rows", "native Euler–Maruyama / hand-written loop"),
    Line(
        "Euler–Maruyama, compiled", "diffrax, compiled", "sde_engine", "rows", "compiled Euler–Maruyama / diffrax, jit"
    ),
    Line(
        "`torchsde:euler` on our path",
        "torchsde on its own",
        "sde_engine",
        "rows",
        "torchsde euler: our path / its own",
    ),
    Line("`sra1`, additive noise", "torchsde `srk`", "sde_engine", "rows", "sra1 / torchsde srk"),
    Line("`sriw1`, geometric Brownian motion", "torchsde `srk`", "sde_engine", "rows", "sriw1 / torchsde srk, GBM"),
    Line(
        "a Brownian tree, 1,024 leaves",
        "diffrax `VirtualBrownianTree`, compiled",
        "sde_engine",
        "rows",
        "500 queries of a tree, depth 10, / diffrax VirtualBrownianTree, jit",
    ),
    Line("`tsit5`, van der Pol at 1e-6", "torchdiffeq `dopri5`", "ode_engine", "van der pol", "tsit5 shared"),
    Line("`dopri8`, van der Pol at 1e-6", "torchdiffeq `dopri5`", "ode_engine", "van der pol", "dopri8 shared"),
    Line("`tsit5`, a network at 1e-6", "torchdiffeq `dopri5`", "ode_engine", "network", "tsit5 shared"),
    Line(
        "exact log-density in the plane, at equal error",
        "the fastest peer",
        "likelihood",
        "exact, 2-D",
        "sdeflow",
        "256 × 2",
    ),
    Line("exact log-density in 8 dimensions", "the fastest peer", "likelihood", "exact, 8-D", "sdeflow", "256 × 8"),
    Line(
        "log-density by probes, 784 dimensions, calm",
        "the fastest peer",
        "likelihood",
        "probes, calm",
        "sdeflow",
        "64 × 784",
    ),
    Line(
        "the same, with `bosh3`", "the fastest peer", "likelihood", "probes, calm", "sdeflow bosh3 shared", "64 × 784"
    ),
    Line(
        "log-density by probes, 784 dimensions, restless",
        "the fastest peer",
        "likelihood",
        "probes, restless",
        "sdeflow",
        "64 × 784",
    ),
    Line(
        "a training step of a continuous flow",
        "the fastest peer",
        "likelihood",
        "training",
        "sdeflow backprop",
        "256 × 2",
    ),
)


def read(results: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Every record by the name of its suite."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}


def table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """How many times less time than its peer each takes, the least and the most over the sizes that were recorded."""
    lines = ["| | beside | sizes | times as fast |", "| --- | --- | --- | --- |"]
    machines = {}
    for line in LINES:
        record = records.get(line.suite, {})
        rows: list[Row] = [
            row
            for row in record.get(line.part, [])
            if line.name in (row.get("figure"), row.get("what")) and row.get("ratio") is not None
        ]
        if not rows:
            continue
        environment = record["environment"]
        machines[f"{environment['processor']}, torch {environment['torch']}"] = None
        shapes = [" × ".join(f"{n:,}" for n in row["shape"]) for row in rows if "shape" in row]
        sizes = shapes[0] if len(shapes) == 1 else f"{shapes[0]} to {shapes[-1]}" if shapes else line.size
        lines.append(f"| {line.text} | {line.beside} | {sizes} | {_range([row['ratio'] for row in rows])} |")
    if len(lines) == 2:
        return "Nothing has been recorded yet."
    measured = "; ".join(machines)
    return "\n".join([*lines, "", f"Measured on one thread of {measured}. Below 1, the other one is faster."])


def _range(ratios: list[float]) -> str:
    low, high = (f"{value:.2g}" if value < 10 else f"{value:.0f}" for value in (min(ratios), max(ratios)))
    return low if low == high else f"{low} to {high}"


KINDS = ("strong", "weak", "ode")


def orders(record: Mapping[str, Any], kind: str) -> str:
    """Claimed and measured orders of one kind; what falls short of a claim is told in bold."""
    stochastic = kind != "ode"
    heads = ["method", *(["noise", "calculus"] if stochastic else []), "claimed", "measured", "95 % interval", ""]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in sorted((r for r in record["rows"] if r["kind"] == kind), key=_place):
        where = [row["noise"], "either" if row["noise"] == "additive" else row["calculus"]] if stochastic else []
        if "message" in row:
            measured = ["", "", row["message"].split(". Methods")[0].replace("|", "\\|")]
        else:
            low, high = row["interval"]
            measured = [f"{row['order']:.2f}", f"{low:.2f} to {high:.2f}", _verdict(row)]
        lines.append(_line([f"`{row['method']}`", *where, f"{row['claim']:g}", *measured]))
    return "\n".join(lines)


def scaling(record: Mapping[str, Any] | None) -> str:
    """What a solve costs that does not grow, what each row, coordinate and step adds, and where the two are equal."""
    if record is None:
        return "Nothing has been recorded yet."
    heads = ["method", "along", "sizes", "does not grow", "each", "bends at"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in record["rows"]:
        sizes = f"{row['sizes'][0]:,} to {row['sizes'][-1]:,}" if len(row["sizes"]) > 1 else f"{row['sizes'][0]}"
        if row["axis"] == "threads":
            fastest = max(row["speed-up"])
            costs = ["", f"{fastest:.2g} times as fast with {row['sizes'][row['speed-up'].index(fastest)]}"]
        else:
            costs = [f"{_rounded(row['ms that do not grow'])} ms", f"{_rounded(row['microseconds for each'])} µs"]
        bends = "" if row["bends at"] is None else _rounded(row["bends at"])
        lines.append(_line([f"`{row['method']}`", row["axis"], sizes, *costs, bends]))
    machine = record["environment"]
    return "\n".join([*lines, "", f"Measured on {machine['processor']}, torch {machine['torch']}."])


def _rounded(size: float) -> str:
    """To two digits: 1234.5 is 1,200, and .4321 is 0.43."""
    return f"{float(f'{size:.2g}'):,.0f}" if size >= 10 else f"{size:.2g}"


def _verdict(row: Row) -> str:
    low, high = row["interval"]
    theirs = row.get("declared")
    remarks = []
    if high < row["claim"] - SLACK:
        remarks.append("**below the claim**")
    if theirs is not None and theirs != row["claim"]:
        held = "not met" if high < theirs - SLACK else "met"
        remarks.append(f"its library declares {theirs:g}: {'**not met**' if held == 'not met' else held}")
    if low > row["claim"] + SLACK:
        remarks.append("more than claimed, here")
    if row["bent"]:
        remarks.append("not yet asymptotic")
    return "; ".join(remarks)


def _place(row: Row) -> tuple[bool, str, str, str]:
    """Native methods first, then by library and name."""
    return ":" in row["method"], row["method"], row["noise"], row["calculus"]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rewritten(text: str, records: Mapping[str, Mapping[str, Any]]) -> str:
    """The text with its marked part made anew."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"there are no lines {BEGIN!r} and {END!r}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{table(records)}\n\n{END}", text, count=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail if something would change")
    options = parser.parse_args()
    before = README.read_text()
    after = rewritten(before, read())
    if options.check:
        sys.exit(0 if before == after else "README.md is not what the records say: python benchmarks/table.py")
    README.write_text(after)


if __name__ == "__main__":
    main()
