"""Fields at many times that are sums and products of others, kept as such: p x + q f(x), with numbers p and q of each time.

A drift is made of a score, the score of a denoiser, and that of what a network predicts. Each is the one before times a number
and some of x, so that the whole chain comes to two numbers a time; and where a velocity and a score are of one prediction, it
is made once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdeflow.processes.together import At

__all__ = ["Affine", "Asked", "Values", "added", "combined", "scaled"]


class Fields(Sequence[At]):
    """Fields that are only made when one of them is asked for: those in the middle of a chain never are."""

    def __init__(self, like: Tensor) -> None:
        self.like = like  # a state, of which the dtype counts

    def __getitem__(self, k: Any) -> Any:
        return self._each[k]

    @cached_property
    def _each(self) -> list[At]:
        return self.made()

    @abstractmethod
    def made(self) -> list[At]:
        """Each of them."""

    def numbers(self, v: Tensor) -> Sequence[Tensor]:
        """The number of each, in the dtype of the state."""
        return v.to(self.like.dtype).unbind()


class Affine(Fields):
    """p x + q f(x) at each of some times.

    Arguments:
        of_x: p, float64 with shape ``(n,)``; None for 0.
        of_value: q, likewise.
        fields: f at each time.
        like: A state.
    """

    def __init__(self, of_x: Tensor | None, of_value: Tensor | None, fields: Sequence[At], like: Tensor) -> None:
        super().__init__(like)
        self.of_x, self.of_value, self.fields = of_x, of_value, fields

    def __len__(self) -> int:
        return len(self.fields)

    def made(self) -> list[At]:
        p, q = (None if v is None else self.numbers(v) for v in (self.of_x, self.of_value))
        if q is None:
            return [*map(_times_x, p or torch.zeros(len(self)).to(self.like).unbind())]
        if p is None:
            return [*map(_times_value, q, self.fields)]
        return [*map(_both, p, q, self.fields)]


def _times_x(p: Tensor) -> At:
    return lambda x: p * x


def _times_value(q: Tensor, field: At) -> At:
    return lambda x: q * field(x)


def _both(p: Tensor, q: Tensor, field: At) -> At:
    return lambda x: torch.addcmul(p * x, q, field(x))


class Values(Fields):
    """A number at each of some times, float64 with shape ``(n,)``, whatever x is."""

    def __init__(self, values: Tensor, like: Tensor) -> None:
        super().__init__(like)
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def made(self) -> list[At]:
        return [*map(_constant, self.numbers(self.values))]


def _constant(v: Tensor) -> At:
    return lambda x: v


class Asked(list[At]):
    """Fields that know what was asked: those of one question are one."""

    def __init__(self, fields: Iterable[At], question: tuple[Any, ...]) -> None:
        super().__init__(fields)
        self.question = question


def combined(of_x: Tensor, of_value: Tensor, fields: Sequence[At], like: Tensor) -> Affine:
    """p x + q f(x) at each of some times."""
    inner = scaled(of_value.expand(len(fields)), fields, like)
    return Affine(_sum(of_x.expand(len(fields)), inner.of_x), inner.of_value, inner.fields, like)


def scaled(factor: Tensor, fields: Sequence[At], like: Tensor) -> Affine:
    """c f(x) at each of some times."""
    if not isinstance(fields, Affine):
        return Affine(None, factor, fields, like)
    p, q = (None if v is None else factor * v for v in (fields.of_x, fields.of_value))
    return Affine(p, q, fields.fields, like)


def added(first: Sequence[At], second: Affine) -> Sequence[At]:
    """f(x) + g(x) at each of some times."""
    if not isinstance(first, Affine):
        first = scaled(torch.ones(len(first), dtype=torch.float64, device=second.like.device), first, second.like)
    if (fields := _one_of(first, second)) is not None:
        return Affine(_sum(first.of_x, second.of_x), _sum(first.of_value, second.of_value), fields, first.like)

    def sum_of(f: At, g: At) -> At:
        return lambda x: f(x) + g(x)

    return [*map(sum_of, first, second)]


def _one_of(first: Affine, second: Affine) -> Sequence[At] | None:
    """What both are made of, or None if they are not made of one."""
    one, other = first.fields, second.fields
    if first.of_value is None or second.of_value is None:
        return other if first.of_value is None else one
    same = isinstance(one, Asked) and isinstance(other, Asked) and one.question == other.question
    return one if same else None


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
