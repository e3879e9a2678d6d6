"""The section on the size and the speed of a sweep's students."""

from __future__ import annotations

from raykd.console.sizes import HEADINGS, shown_sizes, size_cells
from raykd.console.wording import counted, number, settings_of
from raykd.records.history import History, TrialRecord
from raykd.report.elements import Bullets, Collapsible, Element, Section, Table

_MOST_REFUSED = 50  # rows
_COUNTED = (
    "Parameters and multiply-adds are those of the exported student: its backbone, without a classifier, for "
    "one image."
)


def sizes(history: History) -> Section | None:
    """A row for each student that was tried; None where there is one and no latency was measured."""
    of: dict[str, list[TrialRecord]] = {}
    for trial in history.trials.values():
        if trial.size:
            of.setdefault(trial.student, []).append(trial)
    if not history.latencies and not shown_sizes(history) and not history.refused:
        return None
    rows = sorted(of.values(), key=lambda trials: trials[0].size.get("params", 0))
    columns = ["student", HEADINGS["params"], HEADINGS["macs"]]
    columns += ["latency, ms", "quartiles"] if history.latencies else []
    table = Table(
        "The students, the smallest first",
        [*columns, "trials", "best score"],
        [_row(history, trials) for trials in rows],
    )
    return Section("Size and speed", [table, *_refused(history), Bullets(_said(history), "quiet")])


def _refused(history: History) -> list[Element]:
    """The configurations that were not trained, the last ones; nothing where there were none."""
    rows = [
        [record.get("name", ""), settings_of(record["params"]), str(record["reason"])]
        for record in history.refused[-_MOST_REFUSED:]
    ]
    if not rows:
        return []
    shown = f", the last {len(rows)} of them" if len(rows) < len(history.refused) else ""
    table = Table("Refused before they trained", ["configuration", "settings", "reason"], rows)
    return [Collapsible(f"{counted(len(history.refused), 'configuration')} refused{shown}", [table])]


def label_of(trial: TrialRecord) -> str:
    """The student of a trial, with the options that it was given."""
    start = "student.options."
    options = {n.removeprefix(start): v for n, v in trial.config.items() if n.startswith(start)}
    said = ", ".join(f"{name} {number(value)}" for name, value in options.items())
    return str(trial.config.get("student.arch", "")) + (f" ({said})" if said else "")


def _row(history: History, trials: list[TrialRecord]) -> list[str]:
    first = trials[0]
    row = [label_of(first), *size_cells(first.size, ["params", "macs"])]
    if history.latencies:
        found = history.latencies.get(first.student, {}).get("metrics", {})
        ends = f"[{found['low_ms']:.3g}, {found['high_ms']:.3g}]" if found else ""
        row += [*(size_cells(first.size, ["latency"])), ends]
    best = max((t.best[0] for t in trials if t.best), default=None)
    return [*row, str(len(trials)), "" if best is None else number(best)]


def _said(history: History) -> list[str]:
    if not history.latencies:
        return [_COUNTED]
    asked = history.spec.get("latency") or {}
    places = sorted({record["where"] for record in history.latencies.values()})
    passes = f"batches of {asked.get('batch', 1)}" if asked.get("batch", 1) != 1 else "single images"
    found = [
        _COUNTED,
        f"Latency is the median time of a forward pass of {passes} in PyTorch, with "
        f"{asked.get('threads', 1)} CPU threads, while no other lane of this sweep worked on the node; "
        f"measured on {'; '.join(places)}.",
    ]
    if len(places) > 1:
        found.append("Latencies of several devices do not compare.")
    return found
