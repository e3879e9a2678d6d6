"""The section on a search's proxy: how well the scores at each rung predicted the final ones."""

from __future__ import annotations

import math
from typing import Any

from raykd.records.history import History
from raykd.report.common import score_name
from raykd.report.elements import Bullets, Figure, Section, Table, Text
from raykd.report.plots import intervals
from raykd.searching.proxy_audit import Rung, audit
from raykd.spec.search import SearchSpec
from raykd.stats.prediction import Estimate

FEW = 10  # with fewer trials the numbers mean little


def proxy(spec: SearchSpec, history: History) -> Section:
    """The numbers of each rung, and the trials that they rest on."""
    title, found = "Proxy audit", audit(spec, history)
    if not found:
        return Section(title, [Text("No rung lies before the last epoch, so nothing was predicted.")])
    most = max(rung.found.trials for rung in found)
    if most < 3:
        said = f"Trials that ran to the end with a score: {most}. Below three there is no rank correlation."
        return Section(title, [Text(said)])
    lead = (
        f"Trials are judged on {score_name(history.spec)} long before their end. This is how well the score "
        f"at each rung predicted a trial's best score, over the {most} trials that ran to the end."
    )
    parts: list[Any] = [Text(lead)]
    points = [
        (f"epoch {rung.epoch}", rung.found.correlation.value, *rung.found.correlation.interval)
        for rung in found
        if math.isfinite(rung.found.correlation.value)
    ]
    if points:
        alt = "Spearman's rank correlation of the score at each rung with the final one; 1 would be perfect."
        plot = intervals(points, "rank correlation", zero=True)
        parts.append(Figure("Did early scores predict the end?", alt, plot))
    if most < FEW:
        parts.append(Text(f"{most} trials are too few to say much: see how wide the intervals are.", "warn"))
    return Section(title, [*parts, _table(found), Bullets(_doubts(spec), "quiet")])


def _table(found: list[Rung]) -> Table:
    columns = ["rung (epoch)", "trials that ran on to the end", "stopped here"]
    columns += ["rank correlation", f"recall of the best {found[0].found.best}, %", "regret, points"]
    rows = []
    for epoch, stopped, of in ((rung.epoch, rung.stopped, rung.found) for rung in found):
        estimates = [_ends(of.correlation), _ends(of.recall, 100), _ends(of.regret)]
        rows.append([str(epoch), str(of.trials), str(stopped), *estimates])
    return Table("Each rung against the end, with 95 % bootstrap intervals", columns, rows)


def _doubts(spec: SearchSpec) -> list[str]:
    chosen = (
        "the scheduler chose which trials ran to the end: they are those that led at each rung. Among them "
        "the early order says less than it would among all, so these numbers may understate the proxy"
    )
    free = "no trial was stopped: these are the rungs at which halving would have judged"
    return [
        free if spec.scheduler.first_stop is None else chosen,
        "rank correlation: Spearman's; recall: how many of the best quarter at the end were in the best "
        "quarter at the rung; regret: what the rung's leader lacked at the end to the best one",
        "a trial's best score may be that of the rung itself, which favours late rungs a little",
    ]


def _ends(found: Estimate, scale: float = 1.0) -> str:
    if not math.isfinite(found.value):
        return "–"
    low, high = (scale * end for end in found.interval)
    digits = 0 if scale == 100 else 2
    return f"{scale * found.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
