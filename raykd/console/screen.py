"""What can be shown at all: lines, tables, lists, data as JSON, and a user's mistake."""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console as Rich
from rich.markup import escape
from rich.text import Text

from raykd.console.tables import drawn, parted
from raykd.console.wording import number
from trainables.core.safe_text import line, plain

_TIE = "\N{NO-BREAK SPACE}"
_LINES = 2  # of an entry of a table on average, above which a list is easier to read


class Line(NamedTuple):
    """A line of text."""

    text: str = ""
    style: str = ""  # one of rich's: bold, dim, yellow


class Grid(NamedTuple):
    """A table. Where it does not fit it is parted into several."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    first: Sequence[str] = ()  # the columns that come first then


class Terminal(Rich):
    """A terminal that shows all text and obeys none of it, but for our own styles; `:name:` is no picture."""

    def __init__(self, **how: Any) -> None:
        super().__init__(highlight=False, soft_wrap=True, emoji=False, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(plain(text), **how)


class Screen:
    """Standard output: lines and tables for people, JSON for programs."""

    def __init__(self, rich: Rich | None = None) -> None:
        self.out = rich or Terminal()
        self._narrow = self.out.is_terminal or "COLUMNS" in os.environ
        if not self._narrow:
            self.out.width = 160  # a file or a pipe has room; 80 columns would part the tables

    def parts(self, parts: Iterable[Line | Grid]) -> None:
        """Lines with their style, and tables, one after the other."""
        for part in parts:
            if isinstance(part, Line):
                self.text(*part)
            else:
                self.rows(*part)

    def json(self, data: Any) -> None:
        """Machine-readable output: one JSON document. Numbers that JSON lacks become null."""
        self.out.print(json.dumps(_finite(data), indent=2, default=str), markup=False, highlight=False)

    def rows(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        first: Sequence[str] = (),
        elsewhere: str = "",
    ) -> None:
        """A table. What does not fit stands in a second one, or, if it can be found `elsewhere`, is named."""
        cells = _cells(rows)
        columns = [line(column) for column in columns]
        part, *others = parted(columns, cells, self.out.width, first)
        self._table(*drawn(columns, cells, part, self.out.width))
        if others and elsewhere:
            names = ", ".join(columns[at] for other in others for at in other[1:])
            self.text(f"not shown: {names} (a wider terminal, or {elsewhere})", "dim")
            return
        for other in others:
            self.out.print()
            self._table(*drawn(columns, cells, other, self.out.width))

    def entries(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A list: a table where that is easy to read, else a name and indented lines under it."""
        cells = _cells(rows)
        part, *others = parted(columns, cells, self.out.width)
        head, body = drawn(columns, cells, part, self.out.width)
        if not others and body.count("\n") < _LINES * len(cells):
            self._table(head, body)
            return
        for name, about, *more in cells:
            self.text(name, "bold")
            self.text(about, indent="    ", wraps=self._narrow)
            for column, cell in zip(columns[2:], more, strict=True):
                if cell:
                    self.text(f"{column}: {cell}", "dim", indent="    ", wraps=self._narrow)

    def _table(self, head: str, body: str) -> None:
        self.out.print(f"[bold]{escape(head)}[/bold]")
        if body:
            self.out.print(escape(body))

    def text(self, text: str, style: str = "", indent: str = "", wraps: bool = False) -> None:
        """A line; several, wrapped between words, if it `wraps` or is too long for a terminal."""
        lines = escape("\n".join(self.wrapped(line(text), indent, wraps=wraps)))
        self.out.print(f"[{style}]{lines}[/{style}]" if style else lines)

    def wrapped(self, text: str, indent: str = "", hang: str = "  ", wraps: bool = False) -> list[str]:
        """The lines of a text: those after the first stand further in, and a command stays in one piece."""
        before, mark, command = text.partition(":  ")
        lines = (before + mark + command.replace(" ", _TIE)).split("\n")
        if wraps or self.out.is_terminal:  # else a program may read it
            wrapper = textwrap.TextWrapper(
                width=self.out.width,
                initial_indent=indent,
                subsequent_indent=indent + hang,
                break_long_words=False,
                break_on_hyphens=False,
            )
            return [part.replace(_TIE, " ") for line in lines for part in wrapper.wrap(line) or [""]]
        return [indent + line.replace(_TIE, " ") for line in lines]


def _cells(rows: Iterable[Sequence[Any]]) -> list[list[str]]:
    return [[number(cell) for cell in row] for row in rows]


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
    Terminal(stderr=True).print(f"[red]raykd:[/red] {escape(line(problem))}")
