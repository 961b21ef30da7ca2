"""Methods against each other on the same reversed process: what an error costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sdeflow import plotting
from sdeflow.brownian import BrownianPath
from sdeflow.cli.demo.section import Picture, Section, Table, number
from sdeflow.cli.demo.setting import Setting
from sdeflow.errors import SdeflowError
from sdeflow.plotting import WorkPoint
from sdeflow.processes import Process
from sdeflow.solvers import Solution, methods, solve

__all__ = ["FLOW_METHODS", "SDE_METHODS", "Lane", "Runner", "describe", "enter", "flow_lane", "sde_lane", "table"]

SDE_METHODS = (
    "euler-maruyama",
    "heun",
    "torchsde:euler",
    "torchsde:midpoint",
    "torchsde:reversible_heun",
    "torchsde:srk",
)
FLOW_METHODS = ("euler", "heun", "rk4", "tsit5", "dopri5", "torchdiffeq:bosh3", "torchdiffeq:dopri5")
REFERENCE = "torchsde:srk"  # strong order 1.5 where the noise is additive
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
LOST = 0.1  # RMS over pixels: beyond, a path has gone to another digit
REPEATS, BRIEF = 3, 0.05  # runs shorter than BRIEF seconds are timed again


@dataclass(frozen=True)
class Run:
    """One method with one step rule.

    Attributes:
        rule: ``"32 steps"`` or ``"rtol 1e-3"``.
        point: Evaluations, seconds (the median of the repeats), the median over samples of the error.
        rms: The root mean square over samples, which a few lost paths dominate.
        lost: The part of the samples that are farther than ``LOST`` from the reference.
    """

    rule: str
    point: WorkPoint
    rms: float
    lost: float


@dataclass(frozen=True)
class Runner:
    """A method's runs, and why it has no more, if it failed."""

    method: str
    runs: Sequence[Run]
    failure: str = ""


@dataclass(frozen=True)
class Lane:
    """All methods on one process, from the same noise, along the same Brownian path."""

    title: str
    runners: Sequence[Runner]


Rule = tuple[str, dict[str, Any]]


def enter(solve_with: Callable[..., Solution], reference: Tensor, method: str, rules: Sequence[Rule]) -> Runner:
    """One method through its step rules, until it fails."""
    runs: list[Run] = []
    for name, rule in rules:
        try:
            solution = solve_with(method=method, **rule)
        except SdeflowError as error:
            return Runner(method, runs, f"{name}: {error}")
        seconds = [solution.stats["seconds"]]
        while len(seconds) < REPEATS and seconds[0] < BRIEF:
            seconds.append(solve_with(method=method, **rule).stats["seconds"])
        distance = (solution.final - reference).flatten(1).square().mean(1).sqrt()
        point = WorkPoint(solution.stats["nfe_drift"], statistics.median(seconds), float(distance.median()))
        runs.append(Run(name, point, float(distance.square().mean().sqrt()), float((distance > LOST).double().mean())))
    return Runner(method, runs)


def _start(setting: Setting) -> Tensor:
    """Samples of the law at t = 1: noise that no solver has touched."""
    return setting.truth.sample(1.0, setting.sizes.racers, seed=setting.seed + 6).double()


def sde_lane(setting: Setting, note: Callable[[str], None] = lambda method: None) -> Lane:
    """The reversed SDE: pathwise errors, every method and step on one Brownian path."""
    sizes, noise = setting.sizes, _start(setting)
    process: Process = setting.process.reverse(setting.truth.score)
    path = BrownianPath(
        tuple(noise.shape),
        *process.interval,
        seed=setting.seed + 7,
        cells=sizes.reference,
        levy="space-time",
        dtype=noise.dtype,
    )

    def run(**options: Any) -> Solution:
        return solve(process, noise, brownian=path, **options)

    note("reference")
    reference = run(method=REFERENCE, steps=sizes.reference).final
    rules: list[Rule] = [(f"{n} steps", {"steps": n}) for n in sizes.ladder]
    runners = []
    for method in SDE_METHODS:
        note(method)
        runners.append(enter(run, reference, method, rules))
    return Lane("Reversed SDE", runners)


