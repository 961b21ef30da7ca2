"""Work against precision: each method at each step size or tolerance, its error and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from sdeflow.analysis.environment import environment
from sdeflow.analysis.memory import peak_bytes
from sdeflow.analysis.peers import is_peer, peer
from sdeflow.analysis.peers.registry import missing
from sdeflow.analysis.problem import Problem
from sdeflow.analysis.results import WorkPrecision
from sdeflow.analysis.run import Run
from sdeflow.brownian import Driver
from sdeflow.errors import ArgumentError, MethodError, SdeflowError
from sdeflow.solvers import methods as registry
from sdeflow.solvers.methods import noise_class
from sdeflow.solvers.registry import get_method

__all__ = ["plan", "work_precision"]

FEWEST_TIMES, LONG = 3, 1.0  # of a run that takes long, only so many times are taken: after so many seconds, no more

Metric = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Setting:
    """What all runs of a comparison share."""

    problem: Problem
    path: Driver | None
    truth: Tensor
    metrics: Mapping[str, Metric]
    seed: int
    repeats: int
    memory: bool


def work_precision(
    problem: Problem,
    methods: Sequence[str],
    *,
    dts: Sequence[float] | None = None,
    tolerances: Sequence[float] | None = None,
    reference: dict[str, Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    seed: int = 0,
    repeats: int = 3,
    memory: bool = False,
    done: Sequence[Run] = (),
    on_run: Callable[[Run, int, int], None] | None = None,
) -> WorkPrecision:
    """Run each method at each step size or tolerance against the truth.

    The errors of an SDE's methods are pathwise: all of them, at all step sizes, are driven by one Brownian path, whose cells
    are the finest step. Times are of the same solves on a path of their own, as a user would run them, by
    ``torch.utils.benchmark``.

    Arguments:
        problem: What to solve, and what is right.
        methods: Names of :func:`sdeflow.methods`; or of other libraries, called as their users call them, without anything of
            sdeflow between: ``"peer:torchsde:srk"``, ``"peer:torchdiffeq:dopri5"``, ``"peer:scipy:LSODA"``,
            ``"peer:torchode:tsit5"``, ``"peer:zuko:dopri45"``, ``"peer:flow_matching:midpoint"``, ``"peer:diffrax:Tsit5"``. One
            that is not installed or does not fit is one row that says so.
        dts: Steps for the methods that take them.
        tolerances: rtol = atol, for the methods that adapt their steps.
        reference: Options of :func:`sdeflow.solve` for the truth, in place of the problem's own.
        metrics: Functions of the state at the end and the truth by name, such as
            ``{"energy": sf.analysis.metrics.energy_distance}``.
        seed: Of the path.
        repeats: Solves that are timed for each run, fewer (but 3) where they take over a second together; 0 for none.
        memory: Whether to measure peak memory too, in a further solve.
        done: Runs of an earlier comparison that are taken over instead of being made again.
        on_run: Called after each run with it, its number and how many there will be.

    Returns:
        A :class:`WorkPrecision`: ``.runs``, ``.table()``, ``.best(at=…)``, ``.to_json()``, ``.plot()``.

    Raises:
        ArgumentError: There is neither dts nor tolerances, or a method is for neither of those given.
        MethodError: A method is not known.

    Example:
        >>> import math
        >>> decay = sf.analysis.Problem(
        ...     sf.ODE(lambda t, x: -x), torch.ones(1, 1).double(), exact=torch.full((1, 1), math.exp(-1)).double()
        ... )
        >>> result = sf.analysis.work_precision(decay, ["euler", "rk4"], dts=[0.25, 0.125], repeats=0)
        >>> [run.nfe_drift for run in result.runs]
        [4, 8, 16, 32]
    """
    if reference is not None:
        problem = replace(problem, exact=None, reference=reference, accuracy=0.0)
    planned = plan(problem, methods, dts, tolerances)
    taken = {run.key: run for run in done}
    settings = {
        "seed": seed,
        "repeats": repeats,
        "paths": len(problem.x0),
        "dtype": str(problem.x0.dtype),
        "noise": noise_class(problem.process),
        "truth": problem.truth_is,
        "source": problem.source,
    }
    runs: list[Run] = []
    setting: Setting | None = None
    for number, key in enumerate(planned, start=1):
        run = taken.get(key)
        if run is None:
            if setting is None:
                path = _path(problem, methods, dts, seed)
                setting = Setting(problem, path, problem.truth(path), metrics or {}, seed, repeats, memory)
            run = _peer_run(setting, *key) if is_peer(key[0]) else _own_run(setting, *key)
        runs.append(run)
        if on_run is not None:
            on_run(run, number, len(planned))
    return WorkPrecision(problem.name, runs, environment(), settings)


def plan(
    problem: Problem, methods: Sequence[str], dts: Sequence[float] | None, tolerances: Sequence[float] | None
) -> list[tuple[str, str, float]]:
    """(method, rule, value) of every run; a peer that is not going to run has one, to say why, and so has a method without use
    for the steps that are given which could not solve the problem anyway."""
    if not dts and not tolerances:
        raise ArgumentError("give dts= for methods with fixed steps, tolerances= for adaptive ones, or both.")
    if isinstance(methods, str):
        raise ArgumentError(f"methods={methods!r} is one name; give a list of names.")
    planned: list[tuple[str, str, float]] = []
    for name in methods:
        taken = _rules(name)
        rules = [("dt", v) for v in dts or () if "dt" in taken] + [
            ("tolerance", v) for v in tolerances or () if "tolerance" in taken
        ]
        if not rules and _unfit(problem, name):
            rules = [("dt", dts[0])] if dts else [("tolerance", (tolerances or [])[0])]
        if not rules:
            given, other = ("dts", "tolerances") if dts else ("tolerances", "dts")
            raise ArgumentError(f"method={name!r} has no use for {given}=; give {other}= too.")
        if is_peer(name) and _absent(problem, name):
            rules = rules[:1]
        planned += [(name, rule, value) for rule, value in rules]
    return planned


def _absent(problem: Problem, name: str) -> str:
    """Why a peer is not going to run, or an empty string."""
    library, method = peer(name)
    return missing(library) or library.misfit(problem, method)


def _unfit(problem: Problem, name: str) -> bool:
    """Whether it has no use for this kind of problem, whatever the steps."""
    return bool(_absent(problem, name)) if is_peer(name) else name not in registry().fitting(problem.process)


def _rules(name: str) -> tuple[str, ...]:
    if not is_peer(name):
        entry = get_method(name)
        return (*(["dt"] if entry.fixed else []), *(["tolerance"] if entry.adaptive else []))
    library, method = peer(name)
    rules = library.rules(method)
    if not rules:
        raise MethodError(f"method={name!r}: {library.name} has no method {method!r} that is known here.")
    return rules


def _path(problem: Problem, methods: Sequence[str], dts: Sequence[float] | None, seed: int) -> Driver | None:
    finest = min(dts) if dts else problem.length / 1024
    cells = max(1, round(problem.length / finest))
    if problem.reference is not None and isinstance(problem.reference.get("steps"), int):
        cells = max(cells, problem.reference["steps"])
    levy = problem.needs_levy(methods) or any(
        name in ("peer:torchsde:srk", "peer:torchsde:log_ode") for name in methods
    )
    return problem.path(cells, seed=seed, levy=levy)


def _own_run(setting: Setting, name: str, rule: str, value: float) -> Run:
    problem, path = setting.problem, setting.path
    options: dict[str, Any] = {"dt": value} if rule == "dt" else {"rtol": value, "atol": value}
    try:
        solution = problem.solve(method=name, **options, **({} if path is None else {"brownian": path}))
    except SdeflowError as failure:
        return Run(name, rule, value, message=str(failure))
    own = {} if path is None else {"seed": setting.seed}
    return Run(
        name,
        rule,
        value,
        **_errors(setting, solution.final),
        nfe_drift=solution.stats["nfe_drift"],
        nfe_diffusion=solution.stats["nfe_diffusion"],
        **_costs(setting, lambda: problem.solve(method=name, **options, **own)),
    )


def _peer_run(setting: Setting, name: str, rule: str, value: float) -> Run:
    library, method = peer(name)
    if reason := _absent(setting.problem, name):
        return Run(name, rule, value, message=f"not run: {reason}")
    try:
        call = library.prepare(setting.problem, method, rule, value, setting.path, True)
        if isinstance(call, Run):
            return call
        final = call.solve()
        drift, diffusion = call.counted()
        bare = library.prepare(setting.problem, method, rule, value, None, False)
        assert not isinstance(bare, Run)
        if not bool(final.isfinite().all()):
            return Run(name, rule, value, message="some samples became infinite or NaN")
        return Run(
            name,
            rule,
            value,
            **_errors(setting, final),
            nfe_drift=drift,
            nfe_diffusion=diffusion,
            **_costs(setting, bare.solve),
        )
    except Exception as failure:  # whatever another library raises is its row
        return Run(name, rule, value, message=f"{type(failure).__name__}: {failure}")


def _errors(setting: Setting, final: Tensor) -> dict[str, Any]:
    squared = (final - setting.truth).flatten(1).square().mean(1)
    error = squared.mean().sqrt().item()
    spread = squared.std().item() / len(squared) ** 0.5 / (2 * error) if len(squared) > 1 and error else 0.0
    figures = {name: float(metric(final, setting.truth)) for name, metric in setting.metrics.items()}
    return {"error": error, "spread": spread, "metrics": figures}


def _costs(setting: Setting, call: Callable[[], Any]) -> dict[str, Any]:
    times: list[float] = []
    while len(times) < setting.repeats and (len(times) < FEWEST_TIMES or sum(times) < LONG):
        times.append(Timer("call()", globals={"call": call}).timeit(1).mean)
    low, middle, high = torch.tensor(times or [0.0]).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return {
        "seconds": middle if times else None,
        "interquartile": high - low if times else None,
        "peak_bytes": peak_bytes(call, setting.problem.x0.device) if setting.memory else None,
    }
