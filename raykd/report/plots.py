"""Parts of figures: plotly's plots as plain data. A colour `@name` is one of the page's palette.

Every text of a user goes through `label`, since plotly interprets some HTML tags in texts.
"""

from __future__ import annotations

import functools
import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raykd.console.wording import number
from raykd.records.history import TrialRecord

Plot = dict[str, Any]
Trace = dict[str, Any]
SYMBOLS = {
    "finished": "circle",
    "stopped": "circle-open",
    "running": "triangle-right",
    "waiting": "square-open",
}
COLOURS = [f"@c{n}" for n in range(1, 9)]


def label(text: Any, width: int = 28) -> str:
    """A text for a plot: markup escaped, no colour name, wrapped to `width` letters."""
    return _label(str(text), width)


@functools.lru_cache(100_000)  # each plot of a large sweep tells the same about thousands of trials
def _label(text: str, width: int) -> str:
    lines = textwrap.wrap(text, width) or [""]
    escaped = "<br>".join(html.escape(line) for line in lines)
    return "&#64;" + escaped[1:] if escaped.startswith("@") else escaped


def plot(data: Sequence[Mapping[str, Any]], height: int, **layout: Any) -> Plot:
    """A plot of these traces, `height` pixels high."""
    return {"data": list(data), "layout": {"height": height, **layout}}


def axis(title: str, **more: Any) -> dict[str, Any]:
    """plotly's settings of an axis with this title."""
    return {"title": {"text": label(title)}, **more}


def epochs_axis(most: float) -> dict[str, Any]:
    """An axis of epochs up to `most`, without ticks between whole epochs."""
    return axis("epoch", **({"dtick": 1} if most <= 10 else {}))


def dots(
    x: Sequence[Any], y: Sequence[Any], hover: Iterable[str], colour: str, symbol: str = "circle", **more: Any
) -> Trace:
    """A trace of dots with one colour and symbol; `hover` has a text for each."""
    marker = {"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1.5, "color": colour}}
    place = {"x": list(x), "y": list(y), "text": list(hover)}
    return {"type": "scatter", "mode": "markers", "hoverinfo": "text", "marker": marker, **place, **more}


def lines(x: Sequence[Any], y: Sequence[Any], colour: str, width: float = 2.0, **more: Any) -> Trace:
    """A trace of a line. None in `x` or `y` interrupts it."""
    line = {"color": colour, "width": width}
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "line": line, **more}


def intervals(
    rows: Sequence[tuple[str, float, float, float]],
    title: str,
    *,
    zero: bool = False,
    colours: Sequence[str] = (),
    symbol: str = "circle",
) -> Plot:
    """A plot of rows (label, value, low, high) from top to bottom: a dot and its interval each.

    Ends of an interval may be NaN. With `zero` a line marks zero.
    """
    names = distinct([label(name) for name, *_ in rows])
    trace = dots([row[1] for row in rows], names, [_spoken(*row) for row in rows], "@finished", symbol)
    trace["marker"] = {"size": 11, "symbol": symbol, "color": list(colours) or "@finished"}
    whole = all(math.isfinite(high - low) for _, _, low, high in rows)
    bars = error_bars([(value, low, high) for _, value, low, high in rows])
    # Where a row has no interval, not even caps are drawn.
    trace["error_x"] = {**bars, "thickness": 2, "width": 5 if whole else 0}
    across = axis(title, zeroline=zero, rangemode="tozero" if zero else "normal")
    return plot([trace], 90 + rows_height(names), showlegend=False, xaxis=across, yaxis=rows_axis(names))


def error_bars(rows: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """plotly's error bars of rows (value, low, high)."""
    up, down = [high - value for value, _, high in rows], [value - low for value, low, _ in rows]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": "@quiet"}


def rows_axis(names: Sequence[str]) -> dict[str, Any]:
    """An axis of categories from top to bottom in the given order."""
    ends = [len(names) - 0.5, -0.5]
    return {"type": "category", "categoryorder": "array", "categoryarray": list(names), "range": ends}


def rows_height(names: Sequence[str]) -> int:
    """The height in pixels that rows with these labels need."""
    tallest = max((name.count("<br>") + 1 for name in names), default=1)
    return len(names) * max(34, 18 * tallest + 8)


def distinct(names: Sequence[str]) -> list[str]:
    """The names, made distinct by invisible characters: plotly merges equal categories."""
    return [name + "\u200b" * list(names[:at]).count(name) for at, name in enumerate(names)]


def curve(trial: TrialRecord) -> tuple[list[int], list[float]]:
    """Epochs with a finite score, and these scores."""
    scores = {epoch: metrics.get("score", math.nan) for epoch, metrics in sorted(trial.reports.items())}
    finite = {epoch: score for epoch, score in scores.items() if math.isfinite(score)}
    return list(finite), list(finite.values())


def score(trial: TrialRecord) -> float:
    """The best score of a trial; NaN without one."""
    return trial.best[0] if trial.best is not None else math.nan


def told(trial: TrialRecord) -> str:
    """The text that is shown when the mouse is over a trial."""
    said = [f"{trial.trial}, {trial.status} at epoch {trial.epoch}"]
    said.append(f"score {trial.best[0]:.2f} (epoch {trial.best[1]})" if trial.best else "no score")
    said += [f"{name} {number(value)}" for name, value in trial.params.items()]
    said += [f"reason: {trial.reason}"] if trial.reason else []
    return "<br>".join(label(line, 60) for line in said[:20])


def _spoken(name: str, value: float, low: float, high: float) -> str:
    ends = f" [{number(low)}, {number(high)}]" if math.isfinite(high - low) else ""
    return f"{label(name)}: {number(value)}{ends}"
