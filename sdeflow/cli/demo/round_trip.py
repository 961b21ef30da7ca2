"""Digits to noise and back: the reversed SDE on both clocks, and the probability flow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sdeflow import plotting
from sdeflow.cli.demo.section import Picture, Section, Table, number
from sdeflow.cli.demo.setting import Setting
from sdeflow.solvers import Solution, solve

__all__ = ["RoundTrip", "describe", "there_and_back"]

SAVES = 51
SHOWN = 1  # the digit of the strip
METHOD = "heun"  # the noise is additive: Heun is an Itô method too, and its bias is far below Euler–Maruyama's here


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """Four solves: there, and back in three ways.

    Attributes:
        forward: Held-out digits to noise.
        flipped: Back by the reversed SDE on s = 1 − t, running forward.
        backward: Back by the reversed SDE on t, running down; the same increments as ``flipped``.
        flow: Back by the probability flow.
        drawn: As many draws of the law itself.
    """

    forward: Solution
    flipped: Solution
    backward: Solution
    flow: Solution
    drawn: Tensor

    @property
    def clock_difference(self) -> float:
        """The largest difference between the two clocks at the end, over pixels and digits."""
        return float((self.flipped.final - self.backward.final).abs().max())


def there_and_back(setting: Setting) -> RoundTrip:
    """Noise some held-out digits, and bring what is left of them back."""
    sizes, process, score = setting.sizes, setting.process, setting.truth.score
    times = torch.linspace(0.0, 1.0, SAVES, dtype=torch.float64)
    digits = setting.held_out.images[: sizes.returned]
    forward = solve(process, digits, times, steps=sizes.steps, seed=setting.seed, method=METHOD)
    noise, back = forward.final, {"steps": sizes.steps, "seed": setting.seed + 1, "method": METHOD}
    flipped = solve(process.reverse(score, clock="flipped"), noise, times, **back)  # type: ignore[arg-type]
    backward = solve(process.reverse(score, clock="backward"), noise, times.flip(0), **back)  # type: ignore[arg-type]
    flow = solve(process.probability_flow(score), noise, times.flip(0))
    return RoundTrip(forward, flipped, backward, flow, setting.law.draw(len(digits), seed=setting.seed + 2))


def describe(setting: Setting, trip: RoundTrip, out: Path) -> Section:
    """The pictures and the table of the round trip."""
    _draw_strips(trip, out / "round_trip.png")
    _draw_lines(setting, trip, out / "trajectories.png")
    _draw_samples(setting, trip, out / "samples.png")
    groups = {
        "drawn from the law": trip.drawn,
        "reversed SDE, flipped clock": trip.flipped.final,
        "reversed SDE, backward clock": trip.backward.final,
        "probability flow": trip.flow.final,
        "held-out digits": trip.forward.x[0],
    }
    figures = {name: _closeness(setting, x) for name, x in groups.items()}
    rows = [[name, f"{f['log_prob']:.1f} ± {f['stderr']:.1f}", f"{f['nearest']:.3f}"] for name, f in figures.items()]
    count = len(trip.drawn)
    table = Table(
        "Digits to noise and back",
        ("digits", "mean log p [nats]", "distance to nearest"),
        rows,
        f"{count} digits each. log p is that of the law at t = 0, ± one standard error; the distance is the RMS over "
        "pixels to the "
        f"nearest digit that the law is made of (its bandwidth is {setting.bandwidth:.3f}). Samples should agree with "
        "draws. "
        f"The two clocks were driven by one seed and differ by at most {number(trip.clock_difference, 2)} in any "
        "pixel.",
    )
    return Section(
        "round_trip",
        "Digits to noise and back",
        "Held-out digits run through the variance-preserving SDE until nothing is left of them. The reversed SDE, "
        "with the "
        "exact score of the law, brings the noise back to digits: on the flipped clock, where it is an ordinary SDE, "
        "and on the "
        "backward clock, where t decreases. The probability flow does the same without noise. The SDEs take "
        f"{setting.sizes.steps} steps "
        f"of {METHOD}, the flow adaptive ones.",
        [table],
        [
            Picture(
                "round_trip.png",
                "Top: one digit on its way to noise. Below: the same noise brought back. The two clocks show the same "
                "images, since "
                "one seed drives both; the flow, without noise of its own, ends at another digit. None of them is the "
                "digit we "
                "started from: noise has forgotten it, and what is reversed is the law, not the path.",
                "Four rows of images of a digit at nine times: the forward process ends in noise, the three others "
                "turn it into digits.",
            ),
            Picture(
                "trajectories.png",
                "The paths of all digits along their first principal axis; the arrows say which way time runs in the "
                "solve, and three "
                "paths are coloured. Stochastic paths of the forward and the reversed process look alike, as they "
                "should: it is one path "
                "law. Both clocks give the same lines. The paths of the flow are smooth, with the same spread at "
                "every time.",
                "Four panels of paths over time t: forward, reversed on two clocks, probability flow.",
            ),
            Picture(
                "samples.png",
                "Held-out digits, draws of the kernel density itself, and digits made from noise. The grain is the "
                "law's own: it smooths each digit "
                f"by a normal distribution with standard deviation {setting.bandwidth:.2f}. Samples of the SDE and of "
                "the flow should look like draws.",
                "Rows of digits: real ones, draws of the law, samples of the reversed SDE, samples of the flow.",
            ),
        ],
        {
            "count": count,
            "steps": setting.sizes.steps,
            "method": METHOD,
            "clock_difference": trip.clock_difference,
            "groups": figures,
        },
    )


def _closeness(setting: Setting, x: Tensor) -> dict[str, float]:
    """How likely digits are under the law, and how far from its centres they lie."""
    log_prob = setting.law.log_prob(x.double())
    distance = torch.cdist(x.flatten(1).double(), setting.train.images.flatten(1).double()).amin(1)
    return {
        "log_prob": float(log_prob.mean()),
        "stderr": float(log_prob.std() / len(x) ** 0.5),
        "nearest": float(distance.mean()) / x[0].numel() ** 0.5,
    }


def _draw_strips(trip: RoundTrip, path: Path) -> None:
    shown = torch.tensor([0, 3, 6, 10, 15, 20, 25, 35, 50])
    ways = [trip.forward.x, trip.flipped.x.flip(0), trip.backward.x.flip(0), trip.flow.x.flip(0)]
    figure = plotting.image_grid(
        torch.stack([x[shown, SHOWN] for x in ways]),
        row_labels=["forward →", "← reversed, flipped clock", "← reversed, backward clock", "← flow"],
        column_labels=[f"t = {float(t):.2f}" for t in trip.forward.t[shown]],
    )
    figure.savefig(path)


def _draw_lines(setting: Setting, trip: RoundTrip, path: Path) -> None:
    points = setting.train.images.flatten(1)
    axis = torch.linalg.svd(points - points.mean(0), full_matrices=False).Vh[0]

    def along(solution: Solution) -> Tensor:
        projected: Tensor = solution.x.flatten(2) @ axis
        return projected

    figure = plotting.trajectories(
        {
            "forward": (trip.forward.t, along(trip.forward)),
            "reversed, flipped clock": (1 - trip.flipped.t, along(trip.flipped)),
            "reversed, backward clock": (trip.backward.t, along(trip.backward)),
            "probability flow": (trip.flow.t, along(trip.flow)),
        },
        x_label="time t (data at 0, noise at 1)",
        y_label="first principal component",
    )
    figure.savefig(path)


def _draw_samples(setting: Setting, trip: RoundTrip, path: Path) -> None:
    figure = plotting.image_grid(
        [trip.forward.x[0, :14], trip.drawn[:14], trip.flipped.final[:14], trip.flow.final[:14]],
        row_labels=["held-out digits", "draws of the law", "reversed SDE", "probability flow"],
    )
    figure.savefig(path)
