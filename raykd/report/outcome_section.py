"""The section on how well a search's score ranks students on the tasks that they were evaluated on."""

from __future__ import annotations

import math
from typing import Any

from raykd.records.history import History
from raykd.report.elements import Bullets, Figure, Table, Text
from raykd.report.plots import intervals
from raykd.report.proxy_section import ends
from raykd.searching.outcomes import Ranking, lines, rankings
from raykd.spec.search import SearchSpec


def outcomes(spec: SearchSpec, history: History) -> list[Any]:
    """A figure, a table and sentences; [] where no task was run on three configurations."""
    ranked = rankings(spec, history)
    if not ranked:
        return []
    lead = (
        "Students were evaluated on further tasks. This is how well the scores of the search, each at its "
        "best epoch, rank them there."
    )
    found = [(_title(one), one.found[None].correlation) for one in ranked]
    points = [(title, of.value, *of.interval) for title, of in found if math.isfinite(of.value)]
    alt = "Spearman's rank correlation of each probe with the score on each task; 1 would be perfect."
    plot = intervals(points, "rank correlation", zero=True)
    figure = Figure("Does the score rank what students are worth?", alt, plot)
    return [Text(lead), *([figure] if points else []), _table(ranked), Bullets(lines(spec, history))]


def _title(one: Ranking) -> str:
    return f"{one.metric.removeprefix('probe/')}, {one.column.partition('/')[2]}"


def _table(ranked: list[Ranking]) -> Table:
    rows = []
    for one in ranked:
        for method, of in one.found.items():
            task, metric = one.column.partition("/")[2], one.metric.removeprefix("probe/")
            how = "by chance" if one.chance else "by their score"
            named = [task, metric, method or "all", f"{of.trials}, chosen {how}"]
            rows.append([*named, ends(of.correlation), ends(of.recall, 100), ends(of.regret)])
    columns = ["task", "probe", "method", "configurations", "rank correlation"]
    columns += ["recall of the best quarter, %", "regret, points"]
    return Table("The search's scores against tasks, with 95 % bootstrap intervals", columns, rows)
