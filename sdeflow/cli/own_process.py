"""Problems for the command line: reference problems by name, and a user's own process as ``my_module:my_sde``."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from sysconfig import get_paths
from typing import Any

import torch

import sdeflow
from sdeflow.analysis import Problem, problems
from sdeflow.errors import ArgumentError, SdeflowError
from sdeflow.processes import Process
from sdeflow.solvers import methods as registry
from sdeflow.solvers.methods import noise_class
from sdeflow.training.own import object_at

__all__ = ["fitting_methods", "load", "numbers", "one_source", "own_code", "problem_of"]

FINER = 8  # a reference has so many times the steps of the finest run


def numbers(text: str | None, option: str, *, positive: bool = False) -> list[float]:
    """``1e-3,1e-5`` as floats."""
    try:
        found = [float(word) for word in (text or "").replace(" ", "").split(",") if word]
    except ValueError:
        raise SdeflowError(f"{option} {text}: give numbers with commas between them, such as 0.1,0.01.") from None
    if not all(math.isfinite(value) and (value > 0 or not positive) for value in found):
        raise SdeflowError(f"{option} {text}: the numbers must be {'positive and ' if positive else ''}finite.")
    return found


def one_source(problem: object, place: str | None, x0: str | None) -> None:
    """Refuse what would otherwise be passed over: a reference problem beside a process, a start without one."""
    if problem and place is not None:
        raise SdeflowError(f"give reference problems or --process {place}, not both: one command for each.")
    if x0 is not None and place is None:
        raise SdeflowError(f"--x0 {x0}: a reference problem starts where it is defined to; --x0 goes with --process.")


@contextmanager
def own_code(place: str | None, option: str = "--process") -> Iterator[None]:
    """What a user's own code raises, as a sentence that says where; what the code of others raises passes through."""
    try:
        yield
    except SdeflowError:
        raise
    except Exception as error:
        others = (str(Path(sdeflow.__file__).parent), *(get_paths()[kind] for kind in ("stdlib", "purelib", "platlib")))
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*others, "<"))]
        if isinstance(error, SyntaxError) and error.filename:
            where = f"{error.filename}, line {error.lineno}"
        elif place is not None and frames:
            where = f"{frames[-1].filename}, line {frames[-1].lineno}"
        else:
            raise
        said = error.msg if isinstance(error, SyntaxError) else str(error).strip()
        raise SdeflowError(f"{option} {place}: {type(error).__name__} in {where}: {said}") from error


def load(place: str) -> Any:
    """What ``my_module:my_sde`` names; the current folder is searched first."""
    try:
        found = object_at(place)
    except ArgumentError as error:
        raise SdeflowError(f"--process {error}") from None
    return found if isinstance(found, (Process, Problem)) or not callable(found) else found()


def problem_of(
    name: str | None, place: str | None, x0: Sequence[float], paths: int, finest: int, dts: Sequence[float] = ()
) -> Problem:
    """A reference problem, or a user's process with a reference on a fine grid.

    Arguments:
        name: Of a reference problem, or None.
        place: ``MODULE:NAME`` of a process, a problem, or a function that makes one.
        x0: The state at which all paths of a process start.
        paths: How many.
        finest: The most steps that a method is going to take where no step sizes are given.
        dts: Those that are given.
    """
    if place is None:
        assert name is not None
        return problems.build(name, batch=paths)
    found = load(place)
    if isinstance(found, Problem):
        return replace(found, source="; ".join(filter(None, [found.source, _version(place)])))
    if not isinstance(found, Process):
        raise SdeflowError(
            f"--process {place} is {type(found).__name__}; give an sf.SDE, an sf.ODE or an sf.analysis.Problem."
        )
    if not x0:
        raise SdeflowError(
            f"--process {place} does not say where it starts: give --x0 1.0 (with commas for more coordinates)."
        )
    if dts:
        finest = math.ceil(abs(found.interval[1] - found.interval[0]) / min(dts) - 1e-9)
    start = torch.tensor(list(x0), dtype=torch.float64).repeat(paths if found.noise != "none" else 1, 1)
    return Problem(
        found, start, reference=_reference(found, finest), name=place.partition(":")[2], source=_version(place)
    )


def _version(place: str) -> str:
    """Which version of the user's file it is."""
    file = getattr(sys.modules[place.partition(":")[0]], "__file__", None)
    digest = sha256(Path(file).read_bytes()).hexdigest()[:12] if file else "none"
    return f"{place}, SHA-256 of its file {digest}"


def _reference(process: Process, finest: int) -> dict[str, Any]:
    """The most accurate way there is to solve it: on the methods' own path for an SDE, by an eighth-order method for an ODE."""
    if process.noise == "none":
        return {"method": "torchdiffeq:dopri8", "rtol": 1e-12, "atol": 1e-12}
    table, kind = registry(), noise_class(process)
    names = table.fitting(process, adaptive=False)
    best = max(names, key=lambda name: (table[name].strong_order[kind], table[name].engine == "native"))
    return {"method": best, "steps": FINER * finest}


def fitting_methods(process: Process, most: int = 5) -> list[str]:
    """Native methods that solve a process, the highest orders first, and wrapped ones where these are too few."""
    table, kind = registry(), noise_class(process)

    def rank(name: str) -> tuple[bool, float]:
        method = table[name]
        order = method.ode_order if kind == "none" else method.strong_order.get(kind)
        return method.engine in ("torchsde", "torchdiffeq"), -(order or 0.0)

    plain = [name for name in table.fitting(process) if not {"schedule", "score", "A"} & set(table[name].needs)]
    return sorted(plain, key=rank)[:most]
