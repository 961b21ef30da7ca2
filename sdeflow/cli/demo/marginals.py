"""One heat map, three processes: the marginals of the forward SDE, its reversal and its probability flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sdeflow import plotting
from sdeflow.cli.demo.section import Picture, Section, Table
from sdeflow.laws import Along, GaussianMixture
from sdeflow.plotting import DensityPanel
from sdeflow.processes import OrnsteinUhlenbeck
from sdeflow.solvers import Solution, solve

__all__ = ["Crowd", "crowds", "describe"]

WEIGHTS, MEANS, VARIANCES = (0.2, 0.5, 0.3), (-2.6, 0.3, 2.2), (0.04, 0.09, 0.03)
SAVES, STEPS, PATHS, PLACES = 101, 200, 12, 141
REACH = 4.2


@dataclass(frozen=True, eq=False)
class Crowd:
    """Many particles of one process.

    Attributes:
        name: Of the process.
        t: Save times, increasing, ``(T,)``.
        x: ``(T, N)``, the particles' places at those times.
        distance: The Kolmogorov–Smirnov distance to the exact law at each time, ``(T,)``.
        down: Whether the process ran with t decreasing.
    """

    name: str
    t: Tensor
    x: Tensor
    distance: Tensor
    down: bool


def _truth() -> tuple[OrnsteinUhlenbeck, Along]:
    process = OrnsteinUhlenbeck(theta=1.0, mean=0.0, sigma=math.sqrt(2.0), interval=(0.0, 2.0))
    law = GaussianMixture(WEIGHTS, torch.tensor(MEANS, dtype=torch.float64)[:, None], VARIANCES)
    return process, law.along(process)


def crowds(particles: int, seed: int) -> list[Crowd]:
    """Forward from the data, and back from the exact law at t = 2 by the reversed SDE and by the flow."""
    process, truth = _truth()
    end = process.interval[1]
    times = torch.linspace(0.0, end, SAVES, dtype=torch.float64)
    data = truth.sample(0.0, particles, seed=seed)
    noise = truth.sample(end, particles, seed=seed + 1)
    reverse = process.reverse(truth.score, clock="backward")
    forward = solve(process, data, times, steps=STEPS, seed=seed + 2, method="heun")
    backward = solve(reverse, noise, times.flip(0), steps=STEPS, seed=seed + 3, method="heun")
    flow = solve(process.probability_flow(truth.score), noise, times.flip(0), rtol=1e-6)
    return [
        _crowd("forward SDE", forward, truth),
        _crowd("reversed SDE", backward, truth),
        _crowd("probability flow", flow, truth),
    ]


def _crowd(name: str, solution: Solution, truth: Along) -> Crowd:
    down = bool(solution.t[0] > solution.t[-1])
    t, x = solution.t, solution.x[..., 0]
    t, x = (t.flip(0), x.flip(0)) if down else (t, x)
    distance = torch.stack([_kolmogorov(xt, truth.at(float(time))) for time, xt in zip(t, x, strict=True)])
    return Crowd(name, t, x, distance, down)


def _kolmogorov(x: Tensor, law: GaussianMixture) -> Tensor:
    """sup |F_N − F|, F_N the empirical distribution function."""
    x = x.sort().values
    normal = torch.distributions.Normal(law.means[:, 0], law.covariances.sqrt())
    exact = (normal.cdf(x[:, None]) * law.weights).sum(1)
    upper = torch.arange(1, len(x) + 1, dtype=x.dtype) / len(x)
    return torch.maximum((upper - exact).abs(), (upper - 1 / len(x) - exact).abs()).max()


def _density(crowd: Crowd) -> DensityPanel:
    """The particles' histograms, one for each time, lightly smoothed, and a few paths."""
    edges = torch.linspace(-REACH, REACH, PLACES + 1, dtype=torch.float64)
    width = float(edges[1] - edges[0])
    counts = torch.stack([torch.histogram(xt, edges).hist for xt in crowd.x]) / (crowd.x.shape[1] * width)
    kernel = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64).reshape(1, 1, 3)
    smooth = torch.nn.functional.conv1d(counts[:, None], kernel, padding=1)[:, 0]
    order = slice(None, None, -1) if crowd.down else slice(None)
    times, paths = crowd.t.numpy()[order], crowd.x[:, :PATHS].numpy()[order]
    return DensityPanel(crowd.t, (edges[1:] + edges[:-1]) / 2, smooth, times, paths)


def describe(crowd_list: Sequence[Crowd], out: Path) -> Section:
    """The picture and the table of the three crowds."""
    plotting.heat_map(
        {f"{crowd.name} {'←' if crowd.down else '→'}": _density(crowd) for crowd in crowd_list},
        x_label="time t (data at 0, noise at 2)",
    ).savefig(out / "marginals.png")
    count = crowd_list[0].x.shape[1]
    critical = 1.63 / math.sqrt(count)
    table = Table(
        "One law, three processes",
        ("process", "distance at t = 0", "at t = 1", "at t = 2", "greatest"),
        [
            [
                c.name,
                *(f"{float(c.distance[k]):.4f}" for k in (0, SAVES // 2, SAVES - 1)),
                f"{float(c.distance.max()):.4f}",
            ]
            for c in crowd_list
        ],
        f"Kolmogorov–Smirnov distances between {count:,} particles and the exact law. Exact samples would stay below "
        f"{critical:.4f} "
        f"with 99 % probability at a given time; the greatest of {SAVES} times is a little larger.",
    )
    return Section(
        "marginals",
        "One law, three processes",
        "A mixture of three normal distributions on the line, under an Ornstein–Uhlenbeck process. Each panel is the "
        f"histogram of {count:,} "
        "simulated particles, not the formula; the lines are some of them.",
        [table],
        [
            Picture(
                "marginals.png",
                "The same heat map three times: forward SDE, reversed SDE and probability flow have the same law at "
                "every time. Their paths "
                "differ: those of the SDEs are rough and those of the flow smooth, and paths of the flow never cross. "
                "Dots mark where paths start.",
                "Three heat maps of a density over time, three peaks at t = 0 that merge into one at t = 2, with "
                "sample paths.",
            )
        ],
        {
            "particles": count,
            "critical": critical,
            "distances": {
                c.name: {"start": float(c.distance[0]), "end": float(c.distance[-1]), "max": float(c.distance.max())}
                for c in crowd_list
            },
        },
    )
