"""The section of a search on its axes: which matter, and where on them the good trials lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from raykd.report import sweep_figures as figures
from raykd.report.marks import intervals
from raykd.report.parts import Bullets, Figure, Gallery, Section, Table, Text
from trainables.errors import SweepFailed

if TYPE_CHECKING:
    from raykd.history import History, TrialRecord
    from raykd.spec import SweepSpec

RESAMPLES = 100  # of the importances


def parameters(spec: SweepSpec, history: History) -> Section:
    """Which axes matter, and where on them the good trials lie."""
    if not spec.axes and len(spec.methods) == 1:
        return Section("Parameters", [Text("Nothing was searched: this sweep has no axes.")])
    scored = [
        t for t in history.trials.values() if t.best is not None and t.status in ("finished", "stopped")
    ]
    if not scored:
        return Section("Parameters", [Text("No trial has ended with a score yet.")])
    return Section(
        "Parameters", [*_importance(spec, history), *_parallel(spec, scored), _slices(spec, scored)]
    )


def _importance(spec: SweepSpec, history: History) -> Iterator[Any]:
    from raykd.importance import importances

    if not spec.axes:
        return
    try:
        found = importances(spec, history, resamples=RESAMPLES)
    except SweepFailed as error:
        yield Text(f"No importances: {error}.")
        return
    left = ", ".join(f"{n} {why}" for why, n in found.left_out.items() if n)
    for table in found.tables:
        doubts = [line for line in table.warnings if line]
        if table.shares:
            rows = [(s.axis, 100 * s.share, 100 * s.low, 100 * s.high) for s in table.shares]
            alt = (
                f"Share of the importance by {found.evaluator} ({found.meaning}) over {table.configurations} "
                f"configurations ({table.label}), with 95 % bootstrap intervals; best score up to epoch "
                f"{found.epoch} of {found.epochs}" + (f"; left out: {left}" if left else "") + "."
            )
            cells = [[name, *(f"{x:.0f} %" for x in (share, low, high))] for name, share, low, high in rows]
            data = Table(f"Importances: {table.label}", ["axis", "share", "from", "to"], cells)
            title = "Which axes matter" + (f", where {table.label}" if table.condition else "")
            colours = ["@stopped" if any("too small" in d for d in doubts) else "@finished"] * len(rows)
            plot = intervals(rows, "share, percent", zero=True, colours=colours)
            yield Figure(title, alt, plot, data)
        else:
            yield Text(f"No importances ({table.label}).")
        if doubts:
            yield Bullets(doubts, "warn")
    if found.warnings:
        yield Bullets(list(found.warnings), "quiet")


def _parallel(spec: SweepSpec, scored: list[TrialRecord]) -> Iterator[Any]:
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
        alt += f" Axes that only some trials have are left out: {', '.join(left)}."
    least = 100 * (len(shared) + 1)
    yield Figure("All settings at once", alt, figures.parallel(shared, spec.axes, scored), None, least)


def _slices(spec: SweepSpec, scored: list[TrialRecord]) -> Gallery:
    names = list(dict.fromkeys(name for t in scored for name in t.params))
    found = []
    for name in names:
        of = sum(name in t.params for t in scored)
        scale = ", logarithmic" if figures.logarithmic(spec.axes.get(name)) else ""
        alt = f"Best score of {of} trials by {name}{scale}; open circles were stopped early."
        found.append(Figure(name, alt, figures.slices(name, spec.axes.get(name), scored)))
    return Gallery(found)
