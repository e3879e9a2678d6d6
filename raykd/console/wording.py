"""Numbers, durations, settings and states as text for people: on the terminal, in files and on pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from raykd.records.history import ENDED, History, TrialRecord
from trainables.core.safe_text import line

_BYTES = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3}


def settings(trial: TrialRecord) -> str:
    """The searched settings of a trial in one line."""
    return settings_of(trial.params)


def settings_of(params: Mapping[str, Any]) -> str:
    """Settings by name in one line."""
    return ", ".join(f"{line(name)} {number(value)}" for name, value in params.items()) or "no axes"


def score_of(metrics: Mapping[str, float]) -> str:
    """A score with its standard error where that is known: `83.15 ± 0.97`."""
    score, se = metrics.get("score", math.nan), metrics.get("score_se")
    return f"{score:.2f}" + (f" ± {se:.2f}" if se is not None and math.isfinite(se) else "")


def number(value: Any) -> str:
    """The text of a table's cell: floats with a few digits, NaN as "", everything else as it is."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{value:.2f}" if 1 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"
    return line(value)


def finite(value: Any) -> Any:
    """Data with None for NaN and infinite numbers, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def duration(seconds: float) -> str:
    """Seconds as `1 h 05 min`, `4 min` or `30 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_left(history: History) -> float | None:
    """Estimated seconds until the sweep ends, by the mean time of ended trials; None before one has ended."""
    ended = [t for t in history.trials.values() if t.status in ENDED]
    if not ended:
        return None
    at_once = max(1, history.counts()["running"])
    left = history.total - len(ended)
    return sum(t.wall_s for t in ended) / len(ended) * left / at_once


def in_bytes(number: float) -> str:
    """`1.2 GB`: three digits at most, and the unit."""
    unit = next(unit for unit in ("TB", "GB", "MB", "kB") if number >= _BYTES[unit] or unit == "kB")
    return f"{number / _BYTES[unit]:.3g} {unit}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 trial`, `2 trials`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def status_of(status: str, driven: bool) -> str:
    """A trial's status in words: a running trial of a sweep without a driver is interrupted."""
    return "interrupted" if status == "running" and not driven else status


def standing(history: History, driven: bool = True) -> str:
    """How far a sweep is, in one line: counts, best score, and with a driver the time left."""
    counts = history.counts()
    ended = sum(counts[s] for s in ENDED)
    said = ", ".join(f"{n} {status_of(status, driven)}" for status, n in counts.items() if n)
    text = f"{ended} of {counted(history.total, 'trial')} ended" + (f" ({said})" if said else "")
    if history.refused:
        text += f"; {counted(len(history.refused), 'configuration')} refused"
    best = history.best()
    if best is not None and best.best is not None:
        text += f"; best {best.best[0]:.2f} by {best.trial}"
    left = time_left(history)
    return text + (f"; about {duration(left)} left" if driven and left else "")


def ranked(history: History) -> list[tuple[TrialRecord, float, float]]:
    """Every trial with its best score and that score's standard error (NaN without one), best first."""
    rows = []
    for trial in history.trials.values():
        score, epoch = trial.best or (math.nan, 0)
        rows.append((trial, score, trial.reports.get(epoch, {}).get("score_se", math.nan)))
    return sorted(rows, key=lambda row: -(row[0].best[0] if row[0].best else -math.inf))


def probes(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """The metrics of a comparison: the score, its standard error, and every probe."""
    named = dict.fromkeys(k for m in rows for k in m if k.startswith("probe/") and not k.endswith("_se"))
    return ["score", "score_se", *named]


def headings(metrics: Iterable[str]) -> list[str]:
    """Column headings of these metrics."""
    return [{"score_se": "± se"}.get(name, name.removeprefix("probe/")) for name in metrics]


def comparison(history: History) -> list[tuple[str, Mapping[str, float]]]:
    """(label, metrics) of the best and the worst trial and of every reference, best score first."""
    best = history.best()
    scored = [t for t in history.trials.values() if t.best is not None and t is not best]
    worst = min(scored, key=lambda t: (t.best or (0.0, 0))[0], default=None)
    rows: list[tuple[str, Mapping[str, float]]] = []
    for label, trial in (("best trial", best), ("worst trial", worst)):
        if trial is not None and trial.best is not None:
            epoch = trial.best[1]
            rows.append((f"{label} {trial.trial}, epoch {epoch}", trial.reports[epoch]))
    rows += [(record["label"], record["metrics"]) for record in history.references.values()]
    return sorted(rows, key=lambda row: -row[1].get("score", -math.inf))
