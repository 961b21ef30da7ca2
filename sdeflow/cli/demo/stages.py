"""Stages of a long command: a progress bar over all of them with the time left, and the seconds of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

__all__ = ["Stages"]


class Stages:
    """Run stages one after the other; their expected shares make the bar move evenly.

    Arguments:
        console: Where the bar is.
        expected: The seconds that each stage is expected to take, by name, in order.
    """

    def __init__(self, console: Console, expected: Mapping[str, float]) -> None:
        self.expected = dict(expected)
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            _TimeLeft(self),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=sum(self.expected.values()))
        self._name = ""

    def __enter__(self) -> Stages:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """One stage: the description while it runs, its seconds when it is done."""
        began = time.perf_counter()
        self._name = name
        self._bar.update(self._task, description=name)
        yield
        self.seconds[name] = time.perf_counter() - began
        self._bar.advance(self._task, self.expected[name])

    def note(self, text: str) -> None:
        """What the stage is at."""
        self._bar.update(self._task, description=f"{self._name}: {text}")

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    @property
    def left(self) -> float:
        """Seconds to go: what was expected for the stages to come, at the pace of those that are done."""
        done = sum(self.expected[name] for name in self.seconds)
        pace = sum(self.seconds.values()) / done if done else 1.0
        current = max(0.0, self.elapsed - sum(self.seconds.values()))
        todo = pace * (sum(self.expected.values()) - done)
        return max(0.0, todo - min(current, pace * self.expected.get(self._name, 0.0)))


class _TimeLeft(ProgressColumn):
    """The bar advances stage by stage; this goes on within one."""

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self._stages = stages

    def render(self, task: Task) -> Text:
        return Text(f"{self._stages.elapsed:3.0f} s, about {self._stages.left:.0f} s left", style="dim")
