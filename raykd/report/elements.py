"""The elements of a report page as plain data. Sections are built from them, and `page.py` writes HTML.

Texts are never HTML: the page escapes all of them. Only texts inside a `Figure.plot` are read as markup by
plotly, so figures escape them (`plots.label`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_NUMBER = re.compile(r"[-+<±]?\s?\d[\d.,e+\-/ ±\[\]%×()kMGT]*|\[.*\]|–|base|")


class Element:
    """What a section may hold."""

    @property
    def kind(self) -> str:
        """The name by which the page's template knows it."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Text(Element):
    """A paragraph. `lead`: the answer; `warn`: a limit of the answer; `quiet`: how it was found."""

    text: str
    tone: Literal["plain", "lead", "warn", "quiet"] = "plain"


@dataclass(frozen=True)
class Bullets(Element):
    """A list."""

    items: Sequence[str]
    tone: Literal["plain", "warn", "quiet"] = "plain"


@dataclass(frozen=True)
class Facts(Element):
    """Terms and their values."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code(Element):
    """Commands or a file to copy."""

    text: str


@dataclass(frozen=True)
class Table(Element):
    """A table. The first cell of a row is the row's heading; the rows `strong` are in bold."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, which are aligned to the right."""
        columns = [[row[at] for row in self.rows] for at in range(len(self.columns))]
        numbers = [any(cells) and all(map(_NUMBER.fullmatch, cells)) for cells in columns]
        return [False, *numbers[1:]]


@dataclass(frozen=True)
class Figure(Element):
    """A plot, a description of it in words, and a table of its numbers."""

    title: str
    alt: str
    plot: dict[str, Any]  # `data` and `layout` as plotly takes them; colours as `@name` of the page's palette
    table: Table | None = None  # none where another table of the page holds the numbers
    least: int = 0  # pixels below which it scrolls instead of shrinking


@dataclass(frozen=True)
class Gallery(Element):
    """Small figures side by side, as many in a row as fit."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Links(Element):
    """Links to files: (name, address relative to the page or empty, description)."""

    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Collapsible(Element):
    """Elements that are hidden until a reader opens them."""

    title: str
    parts: Sequence[Any]


@dataclass(frozen=True)
class Section:
    """A heading and the elements below it."""

    title: str
    parts: Sequence[Any]

    @property
    def anchor(self) -> str:
        """The name that links within the page use."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    kicker: str  # what it is about, above the title
    made: str
    banner: str  # shown first, such as that the sweep is still running; may be empty
    facts: Facts
    sections: Sequence[Section]
