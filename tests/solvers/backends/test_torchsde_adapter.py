"""The clock on which torchsde adds up its fixed steps without rounding."""

from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.solvers.backends.torchsde_adapter import StepClock
from sdeflow.solvers.grid import fixed_grid

seeded = settings(derandomize=True, deadline=None, max_examples=60)


def clock(start, span, steps):
    process = sf.SDE(lambda t, x: -x, lambda t, x: 1.0, interval=(start, start + span))
    return StepClock(process, torch.zeros(2, 1), fixed_grid([start, start + span], None, steps), 0, steps)


@seeded
@given(start=st.floats(-3, 3), span=st.floats(1e-3, 1e3), steps=st.integers(1, 5000))
def test_multiples_of_the_step_have_no_rounding(start, span, steps):
    on = clock(start, span, steps)
    u = 0.0
    for k in range(steps):
        assert on.node(u) == k
        for quarter in (1, 2, 3):
            assert Fraction(u + 0.25 * quarter * on.h) == (k + Fraction(quarter, 4)) * Fraction(on.h)
        u += on.h
    assert Fraction(u) == steps * Fraction(on.h)
    assert abs(Fraction(on.h) * steps / (Fraction(start + span) - Fraction(start)) - 1) <= steps * 2.0**-49


@seeded
@given(start=st.floats(-3, 3), span=st.floats(1e-3, 10), steps=st.integers(1, 3000), k=st.integers(0, 2999))
def test_the_true_time_is_that_of_the_node(start, span, steps, k):
    on, k = clock(start, span, steps), k % steps
    expected = start + span * (k + 0.25) / steps
    assert abs(float(on(k * on.h + 0.25 * on.h)) - expected) <= 4e-7 * max(abs(start), abs(start + span))
    assert len(on._rows) == 1  # a quarter of a step is one place, whichever step it is
