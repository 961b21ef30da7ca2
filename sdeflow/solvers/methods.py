"""The registry: every method is data, and what it can do is read from it, not from its code."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from sdeflow.errors import MethodError
from sdeflow.processes.process import Process

__all__ = ["Limit", "Method", "Methods", "noise_class", "noise_classes"]


@dataclass(frozen=True)
class Limit:
    """Something that a method does not do although each part of it fits; it applies where all that it names is the case.

    Attributes:
        reason: Why, in a sentence that goes on from "… cannot solve this:".
        noise: The classes of noise it is about; all, if empty.
        calculus: The calculus it is about.
        adaptive: Whether it is about adaptive steps or fixed ones.
        gradient: The mode of ``gradient=`` it is about.
    """

    reason: str
    noise: tuple[str, ...] = ()
    calculus: str | None = None
    adaptive: bool | None = None
    gradient: str | None = None

    def applies(self, process: Process, adaptive: bool | None, gradient: str | None) -> bool:
        return (
            (not self.noise or bool(set(noise_classes(process)) & set(self.noise)))
            and self.calculus in (None, process.calculus)
            and self.adaptive in (None, adaptive)
            and self.gradient in (None, gradient)
        )


@dataclass(frozen=True)
class Method:
    """A method of :func:`sdeflow.solve`.

    Attributes:
        name: What to pass as ``method=``.
        engine: What steps it: ``"native"``, ``"adaptive"``, ``"torchsde"`` or ``"torchdiffeq"``.
        ode_order: The order on ODEs, or None where it is not for ODEs, or where no claim is made (it is for nothing else then).
        strong_order: The mean-square order for each class of noise that it solves: ``"additive"``, ``"diagonal"``,
            ``"scalar"``, ``"commutative"`` (general, with columns that commute), ``"general"``.
        weak_order: Likewise, for expectations; None where no claim is made.
        calculus: ``"ito"``, ``"stratonovich"`` or ``"any"``. Additive noise is the same in both, and goes with either.
        drift_evaluations: Evaluations of the drift per step; None where it is adaptive or varies.
        diffusion_evaluations: Evaluations of the diffusion per step.
        needs: What it asks for: ``"W"``, ``"H"`` (space-time Lévy area), ``"A"`` (Lévy area), ``"schedule"``, ``"score"``.
        fixed: Whether it takes steps of a given size.
        adaptive: Whether it takes tolerances.
        stepping: Whether adaptive steps are shared by the batch, each sample's own, or as one likes.
        gradients: Modes of ``gradient=`` that it has.
        paper: Where it comes from: title, year, link.
        options: What its engine is told besides.
        limits: What it does not do, although each part of it fits.
        refusal: Why ``solve`` refuses it in spite of all, or empty.
    """

    name: str
    engine: str
    ode_order: float | None = None
    strong_order: Mapping[str, float] = field(default_factory=dict)
    weak_order: Mapping[str, float] = field(default_factory=dict)
    calculus: str = "any"
    drift_evaluations: int | None = None
    diffusion_evaluations: int | None = None
    needs: tuple[str, ...] = ()
    fixed: bool = True
    adaptive: bool = False
    stepping: tuple[str, ...] = ("shared",)
    gradients: tuple[str, ...] = ("backprop",)
    paper: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    refusal: str = ""

    def misfit(
        self, process: Process, *, adaptive: bool | None = None, stepping: str = "shared", gradient: str | None = None
    ) -> str:
        """Why this method cannot solve this process, or an empty string.

        Arguments:
            process: The process.
            adaptive: Whether its steps are to adapt; None where that is open.
            stepping: Whose the steps are, if they adapt.
            gradient: The mode of ``gradient=``; None where that is open.
        """
        if self.refusal:
            return self.refusal
        for limit in self.limits:
            if limit.applies(process, adaptive, gradient):
                return limit.reason
        if misfit := self._misfit_noise(process):
            return misfit
        if "schedule" in self.needs and not process.semi_linear:
            return "it needs a process with a schedule and a score"
        if adaptive is not None and not (self.adaptive if adaptive else self.fixed):
            return "it takes steps of fixed size (dt= or steps=)" if adaptive else "it chooses its steps (rtol=, atol=)"
        if adaptive and stepping not in self.stepping:
            return "it has one step size for the whole batch (stepping='shared')"
        # "backprop" is also the word of a solve that wants no gradient: a method without any refuses where one is wanted.
        if gradient not in (None, "backprop", *self.gradients):
            return f"it has {'gradient=' if self.gradients else 'no gradient'}{' and '.join(map(repr, self.gradients))} only"
        return ""

    def _misfit_noise(self, process: Process) -> str:
        kind = noise_class(process)
        if kind == "none":
            return "it needs noise, and this is an ODE" if self.strong_order and self.ode_order is None else ""
        if not self.strong_order:
            return "it is for ODEs, and this process has noise"
        if not set(noise_classes(process)) & set(self.strong_order):
            can = ", ".join(self.strong_order)
            if kind == "general" and "commutative" in self.strong_order:
                return (
                    "for general noise whose columns do not commute its order takes Lévy areas "
                    "(if they do commute, say so: commutative=True)"
                )
            return f"it is for {can} noise, and this process has {kind} noise"
        if self.calculus not in ("any", process.calculus) and not process.additive:
            other = "to_ito()" if self.calculus == "ito" else "to_stratonovich()"
            return (
                f"it is for {self.calculus} SDEs, and this process is in {process.calculus} form ({other} converts it)"
            )
        return ""


def noise_class(process: Process) -> str:
    """``"none"``, ``"additive"``, ``"commutative"``, or else the shape of a noise that depends on the state."""
    if process.noise == "none":
        return "none"
    if process.additive:
        return "additive"
    return "commutative" if process.noise == "general" and process.commutative else process.noise


def noise_classes(process: Process) -> tuple[str, ...]:
    """The classes that the noise of a process belongs to, the narrowest first."""
    kind = noise_class(process)
    return (kind, "general") if kind == "commutative" else (kind,)


class Methods:
    """The methods: iterating gives the entries, an index gives the one of that name, printing gives the table.

    ``name in table``, ``keys()``, ``values()`` and ``items()`` are those of a dictionary by name.

    Example:
        >>> table = sf.methods()
        >>> table["heun"].ode_order, table["heun"].strong_order["general"]
        (2, 0.5)
        >>> sorted({method.engine for method in table})
        ['adaptive', 'native', 'torchdiffeq', 'torchsde']
    """

    def __init__(self, entries: Mapping[str, Method]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: object) -> Method:
        """The method of that name, or a MethodError with the nearest."""
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        raise MethodError(f"method={name!r} is not known. {self._hint(str(name))}sf.methods() lists them all.")

    def _hint(self, word: str) -> str:
        # A wrapped method is also found by its name in its own library; where two share it, the native one is meant.
        names = {name.rpartition(":")[2]: name for name in reversed(self._entries)}
        names.update({name: name for name in self._entries})
        close = get_close_matches(word, names, n=1, cutoff=0.5)
        return f"Did you mean {names[close[0]]!r}? " if close else ""

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Method]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self) -> KeysView[str]:
        return self._entries.keys()

    def values(self) -> ValuesView[Method]:
        return self._entries.values()

    def items(self) -> ItemsView[str, Method]:
        return self._entries.items()

    def fitting(
        self, process: Process, *, adaptive: bool | None = None, stepping: str = "shared", gradient: str | None = None
    ) -> list[str]:
        """The names of the methods that solve this process, in the way that is named; None leaves it open."""
        wanted: dict[str, Any] = {"adaptive": adaptive, "stepping": stepping, "gradient": gradient}
        return [name for name, method in self._entries.items() if not method.misfit(process, **wanted)]

    def rows(self) -> list[dict[str, str]]:
        """The table as text, a dictionary for each method."""
        return [
            {
                "method": m.name,
                "ODE order": "" if m.ode_order is None else f"{m.ode_order:g}",
                "strong order": _orders(m.strong_order),
                "weak order": _orders(m.weak_order),
                "calculus": m.calculus if m.strong_order else "",
                "f, g per step": ""
                if m.drift_evaluations is None
                else f"{m.drift_evaluations}, {m.diffusion_evaluations or 0}",
                "needs": ", ".join(m.needs),
                "steps": "refused"
                if m.refusal
                else " or ".join(w for w, can in (("fixed", m.fixed), ("adaptive", m.adaptive)) if can),
                "gradients": ", ".join(m.gradients),
            }
            for m in self._entries.values()
        ]

    def __repr__(self) -> str:
        rows = self.rows()
        widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
        lines = [{key: key for key in widths}, *rows]
        return "\n".join("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip() for row in lines)


def _orders(orders: Mapping[str, float]) -> str:
    """``additive 1, else 0.5``, where all but one agree."""
    values = list(orders.values())
    if len(set(values)) <= 1:
        return ", ".join(f"{v:g}" for v in values[:1])
    return ", ".join(f"{kind} {order:g}" for kind, order in orders.items())
