"""The record of orders: what an interrupted run has measured is taken over, once, by the same command."""

import json
import sys
from pathlib import Path

import pytest
import torch

import sdeflow as sf

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("orders", "harness"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import orders

    return orders


@pytest.fixture
def orders(script, monkeypatch):
    for suite in ("weak", "ode", "scheduled"):
        monkeypatch.setattr(script, suite, named(suite, lambda quick: iter(())))
    return script


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


def test_every_order_that_a_sampler_claims_is_measured(script):
    """Of those that need a schedule; the other suites go by lists of claims themselves."""
    claims = {
        (method.name, kind)
        for method in sf.methods()
        if "schedule" in method.needs
        for kind, claim in (("ode", method.ode_order), ("strong", method.strong_order), ("weak", method.weak_order))
        if claim not in (None, {})
    }
    assert {(name, kind) for (name, kind, *_), _ in script.scheduled(True)} == claims


def test_a_corrector_is_measured_where_nothing_else_errs(script):
    (measure,) = (m for what, m in script.scheduled(True) if what[:2] == ("predictor-corrector", "strong"))
    found = measure()
    assert found["met"] and found["interval"][0] > -0.5 and abs(found["order"]) < 0.25


def test_errors_of_samples_are_averaged_with_their_signs(script):
    """Samples with a deviation of 1 about a bias of order 0 or 1: their root mean square has an order near 0."""
    noise = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dts = [2.0**-k for k in range(4)]
    for claim in (0.0, 1.0):
        bias = torch.tensor(dts, dtype=torch.float64) ** claim
        found = script.row("ddim", "weak", "additive", "ito", claim, dts, bias + noise)
        assert abs(found["order"] - claim) < 0.25 and found["interval"][0] > claim - 0.5
