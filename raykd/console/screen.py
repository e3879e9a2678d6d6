"""Output on the terminal: lines, tables, lists, data as JSON, and a user's mistake."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console as Rich
from rich.markup import escape
from rich.text import Text

from raykd.console.tables import drawn, parted
from raykd.console.wording import finite, number
from trainables.core.safe_text import line, plain

_TIE = "\N{NO-BREAK SPACE}"
_LINES = 2  # a table with more lines per row on average is shown as a list


class Line(NamedTuple):
    """A line of text."""

    text: str = ""
    style: str = ""  # one of rich's: bold, dim, yellow


class Grid(NamedTuple):
    """A table. It is divided into several where it does not fit."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    first: Sequence[str] = ()  # the columns that come first in a divided table


class Terminal(Rich):
    """A terminal that shows control characters and emoji names as text; raykd's own styles still work."""

    def __init__(self, **how: Any) -> None:
        super().__init__(highlight=False, soft_wrap=True, emoji=False, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """As rich's, of a text without control characters."""
        return super().render_str(plain(text), **how)


class Screen:
    """Standard output: lines and tables for people, JSON for programs."""

    def __init__(self, rich: Rich | None = None) -> None:
        self.out = rich or Terminal()
        self._narrow = self.out.is_terminal or "COLUMNS" in os.environ
        if not self._narrow:
            self.out.width = 160  # a file or a pipe has no width of its own, and 80 would divide the tables

    def parts(self, parts: Iterable[Line | Grid]) -> None:
        """Show lines and tables one after the other."""
        for part in parts:
            if isinstance(part, Line):
                self.text(*part)
            else:
                self.rows(*part)

    def json(self, data: Any) -> None:
        """Print one JSON document. NaN and infinite numbers become null."""
        self.out.print(json.dumps(finite(data), indent=2, default=str), markup=False, highlight=False)

    def rows(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        first: Sequence[str] = (),
        elsewhere: str = "",
    ) -> None:
        """Show a table. Columns that do not fit follow in further tables; or, if they are also in the file
        `elsewhere`, a line names them."""
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
        """Show a list: as a table where that is easy to read, else each name with indented lines below."""
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
        """Show a text. It is wrapped between words on a terminal, and elsewhere if it `wraps`."""
        lines = escape("\n".join(self.wrapped(line(text), indent, wraps=wraps)))
        self.out.print(f"[{style}]{lines}[/{style}]" if style else lines)

    def wrapped(self, text: str, indent: str = "", hang: str = "  ", wraps: bool = False) -> list[str]:
        """The lines of a text. Further lines are indented by `hang`; a command after `:  ` stays whole."""
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


def complain(problem: str) -> None:
    """Show a user's mistake on standard error."""
    Terminal(stderr=True).print(f"[red]raykd:[/red] {escape(line(problem))}")
