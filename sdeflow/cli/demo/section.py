"""What a part of the demo has to say, for the terminal, the page and results.json alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Picture", "Section", "Table", "number"]


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the page.

    Attributes:
        file: Its name.
        caption: What one should see.
        alt: What it shows, for those who do not see it.
    """

    file: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Section:
    """One part of the demo.

    Attributes:
        key: Its name in results.json.
        title: Its heading.
        text: A paragraph: what was done.
        tables: For the terminal and the page.
        pictures: For the page.
        figures: Everything measured, made of plain numbers, strings, lists and dictionaries.
    """

    key: str
    title: str
    text: str
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    figures: dict[str, Any] = field(default_factory=dict)


def number(value: float, digits: int = 3) -> str:
    """A number for a table: significant digits, powers of ten only where they are needed."""
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e")
