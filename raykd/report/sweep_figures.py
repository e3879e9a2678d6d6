"""The figures of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from raykd.console.wording import number
from raykd.records.history import ENDED_WELL, TrialRecord
from raykd.report.plots import (
    COLOURS,
    SYMBOLS,
    Plot,
    Trace,
    axis,
    curve,
    dots,
    epochs_axis,
    label,
    lines,
    plot,
    score,
    told,
)
from raykd.spec.axis import Axis
from raykd.spec.axis_kinds import Integer, Log, Pick

BANDS = ("best quarter", "second quarter", "third quarter", "worst quarter")
_MOST_NAMED = 12  # levels of a pick that a parallel axis names


def history(trials: Sequence[TrialRecord]) -> Plot:
    """Score by trial and status, with a line of the best so far. Failed trials are at the bottom."""
    scored = [t for t in trials if t.best is not None]
    so_far = list(accumulate(map(score, scored), max))
    line = lines([t.number for t in scored], so_far, "@best", name="best so far", hoverinfo="skip")
    line["line"]["shape"] = "hv"
    data: list[Trace] = [line]
    for status, symbol in SYMBOLS.items():
        of = [t for t in scored if t.status == status]
        if of:
            place = [t.number for t in of], list(map(score, of))
            data.append(dots(*place, map(told, of), _colour(status), symbol, name=status))
    failed = [t for t in trials if t.status == "failed"]
    if failed:
        ys = list(map(score, scored)) or [0.0]
        low = min(ys) - 0.08 * (max(ys) - min(ys) or 1.0)  # below the scores of all other trials
        place = [t.number for t in failed], [low] * len(failed)
        data.append(dots(*place, map(told, failed), "@failed", "x", name="failed"))
    return plot(data, 400, xaxis=axis("trial"), yaxis=axis("score"))


def curves(trials: Sequence[TrialRecord], highlighted: Sequence[TrialRecord]) -> Plot:
    """Score by epoch: highlighted trials in colour, others faint. A cross marks where a trial was stopped."""
    names = {t.trial for t in highlighted}
    xs: list[Any] = []
    ys: list[Any] = []
    for trial in trials:
        if trial.trial not in names:
            epochs, scores = curve(trial)
            xs += [*epochs, None]
            ys += [*scores, None]
    data: list[Trace] = []
    if xs:
        data.append(lines(xs, ys, "@faint", 1, name="other trials", hoverinfo="skip"))
    stopped = [t for t in trials if t.status == "stopped" and curve(t)[0]]
    if stopped:
        x, y = zip(*((epochs[-1], scores[-1]) for epochs, scores in map(curve, stopped)), strict=True)
        data.append(dots(x, y, map(told, stopped), "@stopped", "x-thin", name="stopped early"))
    for colour, trial in zip(COLOURS, highlighted, strict=False):
        data.append(lines(*curve(trial), colour, 2.5, name=trial.trial))
    return plot(data, 420, xaxis=epochs_axis(max(t.epoch for t in trials)), yaxis=axis("score"))


def slices(name: str, searched: Axis | None, trials: Sequence[TrialRecord]) -> Plot:
    """Score against the values of one axis."""
    having = [t for t in trials if name in t.params]
    levels = _levels([t.params[name] for t in having], searched)
    data = []
    for status in ENDED_WELL:
        of = [t for t in having if t.status == status]
        values = [t.params[name] for t in of]
        xs = [label(number(v), 14) for v in values] if levels else values
        place = xs, list(map(score, of))
        data.append(dots(*place, map(told, of), _colour(status), SYMBOLS[status], name=status))
    if levels:
        names = [label(level, 14) for level in levels]
        kind: dict[str, Any] = {"type": "category", "categoryorder": "array", "categoryarray": names}
        kind["range"] = [-0.5, len(names) - 0.5]
    elif logarithmic(searched):
        kind = _log_axis([t.params[name] for t in having])
    else:
        kind = {"type": "linear"}
    return plot(data, 260, showlegend=False, xaxis=kind, yaxis=axis("score"))


def parallel(names: Sequence[str], axes: Mapping[str, Axis], trials: Sequence[TrialRecord]) -> Plot:
    """A line for each trial through its values of `names` and its score, coloured by quarter of the score."""
    columns = [(name, *_places([t.params[name] for t in trials], axes.get(name))) for name in names]
    columns.append(("score", *_places(list(map(score, trials)), None)))
    order = sorted(range(len(trials)), key=lambda i: -score(trials[i]))
    data = []
    for band in reversed(range(4)):  # the best on top
        of = [i for rank, i in enumerate(order) if rank * 4 // len(order) == band]
        xs = [x for _ in of for x in (*range(len(columns)), None)]
        ys = [y for i in of for y in (*(places[i] for _, places, _ in columns), None)]
        hover = [told(trials[i]) for i in of for _ in range(len(columns) + 1)]
        line = lines(xs, ys, f"@q{band + 1}", 2.5 if band == 0 else 1.5, name=BANDS[band])
        line |= {"mode": "lines+markers", "marker": {"size": 4}, "text": hover, "hoverinfo": "text"}
        data.append({**line, "legendrank": band})
    marks = [
        {"x": x, "y": y, "text": label(said, 14), **_MARK}
        for x, (_, _, ticks) in enumerate(columns)
        for y, said in ticks
    ]
    shapes = [{"x0": x, "x1": x, **_UPRIGHT} for x in range(len(columns))]
    ticks = {"tickvals": list(range(len(columns))), "ticktext": [label(name, 14) for name, *_ in columns]}
    across = {**ticks, "showgrid": False, "range": [-0.2, len(columns) - 0.4], "tickangle": 0}
    up = {"visible": False, "range": [-0.06, 1.06]}
    return plot(data, 420, annotations=marks, shapes=shapes, xaxis=across, yaxis=up)


_UPRIGHT = {"type": "line", "y0": 0, "y1": 1, "line": {"color": "@line", "width": 1}, "layer": "below"}
_MARK = {
    "showarrow": False,
    "xanchor": "left",
    "xshift": 5,
    "font": {"size": 11, "color": "@ink"},
    "bgcolor": "@ground",
    "borderpad": 1,
}


def logarithmic(searched: Axis | None) -> bool:
    """Whether values of this axis are drawn on a logarithmic scale."""
    return isinstance(searched, Log) or (isinstance(searched, Integer) and searched.log)


def _places(values: Sequence[Any], searched: Axis | None) -> tuple[list[float], list[tuple[float, str]]]:
    """The places of values on an axis from 0 to 1, and (place, text) of its ends or levels."""
    levels = _levels(values, searched)
    if levels:
        step = max(1, len(levels) - 1)
        at = {level: i / step if len(levels) > 1 else 0.5 for i, level in enumerate(levels)}
        every = math.ceil(len(levels) / _MOST_NAMED)
        return [at[number(v)] for v in values], [(at[level], level) for level in levels[::every]]
    ends = searched.domain.values if searched is not None else (min(values), max(values))
    turn = math.log if logarithmic(searched) else float
    low, high = turn(min(*ends, *values)), turn(max(*ends, *values))
    if low == high:
        return [0.5] * len(values), [(0.5, number(values[0]))]
    return [(turn(v) - low) / (high - low) for v in values], [(0, number(ends[0])), (1, number(ends[1]))]


def _levels(values: Sequence[Any], searched: Axis | None) -> list[str]:
    """The levels of an axis as text, in their order; [] for a range of numbers."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numbers and not isinstance(searched, Pick):
        return []
    known = searched.pick if isinstance(searched, Pick) else ()
    return list(dict.fromkeys(number(v) for v in (*known, *values)))


def _log_axis(values: Sequence[float]) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 times powers of ten; at powers of ten alone where those would be too many."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    ticks = [m * 10.0**k for k in range(low, high + 1) for m in ((1, 2, 5) if high - low <= 2 else (1,))]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _colour(status: str) -> str:
    return "@stopped" if status == "waiting" else f"@{status}"
