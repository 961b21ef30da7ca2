"""The errors of sdeflow: each message says what was given, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["ArgumentError", "MethodError", "SdeflowError", "SdeflowWarning", "SolveError", "TrainingError"]


class SdeflowError(Exception):
    """The base class of every error that sdeflow raises on purpose."""


class ArgumentError(SdeflowError, ValueError):
    """An argument is wrong by itself: its shape, its dtype, its value, or its name."""


class MethodError(SdeflowError):
    """A method and a process do not fit each other; the message names the methods that do."""


class SolveError(SdeflowError):
    """A solve could not be finished. What was computed is in ``solution``.

    Arguments:
        message: What happened, at what time, and what to do.
        solution: The :class:`~sdeflow.solvers.Solution` up to the failure, with its status.
    """

    def __init__(self, message: str, solution: Any = None) -> None:
        super().__init__(message)
        self.solution = solution


class TrainingError(SdeflowError):
    """Training could not go on: its loss was not finite. What was learned is in ``run``.

    Arguments:
        message: What happened, in which step, and what to do.
        run: The :class:`~sdeflow.training.Run` up to the failure; its model has the last good weights.
    """

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class SdeflowWarning(UserWarning):
    """Something was done that is right, but that is likely not what was wanted."""


def nearest(word: str, words: Iterable[str]) -> str:
    """A sentence that names the word that was probably meant, and all that there are."""
    words = sorted(words)
    close = get_close_matches(word, words, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}There are: {', '.join(map(repr, words))}."


def choose(name: str, word: object, words: Iterable[str]) -> str:
    """The word if it is one of the words, else an ArgumentError that names the nearest."""
    words = list(words)
    if not isinstance(word, str) or word not in words:
        raise ArgumentError(f"{name}={word!r} is not known. {nearest(str(word), words)}")
    return word
