"""What figures are drawn with: plots as plain data, as plotly takes them. A colour `@name` is the palette's.

Everything in a plot that a user wrote goes through `label`: plotly reads a few HTML tags in its texts.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raykd.console.wording import number

if TYPE_CHECKING:
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
    """Text for a plot: no markup, no colour name, wrapped to `width` letters."""
    lines = textwrap.wrap(str(text), width) or [""]
    escaped = "<br>".join(html.escape(line) for line in lines)
    return "&#64;" + escaped[1:] if escaped.startswith("@") else escaped


def plot(data: Sequence[Mapping[str, Any]], height: int, **layout: Any) -> Plot:
    return {"data": list(data), "layout": {"height": height, **layout}}


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": label(title)}, **more}


def epochs_axis(most: float) -> dict[str, Any]:
    """No ticks between epochs."""
    return axis("epoch", **({"dtick": 1} if most <= 10 else {}))


def dots(
    x: Sequence[Any], y: Sequence[Any], hover: Iterable[str], colour: str, symbol: str = "circle", **more: Any
) -> Trace:
    """Dots of one kind."""
    marker = {"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1.5, "color": colour}}
    place = {"x": list(x), "y": list(y), "text": list(hover)}
    return {"type": "scatter", "mode": "markers", "hoverinfo": "text", "marker": marker, **place, **more}


def lines(x: Sequence[Any], y: Sequence[Any], colour: str, width: float = 2.0, **more: Any) -> Trace:
    """A line; None parts it."""
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
    """(label, value, low, high) from top to bottom: a dot with its interval each; ends may be NaN.

    `zero`: with a line at zero.
    """
    names = distinct([label(name) for name, *_ in rows])
    trace = dots([row[1] for row in rows], names, [_spoken(*row) for row in rows], "@finished", symbol)
    trace["marker"] = {"size": 11, "symbol": symbol, "color": list(colours) or "@finished"}
    whole = all(math.isfinite(high - low) for _, _, low, high in rows)
    trace["error_x"] = {
        "type": "data",
        "symmetric": False,
        "array": [high - value for _, value, _, high in rows],
        "arrayminus": [value - low for _, value, low, _ in rows],
        "color": "@quiet",
        "thickness": 2,
        "width": 5 if whole else 0,  # where a row has no interval, not even caps are drawn
    }
    across = axis(title, zeroline=zero, rangemode="tozero" if zero else "normal")
    return plot([trace], 90 + rows_height(names), showlegend=False, xaxis=across, yaxis=rows_axis(names))


def rows_axis(names: Sequence[str]) -> dict[str, Any]:
    """Categories from top to bottom, as given."""
    ends = [len(names) - 0.5, -0.5]
    return {"type": "category", "categoryorder": "array", "categoryarray": list(names), "range": ends}


def rows_height(names: Sequence[str]) -> int:
    """Pixels that rows with these labels need."""
    tallest = max((name.count("<br>") + 1 for name in names), default=1)
    return len(names) * max(34, 18 * tallest + 8)


def distinct(names: Sequence[str]) -> list[str]:
    """Two rows of one name are two rows."""
    return [name + "\u200b" * list(names[:at]).count(name) for at, name in enumerate(names)]


def curve(trial: TrialRecord) -> tuple[list[int], list[float]]:
    """Epochs and scores, where there are finite ones."""
    scores = {epoch: metrics.get("score", math.nan) for epoch, metrics in sorted(trial.reports.items())}
    finite = {epoch: score for epoch, score in scores.items() if math.isfinite(score)}
    return list(finite), list(finite.values())


def score(trial: TrialRecord) -> float:
    """Its best score; NaN without one."""
    return trial.best[0] if trial.best is not None else math.nan


def told(trial: TrialRecord) -> str:
    """A trial in the words of a hover."""
    said = [f"{trial.trial}, {trial.status} at epoch {trial.epoch}"]
    said.append(f"score {trial.best[0]:.2f} (epoch {trial.best[1]})" if trial.best else "no score")
    said += [f"{name} {number(value)}" for name, value in trial.params.items()]
    said += [f"reason: {trial.reason}"] if trial.reason else []
    return "<br>".join(label(line, 60) for line in said[:20])


def _spoken(name: str, value: float, low: float, high: float) -> str:
    ends = f" [{number(low)}, {number(high)}]" if math.isfinite(high - low) else ""
    return f"{label(name)}: {number(value)}{ends}"
