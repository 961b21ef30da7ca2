"""The table of reference problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, KeysView, Mapping

import torch

from sdeflow.analysis.library.deterministic import DETERMINISTIC
from sdeflow.analysis.library.diffusion_models import DIFFUSION_MODELS
from sdeflow.analysis.library.linear import LINEAR
from sdeflow.analysis.library.nonlinear import NONLINEAR
from sdeflow.analysis.problem import Problem
from sdeflow.errors import ArgumentError, choose, nearest
from sdeflow.solvers.methods import noise_class

__all__ = ["Problems", "problems"]

Build = Callable[[int], Problem]

NOISES = ("none", "additive", "diagonal", "scalar", "general")
CALCULI = ("ito", "stratonovich")
BATCH = 1000


class Problems:
    """The reference problems: iterating gives them, an index gives the one of that name, printing gives the table.

    Problems are made anew when they are asked for, in float64: ``problems[name]`` and iteration with 1000 paths of an SDE
    (``build`` with as many as you like), and the few rows of an ODE that are of interest.

    Example:
        >>> table = sf.analysis.problems
        >>> len(table) >= 20
        True
        >>> table["van-der-pol-1000"].truth_is
        'stored'
        >>> table.fitting(noise="general", truth="exact")
        ['commuting']
        >>> table.build("gbm", batch=5).x0.shape
        torch.Size([5, 1])
    """

    def __init__(self, builders: Mapping[str, Build]) -> None:
        self._builders = dict(builders)
        self._samples: dict[str, Problem] = {}

    def build(self, name: str, *, batch: int = BATCH) -> Problem:
        """The problem of that name, an SDE with ``batch`` paths.

        Raises:
            ArgumentError: There is none of that name, or the batch is not a whole number ≥ 1.
        """
        if not isinstance(name, str) or name not in self._builders:
            raise ArgumentError(f"the problem {name!r} is not known. {nearest(str(name), self._builders)}")
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ArgumentError(f"batch={batch!r} is not a whole number ≥ 1.")
        return self._builders[name](batch)

    def __getitem__(self, name: str) -> Problem:
        return self.build(name)

    def __contains__(self, name: object) -> bool:
        return name in self._builders

    def __iter__(self) -> Iterator[Problem]:
        return (self.build(name) for name in self._builders)

    def __len__(self) -> int:
        return len(self._builders)

    def keys(self) -> KeysView[str]:
        return self._builders.keys()

    def fitting(
        self,
        *,
        noise: str | None = None,
        calculus: str | None = None,
        truth: str | None = None,
        tag: str | None = None,
    ) -> list[str]:
        """The names of the problems of which all that is named holds; None leaves it open.

        Arguments:
            noise: ``"none"`` for ODEs, ``"additive"``, or the shape of a noise that depends on the state.
            calculus: ``"ito"`` or ``"stratonovich"``, of SDEs.
            truth: ``"exact"``, ``"stored"``, ``"reference"`` or ``"moments"``.
            tag: One of :attr:`Problem.tags`, such as ``"stiff"``.

        Raises:
            ArgumentError: A word is not known.
        """
        rows = self._sketches()
        tags = sorted({word for p in rows.values() for word in p.tags})
        for what, given, words in (
            ("noise", noise, NOISES),
            ("calculus", calculus, CALCULI),
            ("truth", truth, ("exact", "stored", "reference", "moments")),
            ("tag", tag, tags),
        ):
            if given is not None:
                choose(what, given, words)
        return [
            name
            for name, p in rows.items()
            if noise in (None, noise_class(p.process))
            and (calculus is None or (p.is_stochastic and p.process.calculus == calculus))
            and truth in (None, p.truth_is)
            and (tag is None or tag in p.tags)
        ]

    def rows(self) -> list[dict[str, str]]:
        """The table as text, a dictionary for each problem."""
        return [
            {
                "problem": name,
                "noise": noise_class(p.process),
                "calculus": p.process.calculus if p.is_stochastic else "",
                "event": "×".join(map(str, p.x0.shape[1:])),
                "t": f"{p.span[0]:g} to {p.span[1]:g}",
                "truth": p.truth_is,
                "moments": ", ".join(p.moments),
                "tags": ", ".join(p.tags),
                "source": p.source,
            }
            for name, p in self._sketches().items()
        ]

    def __repr__(self) -> str:
        rows = self.rows()
        widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
        lines = [{key: key for key in widths}, *rows]
        return "\n".join("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip() for row in lines)

    def _sketches(self) -> dict[str, Problem]:
        """The problems with one path each: what tables and filters need."""
        if not self._samples:
            with torch.no_grad():
                self._samples = {name: build(1) for name, build in self._builders.items()}
        return self._samples


problems = Problems({**LINEAR, **NONLINEAR, **DIFFUSION_MODELS, **DETERMINISTIC})
