"""What a comparison found: tables, pictures, files, the best method at an accuracy, and what has become slower."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdeflow.analysis.run import Run
from sdeflow.errors import ArgumentError

__all__ = ["Best", "Change", "WorkPrecision", "compare"]

NOISE = 3.0  # interquartile ranges, of both measurements together, that times differ by before they count
LEAST = 0.1  # of the time, the least change that counts
ERROR_SIGMAS = 6.0


@dataclass(frozen=True)
class Best:
    """The cheapest run of all that are accurate enough, and the cheapest of each other method.

    Attributes:
        at: The accuracy that was asked for.
        cost: ``"seconds"`` or ``"evaluations"``.
        ranking: One run for each method that is accurate enough, the cheapest first.
        short: The methods that are not.
        failed: The methods of which no run was finished.
        problem: What was solved.
    """

    at: float
    cost: str
    ranking: tuple[Run, ...]
    short: tuple[str, ...]
    failed: tuple[str, ...]
    problem: str

    def __str__(self) -> str:
        if not self.ranking:
            return (
                f"No method reaches an error of {self.at:.2g} on {self.problem}: give smaller steps or tolerances, "
                f"or ask for less."
            )
        first = self.ranking[0]
        price = _time(first.seconds or 0.0) if self.cost == "seconds" else f"{first.evaluations} evaluations"
        sentence = (
            f"At an error of {self.at:.2g} on {self.problem}, {first.method} is best: {price} with {first.rule} = "
            f"{first.value:.3g}, for an error of {first.error:.2g}"
        )
        if len(self.ranking) > 1:
            second = self.ranking[1]
            ratio = _cost(second, self.cost) / _cost(first, self.cost)
            alike = self.cost == "seconds" and (second.seconds or 0.0) - (first.seconds or 0.0) <= _noise(first, second)
            sentence += f"; {second.method} comes next at {ratio:.3g} times that{', within noise' if alike else ''}"
        if self.short:
            sentence += f"; not accurate enough as run: {', '.join(self.short)}"
        if self.failed:
            sentence += f"; without a result: {', '.join(self.failed)}"
        return sentence + "."


def _noise(a: Run, b: Run) -> float:
    """How far apart two times are that may be the same."""
    return NOISE * math.hypot(a.interquartile or 0.0, b.interquartile or 0.0)


def _cost(run: Run, cost: str) -> float:
    return float(run.seconds or 0.0) if cost == "seconds" else float(run.evaluations)


@dataclass(frozen=True)
class WorkPrecision:
    """The runs of :func:`work_precision`, and where they were made.

    Attributes:
        problem: The name of the problem.
        runs: One for each method at each step size or tolerance.
        environment: Versions, hardware, threads.
        settings: Seed, repeats, paths: what makes the runs again; the problem's noise, truth and source.
    """

    problem: str
    runs: list[Run]
    environment: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def curve(self, method: str) -> list[Run]:
        """The runs of one method that did not fail."""
        return [run for run in self.runs if run.method == method and not run.message]

    def best(self, at: float) -> Best:
        """The cheapest method among the runs with at most this error, by time where all were timed, else by evaluations.

        Arguments:
            at: The error that is wanted, > 0.

        Raises:
            ArgumentError: It is not positive.

        Example:
            >>> runs = [
            ...     sf.analysis.Run("a", "dt", 0.1, 1e-3, 0.0, 10, 0),
            ...     sf.analysis.Run("b", "dt", 0.1, 1e-4, 0.0, 40, 0),
            ... ]
            >>> print(sf.analysis.WorkPrecision("decay", runs[:1]).best(at=1e-2))
            At an error of 0.01 on decay, a is best: 10 evaluations with dt = 0.1, for an error of 0.001.
            >>> [run.method for run in sf.analysis.WorkPrecision("decay", runs).best(at=5e-4).ranking]
            ['b']
        """
        if not at > 0:
            raise ArgumentError(f"at={at!r} is not a positive error.")
        good = [run for run in self.runs if not run.message and run.error is not None and run.error <= at]
        cost = "seconds" if all(run.seconds is not None for run in good) else "evaluations"
        ordered = sorted(good, key=lambda run: _cost(run, cost))
        ranking = tuple({run.method: run for run in reversed(ordered)}.values())
        reached = {run.method for run in good}
        names = [name for name in dict.fromkeys(run.method for run in self.runs) if name not in reached]
        short, failed = (tuple(n for n in names if bool(self.curve(n)) is works) for works in (True, False))
        return Best(at, cost, tuple(sorted(ranking, key=lambda run: _cost(run, cost))), short, failed, self.problem)

    def rows(self) -> list[dict[str, str]]:
        """The runs as text, a dictionary for each; failures are rows, not gaps."""
        names = list(dict.fromkeys(name for run in self.runs for name in run.metrics))
        memory = any(run.peak_bytes is not None for run in self.runs)
        return [
            {
                "method": r.method,
                "steps": f"{r.rule} {r.value:.3g}",
                "error": _number(r.error) if not r.message else _why(r.message),
                "±": "" if r.spread is None else f"{r.spread:.1g}",
                "f": "" if r.nfe_drift is None else str(r.nfe_drift),
                "g": "" if r.nfe_diffusion is None else str(r.nfe_diffusion),
                "ms": "" if r.seconds is None else f"{1e3 * r.seconds:.2f}",
                "± ms": "" if r.interquartile is None else f"{1e3 * r.interquartile / 2:.2f}",
                **({"MB": "" if r.peak_bytes is None else f"{r.peak_bytes / 1e6:.2f}"} if memory else {}),
                **{name: _number(r.metrics.get(name)) for name in names},
            }
            for r in self.runs
        ]

    def table(self) -> str:
        """The rows as aligned text."""
        rows = self.rows()
        if not rows:
            return "no runs"
        shown = [{key: key for key in rows[0]}, *rows]
        sentences = {_why(run.message) for run in self.runs if run.message}
        widths = {key: max(len(row[key]) for row in shown if row[key] not in sentences) for key in rows[0]}
        return "\n".join("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip() for row in shown)

    def to_json(self, path: str | Path | None = None) -> str:
        """Everything as JSON, written to a file if one is named."""
        text = json.dumps(asdict(self), indent=1)
        if path is not None:
            Path(path).write_text(text + "\n")
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> WorkPrecision:
        """What :meth:`to_json` wrote: a path, or the text itself.

        Raises:
            ArgumentError: There is no such file, or it is something else.
        """
        try:
            text = source if isinstance(source, str) and source.lstrip().startswith("{") else Path(source).read_text()
            stored = json.loads(text)
            runs = [Run(**run) for run in stored["runs"]]
            return cls(stored["problem"], runs, stored.get("environment", {}), stored.get("settings", {}))
        except OSError as failure:
            raise ArgumentError(f"{source} cannot be read: {failure.strerror}.") from None
        except (ValueError, KeyError, TypeError):
            raise ArgumentError(
                f"{source!s:.80} is not a stored comparison of sdeflow (WorkPrecision.to_json)."
            ) from None

    def plot(self) -> Any:
        """Error with two standard errors against evaluations and, where taken, times: a matplotlib figure (extra ``plot``)."""
        from sdeflow.plotting import WorkPoint
        from sdeflow.plotting import work_precision as draw

        curves = {
            name: [
                WorkPoint(
                    r.evaluations,
                    r.seconds,
                    r.error or 0.0,
                    max((r.error or 0.0) - 2 * (r.spread or 0.0), (r.error or 0.0) / 10),
                    (r.error or 0.0) + 2 * (r.spread or 0.0),
                )
                for r in self.curve(name)
                if r.error
            ]
            for name in dict.fromkeys(run.method for run in self.runs)
        }
        return draw(
            {self.problem: curves}, x_label="evaluations of drift and diffusion", y_label="RMS error at the end"
        )


@dataclass(frozen=True)
class Change:
    """A run that differs from an earlier one beyond noise.

    Attributes:
        old: The earlier run.
        new: The later one.
        what: ``"slower"``, ``"faster"``, ``"less accurate"``, ``"more accurate"``, ``"fails"`` or ``"works"``.
        ratio: New over old, of the times or the errors; NaN where one failed.
    """

    old: Run
    new: Run
    what: str
    ratio: float

    def __str__(self) -> str:
        of = f"{self.new.method}, {self.new.rule} {self.new.value:.3g}"
        if self.what == "fails":
            return f"{of}: fails now: {self.new.message}"
        if self.what == "works":
            return f"{of}: works now"
        return (
            f"{of}: {self.what}, {self.ratio:.3g} times the {'time' if self.what in ('slower', 'faster') else 'error'}"
        )


def compare(old: WorkPrecision, new: WorkPrecision) -> list[Change]:
    """What has changed beyond noise between two comparisons of one problem.

    Times differ where their medians are more than 3 interquartile ranges (of both, in quadrature) and a tenth apart; errors,
    where they are more than 6 standard errors apart, or a tenth where there is one sample.

    Raises:
        ArgumentError: They are of different problems.
    """
    if old.problem != new.problem:
        raise ArgumentError(f"the results are of {old.problem!r} and of {new.problem!r}; compare like with like.")
    before = {run.key: run for run in old.runs}
    return [change for run in new.runs if run.key in before for change in _changes(before[run.key], run)]


def _changes(old: Run, new: Run) -> Iterable[Change]:
    if bool(old.message) != bool(new.message):
        yield Change(old, new, "fails" if new.message else "works", float("nan"))
    if old.message or new.message:
        return
    if old.seconds and new.seconds and abs(new.seconds - old.seconds) > max(_noise(old, new), LEAST * old.seconds):
        slower = new.seconds > old.seconds
        yield Change(old, new, "slower" if slower else "faster", new.seconds / old.seconds)
    if old.error and new.error is not None:
        noise = ERROR_SIGMAS * ((old.spread or 0.0) ** 2 + (new.spread or 0.0) ** 2) ** 0.5
        if abs(new.error - old.error) > max(noise, LEAST * old.error):
            yield Change(old, new, "less accurate" if new.error > old.error else "more accurate", new.error / old.error)


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _why(message: str) -> str:
    """Why a run has no error; what was not run has not failed."""
    return message if message.startswith("not run") else f"failed: {message}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
