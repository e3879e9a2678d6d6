"""What can be shown at all: lines, tables, data as JSON, and a user's mistake."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console as Rich
from rich.markup import escape
from rich.table import Table

from raykd.console.wording import number


class Line(NamedTuple):
    """A line of text."""

    text: str = ""
    style: str = ""  # one of rich's: bold, dim, yellow


class Grid(NamedTuple):
    """A table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Screen:
    """Standard output: lines and tables for people, JSON for programs."""

    def __init__(self, rich: Rich | None = None) -> None:
        self.out = rich or Rich(highlight=False, soft_wrap=True)
        if not self.out.is_terminal:
            self.out.width = 160  # a file or a pipe has room; 80 columns would cut the tables

    def parts(self, parts: Iterable[Line | Grid]) -> None:
        """Lines with their style, and tables, one after the other."""
        for part in parts:
            if isinstance(part, Line):
                self.out.print(
                    f"[{part.style}]{escape(part.text)}[/{part.style}]" if part.style else escape(part.text)
                )
            else:
                self.rows(*part)

    def json(self, data: Any) -> None:
        """Machine-readable output: one JSON document. Numbers that JSON lacks become null."""
        self.out.print(json.dumps(_finite(data), indent=2, default=str), markup=False, highlight=False)

    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(escape(number(cell)) for cell in row))
        self.out.print(table)

    def text(self, text: str) -> None:
        self.out.print(escape(text))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def complain(problem: str) -> None:
    """A user's mistake, on standard error."""
    Rich(stderr=True, highlight=False, soft_wrap=True).print(f"[red]raykd:[/red] {escape(problem)}")