def flow_lane(setting: Setting, note: Callable[[str], None] = lambda method: None) -> Lane:
    """The probability flow, from the same noise."""
    noise = _start(setting)
    process: Process = setting.process.probability_flow(setting.truth.score)

    def run(**options: Any) -> Solution:
        return solve(process, noise, (1.0, 0.0), **options)

    note("reference")
    reference = run(rtol=1e-10).final
    steps: list[Rule] = [(f"{n} steps", {"steps": n}) for n in setting.sizes.ladder]
    tolerances: list[Rule] = [(f"rtol {tol:g}", {"rtol": tol}) for tol in TOLERANCES]
    runners = []
    for method in FLOW_METHODS:
        note(method)
        runners.append(enter(run, reference, method, steps if methods()[method].fixed else tolerances))
    return Lane("Probability flow", runners)


def describe(setting: Setting, lanes: Sequence[Lane], out: Path) -> Section:
    """The picture and the tables of the race."""
    plotting.work_precision(
        {
            lane.title: {r.method: [run.point for run in r.runs if _drawable(run)] for r in lane.runners}
            for lane in lanes
        },
        y_label="median RMS distance to the reference",
    ).savefig(out / "race.png")
    sizes = setting.sizes
    text = (
        f"{sizes.racers} samples of p₁ are brought to t = 0 by every method. For the SDE all of them, at all step "
        "sizes, see one "
        f"Brownian path, and the error is the distance to {REFERENCE} with {sizes.reference} steps on that path; for "
        "the flow it is "
        "the distance to a solve with tolerance 1e-10. Distances are RMS over the pixels of a digit, and the median "
        "over digits is shown: near "
        "the fork between two digits a small error decides which of them becomes, so a few paths are far off at any "
        "step ('lost', "
        f"beyond {LOST:g}). Times are the median of {REPEATS} runs, of one where a run takes longer than {BRIEF:g} s."
    )
    return Section(
        "race",
        "A race of methods",
        text,
        [table(lane) for lane in lanes],
        [
            Picture(
                "race.png",
                "Lower left is better. Top: the methods that see only W gain one order per step, Heun and the "
                "midpoint rule "
                "with a smaller constant. srk also sees the space-time Lévy area and falls faster, but takes ten "
                "evaluations "
                "a step; reversible_heun is not stable on steps as large as these. The native and the wrapped Euler "
                "have "
                "the same errors, since they see the same path, and differ in time. Bottom: orders 1, 2 and 4 of "
                "Euler, Heun "
                "and RK4, and methods that choose their steps, whose loosest tolerance says little about the error.",
                "Four panels with logarithmic axes: error against evaluations and against seconds, for the reversed "
                "SDE and the flow.",
            )
        ],
        {
            "reference": {"method": REFERENCE, "steps": sizes.reference, "flow_rtol": 1e-10},
            "samples": sizes.racers,
            "lanes": {lane.title: [_figures(runner) for runner in lane.runners] for lane in lanes},
        },
    )


def _drawable(run: Run) -> bool:
    return 0 < run.point.error < float("inf")


def _figures(runner: Runner) -> dict[str, Any]:
    return {
        "method": runner.method,
        "failure": runner.failure,
        "runs": [
            {
                "rule": run.rule,
                "evaluations": run.point.evaluations,
                "seconds": run.point.seconds,
                "error_median": run.point.error,
                "error_rms": run.rms,
                "lost": run.lost,
            }
            for run in runner.runs
        ],
    }


def table(lane: Lane) -> Table:
    """For each method its cheapest run, and its best; a failure is a row too."""
    rows = []
    for runner in lane.runners:
        picked = (
            dict.fromkeys([runner.runs[0], min(runner.runs, key=lambda run: run.point.error)]) if runner.runs else {}
        )
        for k, run in enumerate(picked):
            rows.append(
                [
                    runner.method if k == 0 else "",
                    run.rule,
                    f"{run.point.evaluations}",
                    number(run.point.seconds or 0.0, 2),
                    number(run.point.error, 2),
                    f"{100 * run.lost:.0f} %",
                ]
            )
        if runner.failure:
            rows.append([runner.method, f"failed at {runner.failure}", "", "", "", ""])
    return Table(
        f"Race: {lane.title}",
        ("method", "rule", "evaluations", "seconds", "median error", "lost"),
        rows,
        "The first and the most accurate run of each method; all of them are in the picture and in results.json.",
    )
