"""The two clocks of a reversal are one process: with one seed they have one trajectory.

A solve on the backward clock is carried out on the flipped one, so agreement of the two alone would not show a mistake that
both share; the trajectory is therefore also stepped here by hand, with t decreasing, from the coefficients of the original.
"""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_sdes import CLOCKS, NOISES, Drawn, dimensions, matrix, seeds

import sdeflow as sf

properties = settings(derandomize=True, deadline=None, max_examples=25)
each_noise = pytest.mark.parametrize("noise", NOISES)
each_calculus = pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
CELLS = 20
# Explicit methods: the equation of an implicit step need not have a solution.
NATIVE = [name for name, method in sf.methods().items() if method.engine == "native" and method.drift_evaluations]


@st.composite
def solves(draw):
    """An interval that starts elsewhere than at 0, and save times from one end to somewhere inside, as fractions of it."""
    start = draw(st.sampled_from([-1, 1])) * draw(st.floats(0.05, 2, width=64))
    span = draw(st.floats(0.2, 1.2, width=64))
    ticks = draw(st.lists(st.integers(1, CELLS), min_size=2, max_size=4, unique=True))
    return (start, start + span), [0.0, *(tick / CELLS for tick in sorted(ticks))]


def tame(seed, size, noise, additive, **options):
    """With a score that decays like 1/|x|, so that Σ∇log p grows linearly and no draw explodes."""
    case = Drawn(seed, size, noise, additive, **options)
    score = case.score
    case.score = lambda t, x: score(t, x) / (1 + x.square().sum(1, keepdim=True))
    return case


def close(value, expected, tolerance=1e-9):
    scale = max(1.0, float(expected.abs().max()))
    assert value.isfinite().all()
    assert (value - expected).abs().max() <= tolerance * scale


def both(case, interval, fractions, **options):
    """The solution on the flipped and on the backward clock, with save times in the order of the solve."""
    start, end = interval
    span = end - start
    flipped, backward = (case.sde.reverse(case.score, clock=clock) for clock in CLOCKS)
    return (
        sf.solve(flipped, case.x, [start + u * span for u in fractions], **options),
        sf.solve(backward, case.x, [end - u * span for u in fractions], **options),
    )


@each_calculus
@each_noise
@properties
@given(seed=seeds, size=dimensions, additive=st.booleans(), solve=solves(), data=st.data())
def test_with_one_seed_both_clocks_give_one_trajectory(noise, calculus, seed, size, additive, solve, data):
    interval, fractions = solve
    case = tame(seed, size, noise, additive, calculus=calculus, interval=interval)
    fitting = set(sf.methods().fitting(case.sde, adaptive=False))
    if noise == "diagonal" and not additive:  # a coordinate of this noise depends on all, which some methods look at
        fitting = {name for name in fitting if "general" in sf.methods()[name].strong_order}
    options = {
        "method": data.draw(st.sampled_from([name for name in NATIVE if name in fitting])),
        **data.draw(st.sampled_from([{"steps": 7}, {"dt": 0.15 * (interval[1] - interval[0])}])),
    }
    flipped, backward = both(case, interval, fractions, seed=seed % 1000, **options)
    assert flipped.x.shape == (len(fractions), *case.x.shape)
    close(flipped.x, backward.x)
    close(torch.as_tensor(flipped.t), sum(interval) - torch.as_tensor(backward.t), 1e-12)
    # Another seed is another trajectory, so the noise takes part
    other = both(case, interval, fractions, seed=seed % 1000 + 1, **options)[1]
    assert (other.final - backward.final).abs().max() > 1e-3


