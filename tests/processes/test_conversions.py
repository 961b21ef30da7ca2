"""Score, velocity, data and noise from one another: round trips, formulas, and a mixture that knows all four."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.processes import CustomSchedule, LinearSchedule, convert
from sdeflow.processes.conversions import QUANTITIES
from sdeflow.processes.schedules import CosineVPSchedule, OUSchedule, SubVPSchedule, VESchedule, VPSchedule

properties = settings(derandomize=True, deadline=None, max_examples=25)
SCHEDULES = {
    "vp": VPSchedule(0.1, 20.0),
    "sub-vp": SubVPSchedule(0.1, 20.0),
    "cosine": CosineVPSchedule((0.0, 0.999)),
    "ve": VESchedule(0.05, 20.0),
    "ou": OUSchedule(0.7, 1.3),
    "brownian": OUSchedule(0.0, 0.8),
    "linear": LinearSchedule(),
    "custom": CustomSchedule(lambda t: 1 - t**2, lambda t: t * (1 + t)),
}
SCHEDULES |= {f"flipped {name}": schedule.flip((0.0, 1.0)) for name, schedule in SCHEDULES.items()}
everywhere = pytest.mark.parametrize("name", SCHEDULES)
times = st.floats(0.05, 0.95, width=64)
seeds = st.integers(0, 2**31)


def two_states(seed, *shape):
    return torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(value, expected, tolerance=1e-10):
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


@everywhere
@properties
@given(t=times, seed=seeds)
def test_all_conversions_round_trip(name, t, seed):
    x, value = two_states(seed, 3, 2)
    for given_ in QUANTITIES:
        for wanted in QUANTITIES:
            there = convert(SCHEDULES[name], t, x, value, given=given_, wanted=wanted)
            back = convert(SCHEDULES[name], t, x, there, given=wanted, wanted=given_)
            close(back, value)
            if given_ == wanted:
                close(there, value, 1e-14)


@everywhere
@properties
@given(t=times, seed=seeds)
def test_a_chain_of_conversions_is_one_conversion(name, t, seed):
    x, value = two_states(seed, 3, 2)
    schedule = SCHEDULES[name]
    for last in QUANTITIES:
        chained = value
        for one, other in (("noise", "velocity"), ("velocity", "data"), ("data", "score"), ("score", last)):
            chained = convert(schedule, t, x, chained, given=one, wanted=other)
        close(chained, convert(schedule, t, x, value, given="noise", wanted=last), 1e-9)


@everywhere
@properties
@given(t=times, seed=seeds)
def test_each_quantity_is_its_definition(name, t, seed):
    """From a pair (data, noise): x = a data + s noise, velocity = ȧ data + ṡ noise, score = −noise/s."""
    data, noise = two_states(seed, 3, 2)
    schedule, time = SCHEDULES[name], torch.tensor(t, dtype=torch.float64)
    a, s = schedule.a(time), schedule.s(time)
    x = a * data + s * noise
    velocity = schedule.a_dot(time) * data + schedule.s_dot(time) * noise
    exact = {"data": data, "noise": noise, "velocity": velocity, "score": -noise / s}
    for given_ in QUANTITIES:
        for wanted in QUANTITIES:
            close(convert(schedule, t, x, exact[given_], given=given_, wanted=wanted), exact[wanted], 1e-9)


@properties
@given(t=st.floats(0.0, 0.999, width=64), seed=seeds)
def test_the_score_of_flow_matching(t, seed):
    x, v = two_states(seed, 4, 3)
    close(convert(LinearSchedule(), t, x, v, given="velocity", wanted="score"), (t * v - x) / (1 - t))
    close(convert(LinearSchedule(), t, x, v, given="velocity", wanted="data"), x + (1 - t) * v)
    close(convert(LinearSchedule(), t, x, v, given="velocity", wanted="noise"), x - t * v)


@everywhere
@properties
@given(t=times, seed=seeds)
def test_a_mixture_knows_all_four(name, t, seed):
    law = sf.laws.GaussianMixture([1.0, 2.0], [[-1.0, 0.5], [1.0, 1.0]], [0.3, 0.7])
    truth = law.along(SCHEDULES[name])
    x, _ = two_states(seed, 5, 2)
    exact = {
        "data": truth.denoiser(t, x),
        "noise": truth.noise(t, x),
        "velocity": truth.velocity(t, x),
        "score": truth.score(t, x),
    }
    for given_ in QUANTITIES:
        for wanted in QUANTITIES:
            close(convert(SCHEDULES[name], t, x, exact[given_], given=given_, wanted=wanted), exact[wanted], 1e-8)


@everywhere
def test_one_time_per_row(name):
    x, value = two_states(0, 4, 2, 2)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9])
    for given_ in QUANTITIES:
        for wanted in QUANTITIES:
            whole = convert(SCHEDULES[name], t, x, value, given=given_, wanted=wanted)
            for i in range(4):
                row = slice(i, i + 1)
                one = convert(SCHEDULES[name], t[i], x[row], value[row], given=given_, wanted=wanted)
                close(whole[row], one, 1e-12)


def test_the_table_of_finite_ends_holds():
    line, vp = LinearSchedule(), SCHEDULES["vp"]
    x, value = two_states(1, 3, 2)
    cases = {
        (line, 0.0, "velocity"): ("data", "noise", "score"),
        (line, 1.0, "velocity"): ("data", "noise"),
        (line, 1.0, "noise"): ("data", "velocity"),
        (line, 0.0, "data"): ("noise", "score", "velocity"),
        (vp, 0.0, "score"): ("data", "noise"),
        (vp, 1.0, "score"): ("data", "noise", "velocity"),
    }
    for (schedule, t, given_), finite in cases.items():
        for wanted in QUANTITIES:
            answer = convert(schedule, t, x, value, given=given_, wanted=wanted)
            assert bool(answer.isfinite().all()) == (wanted in finite or wanted == given_), (t, given_, wanted)
    close(convert(line, 0.0, x, value, given="velocity", wanted="score"), -x)
    close(convert(vp, 0.0, x, value, given="score", wanted="data"), x)


def test_the_answer_has_the_dtype_of_the_state():
    x, value = two_states(2, 3, 2)
    single = convert(SCHEDULES["vp"], 1e-6, x.float(), value.float(), given="noise", wanted="data")
    assert single.dtype is torch.float32
    exact = convert(SCHEDULES["vp"], 1e-6, x, value, given="noise", wanted="data")
    torch.testing.assert_close(single.double(), exact, rtol=1e-6, atol=1e-6)


def test_unknown_words_are_refused_with_the_nearest():
    x = torch.zeros(1, 1)
    with pytest.raises(ArgumentError, match=r"wanted='scores' is not known. Did you mean 'score'\?"):
        convert(LinearSchedule(), 0.5, x, x, given="data", wanted="scores")
    with pytest.raises(ArgumentError, match="given='speed' is not known"):
        convert(LinearSchedule(), 0.5, x, x, given="speed", wanted="score")
