"""The section on a search's axes: their importance, and the values of good trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from raykd.records.history import ENDED_WELL, History, TrialRecord
from raykd.report import sweep_figures as figures
from raykd.report.elements import Bullets, Collapsible, Figure, Gallery, Section, Table, Text
from raykd.report.plots import intervals
from raykd.spec.search import SearchSpec
from trainables.core.errors import SweepFailed

if TYPE_CHECKING:
    from raykd.searching.importance import Importances, Weighed

RESAMPLES = 100  # of the bootstrap for importances
MOST_NAMED = 8  # axes in a caption
RESAMPLES_OF_MANY = 20  # for a search over methods, which has a table for each method

Progress = Callable[[int, int], None] | None  # called with (done, total)


def parameters(spec: SearchSpec, history: History, progress: Progress = None) -> Section:
    """The importance of each axis, and scores against its values."""
    title = "Parameters"
    if not spec.axes and len(spec.methods) == 1:
        return Section(title, [Text("Nothing was searched: this sweep has no axes.")])
    scored = [t for t in history.trials.values() if t.best is not None and t.status in ENDED_WELL]
    if not scored:
        return Section(title, [Text("No trial has ended with a score yet.")])
    return Section(
        title, [*_importance(spec, history, progress), *_parallel(spec, scored), *_slices(spec, scored)]
    )


def _importance(spec: SearchSpec, history: History, progress: Progress) -> Iterator[Any]:
    """A figure for each table of importances, and warnings. Tables with a condition are collapsed."""
    from raykd.searching.importance import importances

    if not spec.axes:
        return
    resamples = RESAMPLES if len(spec.methods) == 1 else RESAMPLES_OF_MANY
    try:
        found = importances(spec, history, resamples=resamples, progress=progress)
    except SweepFailed as error:
        yield Text(f"No importances: {error}.")
        return
    for table in found.tables:
        parts = list(_weighed(found, table))
        folded = Collapsible(f"Which axes matter, where {table.label}", parts)
        yield from [folded] if table.condition else parts
    if found.warnings:
        yield Bullets(list(found.warnings), "quiet")


def _weighed(found: Importances, table: Weighed) -> Iterator[Any]:
    doubts = list(table.warnings)
    if table.shares:
        left = ", ".join(f"{n} {why}" for why, n in found.left_out.items() if n)
        alt = (
            f"Share of the importance by {found.evaluator} ({found.meaning}) over {table.configurations} "
            f"configurations ({table.label}), 95 % intervals over {table.resamples} resamples; best score "
            f"up to epoch {found.epoch} of {found.epochs}{f'; left out: {left}' if left else ''}."
        )
        rows = [(s.axis, 100 * s.share, 100 * s.low, 100 * s.high) for s in table.shares]
        cells = [[name, *(f"{x:.0f} %" for x in numbers)] for name, *numbers in rows]
        data = Table(f"Importances: {table.label}", ["axis", "share", "from", "to"], cells)
        faint = any("too small" in line for line in doubts)
        colours = ["@stopped" if faint else "@finished"] * len(rows)
        plot = intervals(rows, "share, percent", zero=True, colours=colours)
        yield Figure("Which axes matter", alt, plot, data)
    else:
        yield Text(f"No importances ({table.label}).")
    if doubts:
        yield Bullets(doubts, "warn")


def _parallel(spec: SearchSpec, scored: list[TrialRecord]) -> Iterator[Any]:
    names = list(dict.fromkeys(name for t in scored for name in t.params))
    shared = [name for name in names if all(name in t.params for t in scored)]
    if not shared or len(scored) < 2:
        yield Text("Parallel coordinates need two trials with a score that share an axis.", "quiet")
        return
    left = [name for name in names if name not in shared]
    alt = (
        f"Each line is one of {len(scored)} trials, at its value on each axis and, last, its score; coloured "
        "by quarter of the score (a click on a quarter hides it). The table of all trials holds the numbers."
    )
    if left:
        which = f": {', '.join(left)}" if len(left) <= MOST_NAMED else ""
        alt += f" {len(left)} axes that only some trials have are left out{which}."
    least = 100 * (len(shared) + 1)
    yield Figure("All settings at once", alt, figures.parallel(shared, spec.axes, scored), None, least)


def _slices(spec: SearchSpec, scored: list[TrialRecord]) -> Iterator[Any]:
    """A small figure for each axis. Those of axes that not all trials have are collapsed."""
    names = list(dict.fromkeys(name for t in scored for name in t.params))
    everywhere: list[Figure] = []
    somewhere: list[Figure] = []
    for name in names:
        of = sum(name in t.params for t in scored)
        scale = ", logarithmic" if figures.logarithmic(spec.axes.get(name)) else ""
        alt = f"Best score of {of} trials by {name}{scale}; open circles were stopped early."
        figure = Figure(name, alt, figures.slices(name, spec.axes.get(name), scored))
        (everywhere if of == len(scored) else somewhere).append(figure)
    if everywhere:
        yield Gallery(everywhere)
    if somewhere:
        yield Collapsible(f"Axes that not every trial has ({len(somewhere)})", [Gallery(somewhere)])
