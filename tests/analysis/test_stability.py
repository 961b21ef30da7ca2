"""Amplification factors against closed forms, and the regions that they make."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf

amplification = sf.analysis.amplification
properties = settings(derandomize=True, deadline=None, max_examples=25)
rates = st.floats(-4, 1)
squares = st.floats(0, 5)

# E|X₁/X₀|² of one step on dX = λX dt + μX dW (Itô), with a = λh and b = μ²h.
CLOSED = {
    "euler-maruyama": lambda a, b: (1 + a) ** 2 + b,
    "torchsde:milstein": lambda a, b: (1 + a) ** 2 + b + b**2 / 2,
    # Heun in Stratonovich form with z = (a − b/2) + √b W multiplies by 1 + z + z²/2.
    "heun": lambda a, b: heun(a - b / 2, b),
}


def heun(c, b):
    """E (1 + z + z²/2)² for z ~ N(c, b)."""
    m1, m2, m3, m4 = c, c**2 + b, c**3 + 3 * c * b, c**4 + 6 * c**2 * b + 3 * b**2
    return 1 + 2 * m1 + 2 * m2 + m3 + m4 / 4


@pytest.mark.parametrize("method", CLOSED)
@properties
@given(a=rates, b=squares)
def test_mean_square_amplification_is_exact(method, a, b):
    assert amplification(method, a, b).item() == pytest.approx(CLOSED[method](a, b), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(
    ("method", "polynomial"),
    [
        ("euler", lambda z: 1 + z),
        ("heun2", lambda z: 1 + z + z**2 / 2),
        ("rk4", lambda z: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24),
    ],
)
@properties
@given(re=rates, im=st.floats(-4, 4))
def test_deterministic_amplification_is_the_polynomial(method, polynomial, re, im):
    name = "torchdiffeq:heun2" if method == "heun2" else method
    assert amplification(name, re, im).item() == pytest.approx(abs(polynomial(complex(re, im))) ** 2, rel=1e-10)


def test_the_limit_of_small_steps_is_the_equation():
    """R = 1 + (2λ + μ²) h + O(h²) for every method of weak order 1, with Lévy area or without."""
    h = 1e-5
    for method in ("euler-maruyama", "heun", "euler-heun", "torchsde:milstein", "torchsde:srk", "torchsde:midpoint"):
        assert (amplification(method, -0.7 * h, 0.5 * h).item() - 1) / h == pytest.approx(-0.9, abs=1e-3), method


def test_regions():
    euler = sf.analysis.stability("euler-maruyama", (-2.5, 0.5), (0.0, 2.0), points=41)
    expected = (1 + euler.drift) ** 2 + euler.other[:, None]
    assert torch.allclose(euler.amplification, expected, atol=1e-12)
    assert not (euler.stable & ~euler.should_be_stable).any() and (euler.should_be_stable & ~euler.stable).any()
    rk4 = sf.analysis.stability("rk4", points=81)
    assert (
        not rk4.stochastic and rk4.stable[40][rk4.drift < -2.8].logical_not().all()
    )  # ends at −2.785 on the real axis


def test_it_draws(tmp_path):
    sf.analysis.stability("euler-maruyama", points=21).plot().savefig(tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: amplification("euler-maruyama", -1.0, -0.5), "negative"),
        (lambda: amplification("dopri5", -1.0, 0.0), "chooses its steps"),
        (lambda: amplification("torchdiffeq:explicit_adams", -1.0, 0.0), "earlier steps"),
        (lambda: amplification("euler-mayurama", -1.0, 0.0), "'euler-maruyama'"),
        (lambda: sf.analysis.stability("rk4", (1.0, -1.0)), "empty range"),
        (lambda: sf.analysis.stability("rk4", points=1), "points=1"),
    ],
)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises(sf.SdeflowError, match=words):
        call()
