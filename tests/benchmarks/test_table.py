"""Tables are what the records say: those of the README, and those of the page of orders."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("benchmarks_table", ROOT / "benchmarks" / "table.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks
    spec.loader.exec_module(module)
    return module


ENVIRONMENT = {"processor": "a machine", "torch": "2.0"}


def record(*rows, part="rows"):
    return {"environment": ENVIRONMENT, part: list(rows)}


def test_the_readme_is_what_the_records_say(table):
    """If this fails: python benchmarks/table.py"""
    text = (ROOT / "README.md").read_text()
    assert table.rewritten(text, table.read()) == text


def test_a_line_sums_up_its_rows_and_what_is_not_recorded_is_left_out(table):
    figure = "sra1 / torchsde srk"
    rows = [{"figure": figure, "shape": [64, 2], "ratio": 22.4}, {"figure": figure, "shape": [64, 3072], "ratio": 6.94}]
    text = table.table({"sde_engine": record(*rows, {"figure": figure, "shape": [1, 1], "not run": "no reason"})})
    assert text.count("\n| `") == 1 and "| 64 × 2 to 64 × 3,072 | 6.9 to 22 |" in text
    assert "a machine, torch 2.0" in text
    assert table.table({}) == "Nothing has been recorded yet."
    worse = table.table({"sde_engine": record({**rows[0], "ratio": 0.5})})
    assert "| 64 × 2 | 0.5 |" in worse  # what is slower is told too


def test_every_line_names_rows_that_exist(table):
    """A suite that has been recorded has the rows that the table's lines name: none is dropped by a change of words."""
    records = table.read()
    for line in table.LINES:
        if line.suite in records:
            names = {row.get("figure", row.get("what")) for row in records[line.suite][line.part]}
            assert line.name in names, line


def test_only_the_marked_part_is_rewritten(table):
    text = f"before\n{table.BEGIN}\nold\n{table.END}\nafter"
    new = table.rewritten(text, {})
    assert new.startswith("before\n") and new.endswith("\nafter") and "old" not in new
    assert table.rewritten(new, {}) == new
    with pytest.raises(SystemExit, match="no lines"):
        table.rewritten("nothing marked", {})


ROW = {
    "method": "a", "kind": "strong", "noise": "diagonal", "calculus": "ito", "claim": 1.0, "order": 1.0,
    "interval": [0.9, 1.1], "bent": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "|  |"),
        ({"interval": [0.4, 0.6]}, "**below the claim**"),
        ({"interval": [0.8, 0.92]}, "|  |"),
        ({"declared": 1.5}, "its library declares 1.5: **not met**"),
        ({"declared": 0.5}, "its library declares 0.5: met"),
        ({"interval": [1.3, 1.6]}, "more than claimed"),
        ({"bent": True}, "not yet asymptotic"),
    ],
)
def test_what_falls_short_is_told(table, change, said):
    last = table.orders(record({**ROW, **change}), "strong").splitlines()[-1]
    assert last.startswith("| `a` | diagonal | ito | 1 | 1.00 |") and said in last


def test_a_method_that_could_not_be_measured_says_why(table):
    text = table.orders(record({**ROW, "message": "it cannot. Methods that can: b."}), "strong")
    assert text.endswith("| 1 |  |  | it cannot |")


def test_every_claim_of_the_registry_has_a_row(table):
    """The page of orders leaves no method out, and no class of noise that it claims an order for."""
    import sdeflow as sf

    recorded = {(row["method"], row["kind"], row["noise"]) for row in table.read()["orders"]["rows"]}
    for method in sf.methods():
        if method.refusal:
            continue
        noisy = "H" not in method.needs or "schedule" not in method.needs  # a corrector's order 0 has a test of its own
        wanted = {(method.name, "ode", "none")} if method.ode_order is not None else set()
        wanted |= {(method.name, "strong", noise) for noise in method.strong_order if noisy}
        wanted |= {(method.name, "weak", noise) for noise in method.weak_order if noisy}
        assert wanted <= recorded, wanted - recorded


def test_records_are_json_with_an_environment():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert "torch" in json.loads(path.read_text())["environment"], path


def test_scaling_says_where_costs_bend(table):
    row = {
        "method": "a",
        "axis": "batch",
        "sizes": [1, 2, 4],
        "ms that do not grow": 3.0,
        "microseconds for each": 2.43,
    }
    threads = {"method": "a", "axis": "threads", "sizes": [1, 2, 4], "speed-up": [1.0, 1.9, 1.8], "bends at": 2}
    lines = table.scaling(record({**row, "bends at": 1234.5}, {**row, "bends at": None}, threads)).splitlines()
    assert lines[2] == "| `a` | batch | 1 to 4 | 3 ms | 2.4 µs | 1,200 |"
    assert lines[3].endswith("| 2.4 µs |  |")
    assert "1.9 times as fast with 2 | 2 |" in lines[4] and "a machine" in lines[-1]
    assert table.scaling(None) == "Nothing has been recorded yet."
