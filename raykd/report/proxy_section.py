"""The section on a search's proxy: how well the scores at each rung predicted the final ones."""

from __future__ import annotations

import math
from typing import Any

from raykd.console.wording import counted
from raykd.records.history import History
from raykd.report.common import score_name
from raykd.report.elements import Bullets, Collapsible, Figure, Section, Table, Text
from raykd.report.plots import intervals
from raykd.searching.next_proxy import advice
from raykd.searching.proxy_audit import Ended, Rung, audit, ended, value_at
from raykd.spec.search import SearchSpec
from raykd.stats.prediction import Estimate

FEW = 10  # with fewer trials the numbers mean little


def proxy(spec: SearchSpec, history: History) -> Section:
    """The numbers of each rung, the trials that they rest on, and what they say about the next sweep."""
    title, found, whole = "Proxy audit", audit(spec, history), ended(spec, history)
    if not found:
        return Section(title, [Text("No rung lies before the last epoch, so nothing was predicted.")])
    most = max(rung.found.trials for rung in found)
    if most < 3:
        said = f"Trials that ran to the end with a score: {most}. Below three there is no rank correlation."
        return Section(title, [Text(said)])
    lead = (
        f"Trials are judged on {score_name(history.spec)} long before their end. This is how well the score "
        f"at each rung predicted that of the last epoch, over the {most} trials that ran to the end."
    )
    parts: list[Any] = [Text(f"{lead}{_of_audit(spec, whole)}")]
    points = [
        (f"epoch {rung.epoch}", rung.found.correlation.value, *rung.found.correlation.interval)
        for rung in found
        if math.isfinite(rung.found.correlation.value)
    ]
    if points:
        alt = "Spearman's rank correlation of the score at each rung with the final one; 1 would be perfect."
        plot = intervals(points, "rank correlation", zero=True)
        parts.append(Figure("Did early scores predict the end?", alt, plot))
    if min(most, *(rung.found.effective for rung in found)) < FEW:
        parts.append(Text(f"{most} trials are too few to say much: see how wide the intervals are.", "warn"))
    parts.append(_table(found))
    parts += [_by_method(found)] if any(rung.methods for rung in found) else []
    parts.append(Bullets(advice(spec, history)))
    if any(e.trial.audited is not None for e in whole):
        parts.append(Collapsible("The trials that ran on", [_ran_on(whole)]))
    return Section(title, [*parts, Bullets(_doubts(spec, whole), "quiet")])


def _of_audit(spec: SearchSpec, whole: list[Ended]) -> str:
    """What the audit added, in words; "" if there was none."""
    ran_on = [e.trial for e in whole if e.trial.audited is not None]
    if not ran_on:
        return ""
    more = sum(t.epoch - (t.audited or 0) for t in ran_on)
    return (
        f" The scheduler had stopped {len(ran_on)} of these; they ran on for the audit, which took "
        f"{counted(more, 'epoch')}. Each counts for {1 / spec.audited_share:.3g}."
    )


def _table(found: list[Rung]) -> Table:
    audited = any(rung.audited for rung in found)
    columns = ["rung (epoch)", "trials that ran on to the end", "stopped here"]
    columns += ["of these ran on"] if audited else []
    columns += ["rank correlation", "recall of the best quarter, %", "regret, points"]
    rows = []
    for rung in found:
        of = rung.found
        estimates = [ends(of.correlation), ends(of.recall, 100), ends(of.regret)]
        seen = [str(rung.audited)] if audited else []
        rows.append([str(rung.epoch), str(of.trials), str(rung.stopped), *seen, *estimates])
    return Table("Each rung against the end, with 95 % bootstrap intervals", columns, rows)


def _by_method(found: list[Rung]) -> Table:
    rows = [
        [method, str(rung.epoch), str(of.trials), ends(of.correlation), ends(of.regret)]
        for method in dict.fromkeys(name for rung in found for name in rung.methods)
        for rung in found
        if (of := rung.methods.get(method)) is not None
    ]
    columns = ["method", "rung (epoch)", "trials", "rank correlation", "regret, points"]
    return Table("Each rung against the end, within each method", columns, rows)


def _ran_on(whole: list[Ended]) -> Table:
    rows = []
    for e in sorted(whole, key=lambda e: -e.final):
        if (at := e.trial.audited) is not None:
            then = value_at(e.trial, "score", at)
            better = 1 + sum(other.final > e.final for other in whole)
            best = "" if e.trial.best is None else f"{e.trial.best[0]:.2f}"
            rows.append(
                [
                    e.trial.trial,
                    str(at),
                    "" if then is None else f"{then:.2f}",
                    f"{e.final:.2f}",
                    str(better),
                    best,
                ]
            )
    columns = [
        "trial",
        "was to stop at epoch",
        "score then",
        "score at the end",
        f"rank among {len(whole)}",
        "best score",
    ]
    return Table("Trials that the scheduler had stopped, best first", columns, rows)


def _doubts(spec: SearchSpec, whole: list[Ended]) -> list[str]:
    chosen = (
        "the scheduler chose which trials ran to the end: they are those that led at each rung. Among them "
        "the early order says less than it would among all, so these numbers may understate the proxy"
    )
    free = "no trial was stopped: these are the rungs at which halving would have judged"
    weighed = (
        "which of the stopped trials ran on was chosen by chance, so these numbers are those of all trials, "
        "but for those that failed or whose scores were not finite"
    )
    drawn = any(e.trial.audited is not None for e in whole)
    return [
        free if spec.scheduler.first_stop is None else weighed if drawn else chosen,
        "rank correlation: Spearman's; recall: how many of the best quarter at the end were in the best "
        "quarter at the rung; regret: what the rung's leader lacks at the end to the best one, on average "
        "over sets of ten trials, or of half of all if these are fewer",
        "the end is the last epoch; the student that a trial keeps is that of its best epoch, which may be "
        "an earlier one",
    ]


def ends(found: Estimate, scale: float = 1.0) -> str:
    """An estimate with both ends of its interval, each times `scale`; a dash where there is none."""
    if not math.isfinite(found.value):
        return "–"
    low, high = (scale * end for end in found.interval)
    digits = 0 if scale == 100 else 2
    return f"{scale * found.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
