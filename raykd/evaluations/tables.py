"""The results of evaluations as rows and sentences, for the terminal, the page and the model card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from raykd.evaluations.results import Cell, Results, Row
from raykd.stats.evaluation import Difference
from trainables.core.safe_text import markdown as markdown_text

NONE = "–"  # in a cell without a value


def scores(results: Results) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the mean over the seeds of a row on each task, with its interval, in percent."""
    rows = [
        [row.name, _runs(row), *(_score(row.cells.get(c)) for c in results.columns)] for row in results.rows
    ]
    return ["network", "runs", *titles(results.columns)], rows


def compared(results: Results) -> tuple[list[str], list[list[str]]] | None:
    """Columns and rows of the differences from the base, in points; None where there are none."""
    if not any(row.differences for row in results.rows):
        return None
    rows = [
        [row.name, *(_difference(row.differences.get(c)) for c in results.columns)]
        for row in results.rows
        if row.name != results.base
    ]
    return [f"minus {results.base}", *titles(results.columns)], rows


def titles(columns: Sequence[str]) -> list[str]:
    """The names of tasks, each behind that of its suite where there are several suites."""
    parts = [column.split("/", 2)[1:] for column in columns]
    several = len({suite for suite, _ in parts}) > 1
    return [f"{suite}/{task}" if several else task for suite, task in parts]


def notes(results: Results) -> list[str]:
    """What a reader has to know beside the numbers, a sentence each."""
    return [*results.again, *(f"failed: {said}" for said in results.failed)]


def legend(results: Results) -> list[str]:
    """How the numbers were found, a sentence each."""
    over = {cell.over for row in results.rows for cell in row.cells.values()}
    level = f"{100 * (1 - results.alpha):g} %"
    lines = [f"score on the test split, percent, the mean over the runs, and its {level} interval"]
    if "runs and images" in over:
        lines.append("several runs: the interval is over training seeds and test images together")
    if "images" in over:
        lines.append("one run: over the test images alone, and says nothing of another training seed")
    if "" in over:
        lines.append("no interval: one run, and what became of each image is not known")
    if "runs" in over:
        lines.append("where no image's outcome is known: over the training seeds alone (t)")
    if (count := _tests(results)) > 0:
        lines.append(
            "difference: paired by training seed and by image; p: corrected by Holm for "
            + (
                "the one comparison"
                if count == 1
                else f"all {count} comparisons of the table, intervals are each for itself"
            )
        )
        lines.append("teacher and baseline are one network each: another one in its place may differ")
    return lines


def data(results: Results) -> dict[str, Any]:
    """The results as plain data, for JSON."""
    return {
        "base": results.base,
        "alpha": results.alpha,
        "rows": [
            {
                "row": row.name,
                "who": row.who,
                "suite": column.split("/", 2)[1],
                "task": column.split("/", 2)[2],
                **row.cells[column]._asdict(),
                **_plain(row.cells[column], row.differences.get(column)),
            }
            for row in results.rows
            for column in results.columns
            if column in row.cells
        ],
        "failed": list(results.failed),
        "notes": list(results.again),
    }


def markdown(results: Results) -> Iterator[str]:
    """Paragraphs of Markdown: the tables, notes and legend."""
    yield _grid(*scores(results))
    found = compared(results)
    if found is not None:
        yield _grid(*found)
    if said := notes(results):
        yield "\n".join(f"- {markdown_text(line)}" for line in said)
    yield markdown_text(". ".join(line[:1].upper() + line[1:] for line in legend(results))) + "."


def _plain(cell: Cell, difference: Difference | None) -> dict[str, Any]:
    found: dict[str, Any] = {"interval": list(cell.interval)}
    if difference is not None:
        found["difference"] = {**difference._asdict(), "interval": list(difference.interval)}
    return found


def _runs(row: Row) -> str:
    return str(max((cell.runs for cell in row.cells.values()), default=0))


def _score(cell: Cell | None) -> str:
    if cell is None or not math.isfinite(cell.mean):
        return NONE
    low, high = cell.interval
    return f"{cell.mean:.2f}" + (f" [{low:.2f}, {high:.2f}]" if math.isfinite(low + high) else "")


def _difference(found: Difference | None) -> str:
    if found is None or not math.isfinite(found.mean):
        return NONE
    low, high = found.interval
    said = f"{found.mean:+.2f}"
    said += f" [{low:+.2f}, {high:+.2f}]" if math.isfinite(low + high) else ""
    if math.isfinite(found.p_holm):
        said += ", p < 0.001" if found.p_holm < 0.001 else f", p {found.p_holm:.3f}"
    return said


def _tests(results: Results) -> int:
    return sum(math.isfinite(d.p) for row in results.rows for d in row.differences.values())


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    shown = [lines[0], *lines[2:]]
    text = ["| " + " | ".join(map(markdown_text, line)) + " |" for line in shown]
    return "\n".join([text[0], "| " + " | ".join(lines[1]) + " |", *text[1:]])
