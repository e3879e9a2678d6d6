"""The figures of an ablation study. `plots.intervals` draws differences and effects."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raykd.console.wording import number
from raykd.report.plots import (
    COLOURS,
    Plot,
    Trace,
    axis,
    distinct,
    dots,
    epochs_axis,
    error_bars,
    label,
    lines,
    plot,
    rows_axis,
    rows_height,
)


def replicates(rows: Sequence[tuple[str, Sequence[float]]], means: Sequence[float]) -> Plot:
    """Arms from top to bottom with a dot for each replicate. A thin line joins dots of the same seed."""
    names = distinct([label(name) for name, _ in rows])
    data: list[Trace] = []
    for seed in range(max((len(scores) for _, scores in rows), default=0)):
        xs = [scores[seed] if seed < len(scores) else math.nan for _, scores in rows]
        hover = [f"{name}, seed {seed}: {number(x)}" for name, x in zip(names, xs, strict=True)]
        line = lines(xs, names, "@faint", 1, text=hover, hoverinfo="text", showlegend=False)
        data.append({**line, "mode": "lines+markers", "marker": {"size": 8, "color": "@finished"}})
    mean = dots(means, names, [f"mean {number(x)}" for x in means], "@best", "line-ns-open", name="mean")
    mean["marker"] |= {"size": 22, "line": {"width": 3}}
    height = 120 + rows_height(names)
    return plot([*data, mean], height, xaxis=axis("score"), yaxis=rows_axis(names))


def ranking(labels: Sequence[str], ranks: Sequence[float], groups: Sequence[Sequence[int]]) -> Plot:
    """Mean ranks, the best on top. A bar joins arms whose difference is not significant."""
    order = sorted(range(len(labels)), key=lambda i: ranks[i])
    names = distinct([label(labels[i]) for i in order])
    name = dict(zip(order, names, strict=True))
    hover = [f"{name[i]}: mean rank {ranks[i]:.2f}" for i in order]
    data = [dots([ranks[i] for i in order], names, hover, "@finished", name="mean rank")]
    top = max(ranks, default=1.0)
    for at, group in enumerate(group for group in groups if len(group) > 1):
        bar = lines([top + 0.25 + 0.2 * at] * len(group), [name[i] for i in group], "@best", 6)
        data.append({**bar, "name": "not told apart", "showlegend": at == 0, "hoverinfo": "name"})
    across = axis("mean rank, 1 is best", range=[0.8, top + 0.4 + 0.2 * len(groups)])
    return plot(data, 120 + rows_height(names), xaxis=across, yaxis=rows_axis(names))


def curves(rows: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> Plot:
    """A line for each row (arm, epochs, mean scores)."""
    colours = [COLOURS[at % len(COLOURS)] for at in range(len(rows))]
    data = [lines(xs, ys, c, name=label(name, 40)) for c, (name, xs, ys) in zip(colours, rows, strict=True)]
    for trace in data[len(COLOURS) :]:
        trace["line"]["dash"] = "dash"
    most = max((xs[-1] for _, xs, _ in rows), default=1)
    return plot(data, 400, xaxis=epochs_axis(most), yaxis=axis("score"))


def looks(pairs: Sequence[int], means: Sequence[float], ends: Sequence[tuple[float, float]]) -> Plot:
    """A difference and its interval at each look."""
    dot = {"size": 8, "color": "@finished"}
    trace = lines(pairs, means, "@finished", 1.5, mode="lines+markers", marker=dot)
    trace["error_y"] = error_bars([(mean, *of) for mean, of in zip(means, ends, strict=True)])
    across = axis("pairs", dtick=1 if len(pairs) < 12 else 5)
    up = axis("points over the base", zeroline=True, rangemode="tozero")
    return plot([trace], 260, showlegend=False, xaxis=across, yaxis=up)
