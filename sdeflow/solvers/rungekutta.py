r"""One stepper for every tableau on (W, H); :mod:`~sdeflow.solvers.stochastic_tableaus` has its form.

A loop over the stages and weights of a tableau costs more than the sums themselves where states are small: 5 of the 25
microseconds of a step of Euler and Maruyama's on 2,048 numbers. So the loop is run once, over the tableau, and writes the
step out as a function: what a person would write for the method, weight by weight, with the weights that are zero left
out. ``RungeKutta(…).source`` is its text.

Three things are decided in a step and not before: whether sums may be made in place (nothing is differentiated, and h is one
number); whether the stages of a sum have one diffusion, as those of a constant one do, so that its weights add up; and whether
that is a number, which scales what is added.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from sdeflow.processes.process import Process
from sdeflow.solvers.moments import moments
from sdeflow.solvers.stochastic_tableaus import FIRST, Row, StochasticTableau, Weights
from sdeflow.solvers.terms import Advance, Terms, along
from sdeflow.types import Times

__all__ = ["RungeKutta"]

CANCELLED = 1e-14  # a sum of weights that differs from 0 by their rounding

Lines = Iterator[str]

_serial = count()


class RungeKutta:
    """A stochastic Runge–Kutta method, or a plain one where the process has no noise.

    Arguments:
        tableau: Its coefficients. What none of them uses is not evaluated.

    Attributes:
        source: The step, as the text of a function.
    """

    def __init__(self, tableau: StochasticTableau) -> None:
        self.places = tuple(sorted(set(tableau.c)))
        self.error_order = None if tableau.error is None else tableau.error_order
        self.source = "\n".join(_step(tableau, self.places))
        names = {"torch": torch, "add": torch.add, "along": along, "Advance": Advance, "plus_each": _plus_each}
        exec(compile(self.source, f"<a tableau, written out: {next(_serial)}>", "exec"), names)
        self._step = names["step"]

    def plan(self, process: Process, times: Sequence[Times], x: Tensor) -> Sequence[Any] | None:
        return moments(process, times, x)

    def step(
        self, terms: Terms, times: Sequence[Tensor], x: Tensor, first: Tensor | None = None, error: bool = False
    ) -> Advance:
        advance: Advance = self._step(terms, times, x, first, error)  # type: ignore[operator]
        return advance


def _step(tableau: StochasticTableau, places: Sequence[float]) -> Lines:
    """The lines of the function."""
    sums = (*tableau.stages, tableau.b)
    used_f, used_W, used_H = (
        [sum(_entry(getattr(weights, kind), j) != 0 for weights in sums) for j in range(len(tableau.c))]
        for kind in ("f", "W", "H")
    )
    yield "def step(terms, times, x, first, error):"
    yield "    h, W, H = terms.h, terms.W, terms.H"
    yield "    noisy, last = W is not None, None"
    yield "    own = isinstance(h, float) and not torch.is_grad_enabled()"
    yield f"    {', '.join(f't{i}' for i in range(len(places)))}, = times"
    found: list[int] = []  # the stages with a diffusion, ...
    products: set[str] = set()  # ... and the products with it that are worth making: they are used again
    for j, (c, weights) in enumerate(zip(tableau.c, tableau.stages, strict=True)):
        t, z = f"t{places.index(c)}", "x" if weights == FIRST else "z"
        if weights != FIRST:
            yield from _sum("z", "x", weights, products)
        if used_f[j]:
            yield f"    f{j} = terms.drift({t}, {z})"
        if used_W[j] or used_H[j]:
            found.append(j)
            yield "    if noisy:"
            known = "first if first is not None else " if tableau.additive and c == 0 else ""
            yield f"        g{j} = {known}terms.diffusion({t}, {z})"
            yield "        number, constant = terms.constant"
            if tableau.additive and c == 1:
                yield f"        last = g{j}"
            for v, times_used in (("W", used_W[j]), ("H", used_H[j])):
                if times_used > 1 and len(found) > 1:
                    products.add(f"g{v}{j}")
                    yield f"        g{v}{j} = None if {_one(found)} else terms.apply(g{j}, {v})"
    yield from _sum("y", "x", tableau.b, products)
    if tableau.error is None:
        yield "    return Advance(y, None, last)"
        return
    yield "    if not error:"
    yield "        return Advance(y, None, last)"
    yield "    zero = torch.zeros_like(x)"
    yield from _sum("e", "zero", tableau.error, products)
    yield "    return Advance(y, e, last)"


def _sum(z: str, x: str, weights: Weights, products: Collection[str]) -> Lines:
    """``z = x + …``: the first sum makes a new tensor, and the others are added to it, in place where they may be."""
    own = False
    for j, w in _entries(weights.f):
        yield f"    {z} = {_added(z, x, own, f'f{j}', f'{w!r} * h', 'own')} else along({z if own else x}, f{j}, {w!r}, h)"
        own = True
    if not (any(weights.W) or any(weights.H)):
        if not own:
            yield f"    {z} = {x}"
        return
    yield "    if noisy:"
    stages = sorted({j for row in (weights.W, weights.H) for j, _ in _entries(row)})
    totals = [(v, total) for v, row in (("W", weights.W), ("H", weights.H)) if abs(total := math.fsum(row)) > CANCELLED]
    same = list(_with_one(z, x, own, f"g{stages[0]}", totals))
    if len(stages) == 1:
        yield from (f"        {line}" for line in same)
    else:
        yield f"        if {_one(stages)}:"
        yield from (f"            {line}" for line in same or [f"{z} = {x}" if not own else "pass"])
        yield "        else:"
        for v, row in (("W", weights.W), ("H", weights.H)):
            for j, w in _entries(row):
                product = f"g{v}{j}" if f"g{v}{j}" in products else None
                yield f"            {z} = plus_each(terms, {z if own else x}, g{j}, {product}, {v}, {w!r}, {own and 'own'})"
                own = True
    if not _entries(weights.f):
        yield "    else:"
        yield f"        {z} = {x}"


def _with_one(z: str, x: str, own: bool, g: str, totals: Sequence[tuple[str, float]]) -> Lines:
    """The noise where all stages have one diffusion."""
    for v, w in totals:
        into = z if own else x
        scaled = _added(z, x, own, v, f"{w!r} * number", f"{'own and ' if own else ''}{g} is constant")
        yield f"{z} = {scaled} else terms.plus({into}, {g}, {v}, {w!r}, {own and 'own'})"
        own = True


def _added(z: str, x: str, own: bool, value: str, weight: str, condition: str) -> str:
    call = f"{z}.add_({value}" if own else f"add({x}, {value}"
    return f"{call}, alpha={weight}) if {condition}"


def _plus_each(
    terms: Terms, x: Tensor, g: Tensor, product: Tensor | None, v: Tensor, weight: float, in_place: bool
) -> Tensor:
    """x + w g v, with the product if it is there."""
    if product is None:
        return terms.plus(x, g, v, weight, in_place)
    return x.add_(product, alpha=weight) if in_place else torch.add(x, product, alpha=weight)


def _one(stages: Sequence[int]) -> str:
    """Whether the diffusions of some stages are one tensor."""
    return " is ".join(f"g{j}" for j in stages)


def _entries(row: Row) -> list[tuple[int, float]]:
    return [(j, w) for j, w in enumerate(row) if w]


def _entry(row: Row, j: int) -> float:
    return row[j] if j < len(row) else 0.0
