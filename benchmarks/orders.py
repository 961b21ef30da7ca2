"""The order of every method: claimed, measured, with an interval. `docs/orders.md` is made from what this records.

    python benchmarks/orders.py [--quick] [--only SUITE] [--out benchmarks/results]

Every line is kept in orders-unfinished.json as soon as it is measured; after Ctrl-C the same command takes over what was done.

- Strong: root-mean-square distance at the end to a fine solution on the same paths, on a sharp problem for each class of noise
  (`tests/stochastic_problems.py`).
- Weak: the error of one step in the expectations of monomials, by quadrature over its noise, divided by the step; on SDEs with
  polynomial coefficients (`tests/weak_errors.py`). Nothing is sampled.
- ODE: the error at the end, on a circular orbit, where equal steps are the right ones. Of methods that choose their steps,
  against their mean step, over tolerances; the order is then of error against work.
- Methods that need a schedule: on Gaussian mixtures, in steps that are equal in log-SNR. Of a corrector, whose own steps have
  a size that no dt makes smaller, on nothing but noise: there its predictor is exact, and all that is seen is the corrector's.

A claim is met unless the whole 95 % interval is more than 0.1 below it. What the wrapped libraries themselves declare is
recorded beside what the registry claims. A few minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from harness import HERE, RESULTS, write  # first, since it sets the number of threads

import sdeflow as sf
from sdeflow.solvers import time_grids

sys.path.insert(0, str(HERE.parent / "tests"))

import affine_samplers
import stochastic_problems
import weak_errors

Row = dict[str, Any]
# (method, kind of error, noise, calculus), and how it is measured
Task = tuple[tuple[str, str, str, str], Callable[[], Row]]
SLACK = 0.1  # the accuracy of the estimator

# What torchsde 0.2.6 says of itself in torchsde/_core/methods: strong order by class of noise, weak order.
HALF_IF_GENERAL = {"additive": 1.0, "diagonal": 1.0, "scalar": 1.0, "general": 0.5}
ONE_IF_ADDITIVE = {"additive": 1.0, "diagonal": 0.5, "scalar": 0.5, "general": 0.5}
DECLARED = {
    "euler": (ONE_IF_ADDITIVE, 1.0),
    "euler_heun": (HALF_IF_GENERAL, 1.0),
    "heun": (HALF_IF_GENERAL, 1.0),
    "log_ode": (HALF_IF_GENERAL, 1.0),
    "midpoint": (HALF_IF_GENERAL, 1.0),
    "milstein": (dict.fromkeys(("additive", "diagonal", "scalar"), 1.0), 1.0),
    "milstein-grad-free": (dict.fromkeys(("additive", "diagonal", "scalar"), 1.0), 1.0),
    "reversible_heun": (ONE_IF_ADDITIVE, 1.0),
    "srk": (dict.fromkeys(("additive", "diagonal", "scalar"), 1.5), 1.5),
}


def declared(name: str, kind: str, noise: str) -> float | None:
    """What the library that a method is of says of it."""
    library, _, own = name.partition(":")
    if library == "torchdiffeq":
        from torchdiffeq._impl.odeint import SOLVERS

        return getattr(SOLVERS.get(own), "order", None) if kind == "ode" else None
    if library != "torchsde" or own not in DECLARED:
        return None
    strong, weak = DECLARED[own]
    return strong.get(noise) if kind == "strong" else weak


def row(
    name: str,
    kind: str,
    noise: str,
    calculus: str,
    claim: float,
    dts: Sequence[float],
    errors: torch.Tensor,
    **fitting: Any,
) -> Row:
    """One line of the record."""
    what = {"method": name, "kind": kind, "noise": noise, "calculus": calculus, "claim": claim}
    theirs = declared(name, kind, noise)
    if theirs is not None:
        what["declared"] = theirs
    try:
        fit = sf.analysis.fit_order(dts, errors, kind="ode" if errors.ndim == 1 else kind, **fitting)
    except sf.errors.ArgumentError as failure:
        return {**what, "message": str(failure)}
    first, stop = fit.used
    return {
        **what,
        "order": fit.slope,
        "interval": [fit.low, fit.high],
        "step sizes": stop - first,
        "bent": fit.bent,
        "met": fit.high >= max(claim, theirs or 0.0) - SLACK,
    }


# --- strong -------------------------------------------------------------------------------------------------------------


@cache
def fine(kind: str, calculus: str, cells: int, paths: int) -> tuple[Any, torch.Tensor, float]:
    """The noise in cells, the solution on them by the method of the highest order, and how far it may be off."""
    process = stochastic_problems.sharp(kind, calculus)
    names = sf.methods().fitting(process, adaptive=False)
    best = max(
        (sf.methods()[name] for name in names if sf.methods()[name].engine == "native"),
        key=lambda method: method.strong_order[kind],
    )
    path = stochastic_problems.noise_for(kind, paths, 1.0, cells)
    x0 = stochastic_problems.start(paths)
    truth, coarser = (
        sf.solve(process, x0, steps=n, method=best.name, brownian=path.coarse(n)).final for n in (cells, cells // 2)
    )
    return path, truth, (truth - coarser).square().mean().sqrt().item()


@cache
def coarse(kind: str, calculus: str, cells: int, paths: int, n: int) -> Any:
    """The same noise in n cells, for all methods."""
    return fine(kind, calculus, cells, paths)[0].coarse(n)


def strong(quick: bool) -> Iterator[Task]:
    for method, kind, calculus in stochastic_problems.claims():
        yield (method.name, "strong", kind, calculus), partial(_strong, method, kind, calculus, quick)


def _strong(method: Any, kind: str, calculus: str, quick: bool) -> Row:
    paths = 200 if quick else 500
    slow = method.strong_order[kind] == 0.5 and kind == "general"
    cells = 2**9 if quick else 2**13 if slow else 2**11
    counts = [2**k for k in range(2, 6 if quick else 7 if slow else 9)]
    _, truth, floor = fine(kind, calculus, cells, paths)
    process, x0 = stochastic_problems.sharp(kind, calculus), stochastic_problems.start(paths)
    ends = [
        sf.solve(process, x0, steps=n, method=method.name, brownian=coarse(kind, calculus, cells, paths, n)).final
        for n in counts
    ]
    errors = torch.stack([(end - truth).square().mean(1).sqrt() for end in ends], 1)
    powers = "whole" if kind == "additive" else "half"
    claim, dts = method.strong_order[kind], [1 / n for n in counts]
    return row(method.name, "strong", kind, calculus, claim, dts, errors, floor=floor, powers=powers)


# --- weak ---------------------------------------------------------------------------------------------------------------


def weak(quick: bool) -> Iterator[Task]:
    for method, kind, calculus in stochastic_problems.claims():
        if kind in method.weak_order:
            yield (method.name, "weak", kind, calculus), partial(_weak, method, kind, calculus, quick)


def _weak(method: Any, kind: str, calculus: str, quick: bool) -> Row:
    steps = [2.0**-k for k in range(8, 12 if quick else 14)]
    nodes = 7 if kind == "scalar" else 4
    problem = _polynomial(kind, calculus)
    try:
        errors = weak_errors.local_errors(problem, method.name, steps, nodes)
    except sf.SdeflowError as failure:
        what = {"method": method.name, "kind": "weak", "noise": kind, "calculus": calculus}
        return {**what, "claim": method.weak_order[kind], "message": str(failure)}
    per_step = torch.tensor(errors, dtype=torch.float64) / torch.tensor(steps, dtype=torch.float64)
    rounding = 1e-15 / min(steps)
    powers = "whole" if kind == "additive" else "half"
    claim = method.weak_order[kind]
    return row(method.name, "weak", kind, calculus, claim, steps, per_step, floor=rounding, powers=powers)


@cache
def _polynomial(kind: str, calculus: str) -> Any:
    return weak_errors.PolynomialSDE(kind, calculus, seed=0)


# --- without noise ------------------------------------------------------------------------------------------------------


def orbit(end: float = 20.0) -> sf.analysis.Problem:
    """Two bodies on a circle."""

    def velocity(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        place, speed = x[:, :2], x[:, 2:]
        return torch.cat([speed, -place / place.square().sum(1, keepdim=True) ** 1.5], 1)

    start = torch.tensor([[1.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    c, s = math.cos(end), math.sin(end)
    exact = torch.tensor([[c, s, -s, c]], dtype=torch.float64)
    return sf.analysis.Problem(sf.ODE(velocity, interval=(0.0, end)), start, exact=exact, name="circular orbit")


def ode(quick: bool) -> Iterator[Task]:
    problem = orbit()
    for method in sf.methods():
        if method.ode_order is not None and "schedule" not in method.needs and not method.misfit(problem.process):
            yield (method.name, "ode", "none", ""), partial(_ode, problem, method, quick)


def _ode(problem: sf.analysis.Problem, method: Any, quick: bool) -> Row:
    order = method.ode_order
    if method.fixed:
        finest = 10 if quick else 15 if order == 1 else 13
        runs: list[dict[str, Any]] = [{"steps": 2**k} for k in range(finest - 6, finest)]
    else:  # not so small that the lowest orders take for ever, nor so large that the steps are not yet in proportion
        exponents = range(8, round(4 * min(11, 2 + 1.7 * order)) + 1, 4 if quick else 2)
        runs = [{"rtol": 10 ** (-k / 4), "atol": 10 ** (-k / 4)} for k in exponents]
    dts, errors, failures = [], [], []
    for options in runs:
        try:
            solution = problem.solve(method=method.name, **options)
        except sf.SolveError as error:
            failures.append(f"{next(iter(options.items()))}: {error}")
            continue
        accepted = options.get("steps") or solution.stats.get("accepted") or solution.stats["nfe_drift"]
        if problem.length / float(accepted) in dts:
            continue
        dts.append(problem.length / float(accepted))
        errors.append((solution.final - problem.truth()).square().mean().sqrt())
    found = row(method.name, "ode", "none", "", order, dts, torch.tensor(errors, dtype=torch.float64), floor=2e-13)
    return {**found, "failed": failures} if failures else found


# --- with a schedule ----------------------------------------------------------------------------------------------------

SPAN = (0.6, 0.05)  # away from the ends, where coefficients are infinite
VP = sf.processes.VariancePreserving()
MIXTURE = sf.laws.GaussianMixture(
    *(torch.tensor(v, dtype=torch.float64) for v in ([0.4, 0.6], [[-1.0], [1.0]], [0.2, 0.4]))
)
MEAN, VARIANCE, START = 0.7, 0.3, 1.5
GAUSSIAN = sf.laws.GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[MEAN]], [VARIANCE])))


def scheduled(quick: bool) -> Iterator[Task]:
    for method in sf.methods():
        if "schedule" not in method.needs:
            continue
        if method.ode_order is not None:
            yield (method.name, "ode", "none", ""), partial(_flow, method, quick)
        if method.strong_order:
            strong, weak = (_corrected_paths, _corrected_law) if "H" in method.needs else (_reversal, _moments)
            yield (method.name, "strong", "additive", "ito"), partial(strong, method, quick)
            yield (method.name, "weak", "additive", "ito"), partial(weak, method, quick)


def _flow(method: Any, quick: bool) -> Row:
    counts = [2**k for k in range(4, 8 if quick else 11)]
    process = VP.probability_flow(MIXTURE.along(VP).score)
    x = torch.linspace(-2, 2, 25, dtype=torch.float64)[:, None]
    exact = sf.solve(process, x, SPAN, method="dopri8", rtol=1e-13, atol=1e-13).final
    ends = [
        sf.solve(process, x, SPAN, steps=time_grids.log_snr(process, n, SPAN), method=method.name).final for n in counts
    ]
    errors = torch.stack([(end - exact).square().mean().sqrt() for end in ends])
    return row(method.name, "ode", "none", "", method.ode_order, [1 / n for n in counts], errors, floor=1e-12)


def _reversal(method: Any, quick: bool, paths: int = 300) -> Row:
    cells, counts = 2**10 if quick else 2**12, [2**k for k in range(4, 7 if quick else 9)]
    process = VP.reverse(MIXTURE.along(VP).score, clock="backward")
    nodes = time_grids.log_snr(process, cells, SPAN)
    widths = torch.tensor(affine_samplers.forward_clock(process, nodes), dtype=torch.float64).diff()
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(cells, paths, 1, generator=generator, dtype=torch.float64) * widths[:, None, None].sqrt()
    x0 = MIXTURE.along(VP).sample(SPAN[0], paths, seed=1)

    def final(n: int) -> torch.Tensor:
        some, sums = nodes[:: cells // n], W.reshape(n, -1, paths, 1).sum(1)
        path = affine_samplers.GivenOnGrid(sums, torch.zeros_like(sums), affine_samplers.forward_clock(process, some))
        return sf.solve(process, x0, SPAN, steps=some, method=method.name, brownian=path).final

    truth = final(cells)
    floor = (truth - final(cells // 2)).square().mean().sqrt().item()
    errors = torch.stack([(final(n) - truth).abs()[:, 0] for n in counts], 1)
    claim = method.strong_order["additive"]
    return row(method.name, "strong", "additive", "ito", claim, [1 / n for n in counts], errors, floor=floor)


def _moments(method: Any, quick: bool) -> Row:
    """Mean and variance at the end, from a point, of Gaussian data: sums, without sampling."""
    counts = [2**k for k in range(4, 8 if quick else 10)]
    process = VP.reverse(GAUSSIAN.along(VP).score, clock="flipped")
    (a, mean, variance), (b, mean_s, variance_s) = (
        (scale := float(VP.schedule.a(t)), scale * MEAN, scale**2 * VARIANCE + float(VP.schedule.variance(t)))
        for t in SPAN
    )
    covariance = a / b * variance_s
    exact = (mean_s + covariance / variance * (START - mean), variance_s - covariance**2 / variance)
    span = tuple(process.reflect(t) for t in SPAN)
    errors = []
    for n in counts:
        found = affine_samplers.moments_at_end(process, method.name, time_grids.log_snr(process, n, span), START, 0.0)
        errors.append(torch.tensor([f - e for f, e in zip(found, exact, strict=True)], dtype=torch.float64).norm())
    claim = method.weak_order["additive"]
    return row(method.name, "weak", "additive", "ito", claim, [1 / n for n in counts], torch.stack(errors), floor=1e-12)


NOISE = sf.processes.VarianceExploding(0.1, 10.0)
NOISE_SPAN = (0.5, 0.45)  # short, so that a corrector has come to its own law after the fewest steps


def nothing_but_noise(rows: int, coordinates: int) -> tuple[Any, torch.Tensor]:
    """The reversal for data that are all 0, and draws of its law at the beginning."""
    process = NOISE.reverse(lambda t, x: -x / NOISE.schedule.variance(t), clock="backward")
    x0 = torch.randn(rows, coordinates, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return process, NOISE.schedule.s(NOISE_SPAN[0]) * x0


def _corrected_paths(method: Any, quick: bool, paths: int = 300, coordinates: int = 8) -> Row:
    cells, counts = 2**10 if quick else 2**12, [2**k for k in range(6, 9 if quick else 11)]
    process, x0 = nothing_but_noise(paths, coordinates)
    nodes = time_grids.log_snr(process, cells, NOISE_SPAN)
    path = affine_samplers.path_on(affine_samplers.forward_clock(process, nodes), (paths, coordinates), seed=0)

    def final(name: str, n: int) -> torch.Tensor:
        steps = nodes[:: cells // n]
        return sf.solve(process, x0, NOISE_SPAN, steps=steps, method=name, brownian=path.coarse(n)).final

    truth = final("ancestral", cells)
    floor = (truth - final("ancestral", cells // 2)).square().mean().sqrt().item()
    errors = torch.stack([(final(method.name, n) - truth).square().mean(1).sqrt() for n in counts], 1)
    claim = method.strong_order["additive"]
    return row(method.name, "strong", "additive", "ito", claim, [1 / n for n in counts], errors, floor=floor)


def _corrected_law(method: Any, quick: bool, rows: int = 2000, coordinates: int = 400) -> Row:
    """The variance at the end, in many coordinates: no sums, since a corrector may take a sample's norms."""
    counts = [2**k for k in range(5, 8 if quick else 9)]
    process, x0 = nothing_but_noise(rows, coordinates)
    variance = NOISE.schedule.variance(NOISE_SPAN[1])
    errors = []
    for n in counts:
        nodes = time_grids.log_snr(process, n, NOISE_SPAN)
        final = sf.solve(process, x0, NOISE_SPAN, steps=nodes, method=method.name, seed=n).final
        errors.append(final.square().mean(1) / variance - 1)
    claim = method.weak_order["additive"]
    return row(method.name, "weak", "additive", "ito", claim, [1 / n for n in counts], torch.stack(errors, 1))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer paths and step sizes, about a minute")
    parser.add_argument(
        "--only", default="", metavar="SUITE", help="strong, weak, ode or scheduled; of the others the record is kept"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    file, unfinished = (options.out / f"{name}.json" for name in ("orders", "orders-unfinished"))
    kept: list[Row] = json.loads(file.read_text())["rows"] if options.only and file.exists() else []
    settings = {"quick": options.quick, "sdeflow": sf.__version__, "torch": torch.__version__}
    taken = resumed(unfinished, settings)
    rows: list[Row] = []
    began = time.monotonic()
    for suite in (strong, weak, ode, scheduled):
        if options.only not in ("", suite.__name__):
            continue
        for what, measure in suite(options.quick):
            place = (suite.__name__, *what)
            began_row = time.monotonic()
            found = taken.get(place) or {"suite": suite.__name__, **measure()}
            took = "taken over" if place in taken else f"{time.monotonic() - began_row:.1f} s"
            taken[place] = found
            write(unfinished.stem, {"settings": settings, "rows": list(taken.values())}, options.out)
            rows.append(found)
            tell(found, took)
    print(f"{time.monotonic() - began:.0f} s")
    write("orders", {"rows": [*rows, *(row for row in kept if row["suite"] != options.only)]}, options.out)
    unfinished.unlink()


def resumed(unfinished: Path, settings: Row) -> dict[tuple[str, ...], Row]:
    """The rows of a run with the same settings that was interrupted, by suite, method, kind, noise and calculus."""
    if not unfinished.exists() or (record := json.loads(unfinished.read_text()))["settings"] != settings:
        return {}
    keys = ("suite", "method", "kind", "noise", "calculus")
    return {tuple(found[key] for key in keys): found for found in record["rows"]}


def tell(found: Row, took: str) -> None:
    said = found.get("message") or "{:5.2f} ({:.2f} to {:.2f})".format(found["order"], *found["interval"])
    verdict = "" if found.get("met", True) else "  NOT MET"
    what = f"{found['method']:26} {found['kind']:7} {found['noise']:12} {found['calculus']:13}"
    print(f"{what} claim {found['claim']:<4g} {said}{verdict}  {took}", flush=True)


if __name__ == "__main__":
    main()
