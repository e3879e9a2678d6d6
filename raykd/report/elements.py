"""What a report page is made of, as plain data: sections say it, `page.py` writes it as HTML.

Text is what a reader sees, never HTML: the page escapes all of it. Only the texts inside a `Figure.plot` are
read as markup by plotly, so figures escape theirs (`figures.label`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_NUMBER = re.compile(r"[-+<±]?\s?\d[\d.,e+\-/ ±\[\]%×()kMGT]*|\[.*\]|–|base|")


@dataclass(frozen=True)
class Text:
    """A paragraph. `lead`: the answer; `warn`: what limits it; `quiet`: how it was come by."""

    text: str
    tone: Literal["plain", "lead", "warn", "quiet"] = "plain"
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]
    tone: Literal["plain", "warn", "quiet"] = "plain"
    kind: Literal["bullets"] = "bullets"


@dataclass(frozen=True)
class Facts:
    """Terms and what they are."""

    rows: Sequence[tuple[str, str]]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True)
class Code:
    """Something to paste."""

    text: str
    kind: Literal["code"] = "code"


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of a row is the row's heading. `strong`: rows to stand out."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()
    kind: Literal["table"] = "table"

    @property
    def numeric(self) -> list[bool]:
        """Columns of numbers, which stand to the right."""
        columns = [[row[at] for row in self.rows] for at in range(len(self.columns))]
        numbers = [any(cells) and all(map(_NUMBER.fullmatch, cells)) for cells in columns]
        return [False, *numbers[1:]]


@dataclass(frozen=True)
class Figure:
    """A plot, what it shows in words, and its numbers for those who cannot see it or want them."""

    title: str
    alt: str
    plot: dict[str, Any]  # `data` and `layout` as plotly takes them; colours as `@name` of the page's palette
    table: Table | None = None  # none where another table of the page holds the numbers
    least: int = 0  # pixels below which it scrolls instead of shrinking
    kind: Literal["figure"] = "figure"


@dataclass(frozen=True)
class Gallery:
    """Small figures side by side, as many in a row as there is room for."""

    figures: Sequence[Figure]
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True)
class Links:
    """Files, by what they are: (name, address relative to the page or empty, what it is)."""

    rows: Sequence[tuple[str, str, str]]
    kind: Literal["links"] = "links"


@dataclass(frozen=True)
class Collapsible:
    """What is opened by those who want it."""

    title: str
    parts: Sequence[Any]
    kind: Literal["fold"] = "fold"


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: Sequence[Any]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    kicker: str  # what it is about, above the title
    made: str
    banner: str  # said before anything else: it is still running, say; may be empty
    facts: Facts
    sections: Sequence[Section]
