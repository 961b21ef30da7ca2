"""Where a cost bends: the size at which what grows has come up to what does not."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("scaling", "harness"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import scaling

    return scaling


@pytest.mark.parametrize(("a", "b"), [(2.0, 0.01), (50.0, 3.0), (0.0, 0.2), (4.0, 0.0)])
def test_the_bend_is_found(scaling, a, b):
    sizes = [2**k for k in range(16)]
    wobble = [1.02, 0.98]  # two per cent, to and fro
    found = scaling.bend(sizes, [(a + b * n) * wobble[k % 2] for k, n in enumerate(sizes)])
    assert found == pytest.approx((a, b), rel=0.03, abs=0.03 * (a + b))


def test_a_sweep_goes_past_its_bend(scaling, monkeypatch):
    """On a clock that is a formula: 3 ms and a hundredth for each row, so it bends at 300, and goes on to 8 times the least."""
    monkeypatch.setattr(scaling, "solver", lambda method: lambda batch, dimension, steps: 3.0 + 0.01 * batch)
    monkeypatch.setattr(scaling, "side_by_side", lambda calls, repeats: {name: call() for name, call in calls.items()})
    row = scaling.sweep("any", "batch", quick=False)
    assert row["bends at"] == pytest.approx(300) and row["sizes"] == [2**k for k in range(len(row["sizes"]))]
    assert row["ms"][-2] > 8 * row["ms"][0] > row["ms"][-3] and row["sizes"][-1] == 8192  # the second above
