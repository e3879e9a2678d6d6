"""The section of evaluations: scores on the test split, differences, a study by each task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from raykd.ablation import tables as study_tables
from raykd.ablation.results import Results as StudyResults
from raykd.evaluations import tables
from raykd.evaluations.results import Results, base_of, gather
from raykd.records.history import History
from raykd.report.elements import Bullets, Collapsible, Figure, Gallery, Section, Table, Text
from raykd.report.plots import intervals
from raykd.storage.base import SweepFolder


def evaluations(
    history: History, sweep: SweepFolder, by_task: Mapping[str, StudyResults] | None = None
) -> Iterator[Section]:
    """The section, if something was evaluated. `by_task` are the results of a study by each score."""
    if not history.evaluated:
        return
    found = gather(history.evaluated, sweep, base_of(history))
    yield Section("Evaluations", [*parts(found), *_studies(by_task or {})])


def parts(found: Results) -> list[Any]:
    """The tables, the figures, and what has to be known of them."""
    if not found.rows:
        return [Text("No task has ended well."), Bullets(tables.notes(found), "warn")]
    every: list[Any] = [Table("Scores on the test split", *tables.scores(found))]
    compared = tables.compared(found)
    if compared is not None:
        every.append(Table(f"Differences from {found.base}", *compared))
    if figures := list(_figures(found)):
        every.append(Gallery(figures))
    if said := tables.notes(found):
        every.append(Bullets(said, "warn"))
    return [*every, Bullets(tables.legend(found), "quiet")]


def _figures(found: Results) -> Iterator[Figure]:
    """The scores of each task with their intervals; the tables hold the numbers."""
    for column, title in zip(found.columns, tables.titles(found.columns), strict=True):
        cells = [(row.name, row.cells[column]) for row in found.rows if column in row.cells]
        rows = [(name, cell.mean, *cell.interval) for name, cell in cells if math.isfinite(cell.mean)]
        if rows:
            alt = f"Score on {title} of each row, percent, with its interval. The table holds the numbers."
            yield Figure(title, alt, intervals(rows, "percent"))


def _studies(by_task: Mapping[str, StudyResults]) -> Iterator[Collapsible]:
    """The table of a study by each task, which a reader opens."""
    for name, study in by_task.items():
        table = Table(f"Arms by {name}, the base first", *study_tables.table(study, compute=False))
        shared = "The tables of all tasks share one alpha, so each p is multiplied by their number."
        yield Collapsible(f"The study by {name}", [table, Bullets([*study.notes, shared], "quiet")])