def by_hand(case, interval, fractions, path, nodes):
    """x(t − h) = x − h f⁻(t, x) + σ(t, x) ΔW: Euler in Itô form, Heun in Stratonovich form.

    In Itô form f⁻ = f − ∇·Σ − Σ∇log p. With f the Stratonovich drift, the Itô drift is f + ½ Σ_k (∂σ_k)σ_k, and the
    correction of the reversal, which runs backward, has the other sign: f⁻ = f + Σ_k (∂σ_k)σ_k − ∇·Σ − Σ∇log p.
    """
    sde, x, saved = case.sde, case.x, [case.x]
    start, end = interval
    saves = [u * (end - start) for u in fractions[1:]]

    def reversed_drift(t, x):
        columns = matrix(sde, t, x).expand(*x.shape, -1)
        sigma_score = torch.einsum("bik,bjk,bj->bi", columns, columns, case.score(t, x))
        return sde.drift(t, x) - sigma_score - divergence_less_corrections(sde, t, x)

    def move(t, x, h, dw):
        return -h * reversed_drift(t, x) + torch.einsum("bik,bk->bi", matrix(sde, t, x), dw.expand(len(x), -1))

    for left, right in pairwise(nodes):
        h, t = right - left, end - left
        dw = path(start + left, start + right)
        step = move(t, x, h, dw)
        x = x + (step if sde.calculus == "ito" else 0.5 * (step + move(t - h, x + step, h, dw)))
        if any(abs(right - save) < 1e-9 for save in saves):
            saved.append(x)
    return torch.stack(saved)


def divergence_less_corrections(sde, t, x, h=1e-4):
    """∇·Σ, less Σ_k (∂σ_k)σ_k in Stratonovich form, by central differences, exact for columns linear in x."""
    columns = matrix(sde, t, x)
    total = torch.zeros_like(x)
    for j in range(x.shape[1]):
        step = torch.zeros_like(x)
        step[:, j] = h
        up, down = matrix(sde, t, x + step), matrix(sde, t, x - step)
        total += (up @ up.mT - down @ down.mT)[:, :, j] / (2 * h)
        if sde.calculus == "stratonovich":
            total -= torch.einsum("bik,bk->bi", up - down, columns[:, j]) / (2 * h)
    return total


@each_calculus
@each_noise
@properties
@given(seed=seeds, size=dimensions, additive=st.booleans(), solve=solves())
def test_the_trajectory_is_the_one_stepped_backward_by_hand(noise, calculus, seed, size, additive, solve):
    interval, fractions = solve
    case = tame(seed, size, noise, additive, calculus=calculus, interval=interval)
    start, end = interval
    span = end - start
    shape = {"diagonal": tuple(case.x.shape), "scalar": (len(case.x), 1)}.get(noise)
    shape = shape or (len(case.x), matrix(case.sde, start, case.x).shape[2])
    nodes = [span * k / CELLS for k in range(round(CELLS * fractions[-1]) + 1)]
    path = sf.BrownianPath(shape, start, end, seed=seed % 1000, cells=CELLS, dtype=torch.float64)
    expected = by_hand(case, interval, fractions, path, nodes)
    method = "euler-maruyama" if calculus == "ito" else "heun"
    for clock in CLOCKS:
        axis = {"flipped": lambda u: start + u, "backward": lambda u: end - u}[clock]
        solution = sf.solve(
            case.sde.reverse(case.score, clock=clock),
            case.x,
            [axis(u * span) for u in fractions],
            steps=[axis(u) for u in nodes],
            method=method,
            brownian=path,
        )
        close(solution.x, expected, 1e-6)


def test_a_flipped_process_is_a_view_of_its_original():
    """What is set later is seen, and its parameters are counted once."""
    ode = sf.processes.VariancePreserving().probability_flow(torch.nn.Linear(2, 2))
    flipped = ode.flip()
    assert len(list(flipped.parameters())) == len(list(ode.parameters())) == 2
    assert flipped.semi_linear and flipped.direction == -ode.direction and flipped.flip() is ode
    ode.schedule, ode.confined = None, False
    assert flipped.schedule is None and not flipped.semi_linear and not flipped.confined
