"""What decides the numbers of a run: checked once, and written with every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sdeflow.errors import ArgumentError, choose
from sdeflow.processes.parameters import finite_number
from sdeflow.training.held_out import CRITERIA
from sdeflow.training.rates import SCHEDULES

__all__ = ["Settings"]

PRECISIONS = ("full", "bf16-mixed", "16-mixed")
LATER = ("steps", "patience")  # what may be another when a run is taken up again


@dataclass(frozen=True)
class Settings:
    """The options of :func:`sdeflow.fit` that the result depends on.

    Raises:
        ArgumentError: One of them means nothing.
    """

    steps: int
    names: tuple[str | None, ...]
    batch_size: int
    optimiser: str
    learning_rate: float
    warmup: int
    schedule: str
    clip: float | None
    average: float
    precision: str
    evaluate_every: int
    patience: int | None
    criterion: str
    drop_labels: float | None

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("warmup", 0), ("evaluate_every", 1), ("patience", 1)):
            whole(name, getattr(self, name), least)
        if finite_number("learning_rate", self.learning_rate) <= 0:
            raise ArgumentError(f"learning_rate={self.learning_rate!r}: give a number > 0.")
        if self.clip is not None and not self.clip > 0:
            raise ArgumentError(f"clip={self.clip!r}: give the largest norm of a gradient, > 0, or None.")
        if not 0 <= finite_number("ema", self.average) < 1:
            raise ArgumentError(f"ema={self.average!r}: give a decay from 0 (no average) to below 1.")
        if self.drop_labels is not None and not 0 < finite_number("drop_labels", self.drop_labels) < 1:
            raise ArgumentError(f"drop_labels={self.drop_labels!r}: give a part of the rows, between 0 and 1, or None.")
        if self.drop_labels is not None and "label" not in self.names:
            raise ArgumentError(
                f"drop_labels={self.drop_labels!r} needs labels, and the parts of a batch are {self.names}; name one 'label'."
            )
        choose("schedule", self.schedule, SCHEDULES)
        choose("precision", self.precision, PRECISIONS)
        choose("criterion", self.criterion, CRITERIA)

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "names": list(self.names)}

    def check_same(self, stored: Mapping[str, Any], source: str) -> None:
        """Refuse to take up a run that was made with others.

        Raises:
            ArgumentError: One differs that decides the numbers.
        """
        for name, value in self.record().items():
            if name in LATER and (name != "steps" or self.schedule == "constant"):
                continue
            if stored.get(name) != value:
                raise ArgumentError(
                    f"the run in {source} was made with {name}={stored.get(name)!r}, and now {name}={value!r} is given: "
                    f"it would not be the same run. Give what it was made with, or another folder."
                )


def whole(name: str, value: Any, least: int) -> None:
    if value is None and name == "patience":
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(f"{name}={value!r} is not a whole number ≥ {least}.")


def check_names(names: Sequence[str | None]) -> tuple[str | None, ...]:
    """The names of the parts of a batch; one of them is x.

    Raises:
        ArgumentError: None is, or one is no word, or there twice.
    """
    if isinstance(names, str):
        raise ArgumentError(f"names={names!r} is one word; give a tuple such as ('x', 'label').")
    given = [name for name in names if name is not None]
    if "x" not in given or len(set(given)) < len(given) or not all(isinstance(name, str) for name in given):
        raise ArgumentError(
            f"names={tuple(names)!r}: name each part of a batch once, one of them 'x', or None for a part that is not used."
        )
    return tuple(names)
