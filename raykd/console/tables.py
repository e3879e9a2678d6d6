"""Draws a table in lines of a given width, divided into several tables where the columns do not fit.

    for part in parted(columns, rows, 80):
        print(*drawn(columns, rows, part, 80), sep="\\n")

rich's tables cannot do it: they fold or crop numbers in narrow columns, and never divide a table.
A cell that holds a word may wrap: at blanks, and within names such as `anchors=in_batch`. Every other cell,
such as a number or an interval, stays in one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.cells import cell_len

Rows = Sequence[Sequence[str]]

_GAP = "  "
_HANG = "  "  # indent of a cell's further lines, so that they do not look like rows
_TEXT = 24  # least width of a column of words that needs so much
_HEADER = 13  # longest header, in characters, that stays in one line
_WORD = re.compile(r"[^\W\d_]{2,}")
_NUMBER = re.compile(r"\W*\d")
# `_BLANKS` keeps 80 ± 1 and [0.5, 1] whole; `_INSIDE` keeps 1e-05 and v1.5 whole, since a digit follows.
_BLANKS = re.compile(r"(?<=\s)(?![±%×])(?<!± )(?![^\[\]]{0,20}\])")
_INSIDE = re.compile(r"(?<=\w[-_./])(?=[^\W\d_])|(?<==)(?=\S)")


def parted(columns: Sequence[str], rows: Rows, width: int, first: Sequence[str] = ()) -> list[list[int]]:
    """The indices of the columns of each table that fits into `width`: one table, if all columns fit.

    Else every table begins with the first column. The columns named in `first` come first, then the others in
    their order.
    """
    by_column = _by_column(columns, rows)
    everything = list(range(len(columns)))
    if _together(_least(by_column, width)) <= width:
        return [everything]
    least = [_narrowest(cells, _HEADER) for cells in by_column]
    parts: list[list[int]] = []
    for at in sorted(everything[1:], key=lambda at: columns[at] not in first):
        if parts and _together([least[i] for i in (*parts[-1], at)]) <= width:
            parts[-1].append(at)
        else:
            parts.append([0, at])
    return parts or [everything]


def drawn(columns: Sequence[str], rows: Rows, part: Sequence[int], width: int) -> tuple[str, str]:
    """Header and body of the columns `part`, each of one or more lines; numbers are aligned to the right."""
    head, *body = [[line[at] for at in part] for line in (columns, *rows)]
    by_column = _by_column(head, body)
    widths = _widths(by_column, width)
    wrapped = [
        [wrap(cell, w, header=at == 0) for cell, w in zip(line, widths, strict=True)]
        for at, line in enumerate((head, *body))
    ]
    widths = [max(cell_len(text) for line in wrapped for text in line[at]) for at in range(len(part))]
    right = [at > 0 and _numeric(cells[1:]) for at, cells in enumerate(by_column)]
    texts = []
    for line in wrapped:
        pieces = [
            [_padded(piece, *how) for piece, how in zip(level, zip(widths, right, strict=True), strict=True)]
            for level in zip_longest(*line, fillvalue="")
        ]
        texts.append("\n".join(_GAP.join(level).rstrip() for level in pieces))
    return texts[0], "\n".join(texts[1:])


def wrap(cell: str, width: int, header: bool = False) -> list[str]:
    """The lines of a cell. A line is wider than `width` only if it cannot be broken."""
    hang = "" if header else _HANG
    lines = [""]
    for word in _words(cell, header):
        for piece in [word] if cell_len((hang + word).rstrip()) <= width else _INSIDE.split(word):
            if lines[-1].strip() and cell_len((lines[-1] + piece).rstrip()) > width:
                lines.append(hang)
            lines[-1] += piece
    return [line.rstrip() for line in lines]


def _pieces(cell: str, header: bool = False) -> list[str]:
    """The parts of a cell that cannot be broken, each with the indent of its line."""
    first, *others = (piece for word in _words(cell, header) for piece in _INSIDE.split(word))
    return [first, *(piece if header else _HANG + piece for piece in others)]


def _words(cell: str, header: bool) -> list[str]:
    return _BLANKS.split(cell) if header or _WORD.search(cell) else [cell]


def _by_column(columns: Sequence[str], rows: Rows) -> list[list[str]]:
    """The cells of each column, its header first."""
    return [[column, *(row[at] for row in rows)] for at, column in enumerate(columns)]


def _least(by_column: Sequence[Sequence[str]], width: int) -> list[int]:
    """The least width of each column. Short headers stay in one line if that fits for all columns."""
    least = [_narrowest(cells, _HEADER) for cells in by_column]
    return least if _together(least) <= width else [_narrowest(cells) for cells in by_column]


def _narrowest(cells: Sequence[str], whole: int = 0) -> int:
    """The least width of a column whose header stays in one line up to `whole` characters."""
    head, *body = cells
    pieces = [head] if len(head) <= whole else _pieces(head, header=True)
    pieces = [*pieces, *(piece for cell in body for piece in _pieces(cell))]
    words = max((cell_len(cell) for cell in body if len(_pieces(cell)) > 1), default=0)
    return max(min(words, _TEXT), *(cell_len(piece.rstrip()) for piece in pieces))


def _widths(by_column: Sequence[Sequence[str]], width: int) -> list[int]:
    """The width of each column: spare width goes to the columns that would have the most lines."""
    widths = _least(by_column, width)
    most = [max(map(cell_len, cells)) for cells in by_column]
    for _ in range(width - _together(widths)):
        at = max(range(len(widths)), key=lambda at: most[at] / max(1, widths[at]))
        widths[at] += most[at] > widths[at]
    return widths


def _together(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _numeric(cells: Iterable[str]) -> bool:
    said = [cell for cell in cells if cell not in ("", "–")]
    return 2 * sum(bool(_NUMBER.match(cell)) and not _WORD.search(cell) for cell in said) >= max(1, len(said))


def _padded(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - cell_len(text))
    return blanks + text if right else text + blanks
