"""The record of orders: what an interrupted run has measured is taken over, once, by the same command."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def orders(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("orders", "harness"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import orders

    for suite in ("weak", "ode", "scheduled"):
        monkeypatch.setattr(orders, suite, named(suite, lambda quick: iter(())))
    return orders


def named(name, suite):
    suite.__name__ = name
    return suite


def lines(measured, stop):
    """Three lines; Ctrl-C is pressed while one of them is measured."""

    def suite(quick):
        for method in "abc":

            def measure(method=method):
                if method == stop:
                    raise KeyboardInterrupt
                measured.append(method)
                what = {"method": method, "kind": "strong", "noise": "additive", "calculus": "ito", "claim": 1.0}
                return {**what, "order": 1.0, "interval": [0.9, 1.1]}

            yield (method, "strong", "additive", "ito"), measure

    return named("strong", suite)


@pytest.mark.parametrize(("again", "made"), [([], "abc"), (["--quick"], "ababc")])
def test_what_was_measured_is_taken_over_by_the_same_command(orders, monkeypatch, tmp_path, again, made):
    measured = []
    monkeypatch.setattr(sys, "argv", ["orders.py", "--out", str(tmp_path)])
    monkeypatch.setattr(orders, "strong", lines(measured, "c"))
    with pytest.raises(KeyboardInterrupt):
        orders.main()
    assert not (tmp_path / "orders.json").exists()
    monkeypatch.setattr(sys, "argv", ["orders.py", *again, "--out", str(tmp_path)])
    monkeypatch.setattr(orders, "strong", lines(measured, ""))
    orders.main()
    assert "".join(measured) == made
    assert [row["method"] for row in json.loads((tmp_path / "orders.json").read_text())["rows"]] == list("abc")
    assert [path.name for path in tmp_path.iterdir()] == ["orders.json"]
    orders.main()
    assert "".join(measured) == made + "abc"  # a finished record is made anew
