"""Shows several sweeps: the list of a storage, and a comparison."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raykd.console.screen import Screen
from raykd.console.wording import duration, in_bytes, score_of

if TYPE_CHECKING:
    from raykd.overview.compare import Comparison
    from raykd.overview.listing import Listed

_LONGEST = 60  # characters of a value in a table


def sweeps(screen: Screen, found: Sequence[Listed], place: str) -> None:
    """Show one line a sweep, the last changed first, and why a folder cannot be read."""
    if not found:
        screen.text(f"{place} holds no sweeps")
        return
    rows = []
    for row in sorted(found, key=lambda row: -(row["changed"] or 0.0)):
        score = {"score": row["score"], "score_se": row["score_se"]} if row["score"] is not None else None
        failed = f", {row['failed']} failed" if row["failed"] else ""
        trials = f"{row['done']} of {row['trials']}{failed}" if row["trials"] else ""
        changed = f"{duration(max(0.0, time.time() - row['changed']))} ago" if row["changed"] else ""
        best = score_of({k: v for k, v in score.items() if v is not None}) if score else ""
        rows.append([row["name"], row["kind"], row["state"], trials, best, changed, in_bytes(row["bytes"])])
    screen.rows(("sweep", "kind", "state", "trials", "best score", "last record", "size"), rows)
    for row in found:
        if row["problem"]:
            screen.text(f"{row['name']}: {row['problem']}", "yellow")


def comparison(screen: Screen, found: Comparison) -> None:
    """Show what differs between specs, then the scores, or why they do not compare."""
    if found.differences:
        cells = [[field, *(_short(value) for value in values)] for field, *values in found.differences]
        screen.rows(("differs", *found.names), cells)
    else:
        screen.text("the specs are the same")
    screen.out.print()
    if found.incomparable:
        screen.text("the scores do not compare, because these differ:", "yellow")
        for field, sides in found.incomparable.items():
            said = "; ".join(
                f"{name}: {', '.join(map(_short, values)) or 'no trial yet'}"
                for name, values in zip(found.names, sides, strict=True)
            )
            screen.text(f"  {field}  {said}", "yellow")
        return
    if not found.by_epochs:
        screen.text("there is a sweep without a score yet: nothing to compare")
        return
    by_epochs = [[int(budget), *rest] for budget, *rest in _text(found.by_epochs)]
    screen.rows(("epochs, all trials", *found.names), by_epochs)
    if found.by_hours:
        screen.out.print()
        unit = "GPU hours" if found.hours_of == "GPU" else "worker hours"
        screen.rows((unit, *found.names), [[f"{b:.3g}", *rest] for b, *rest in _text(found.by_hours)])
    else:
        screen.text("they ran on different kinds of device: hours do not compare", "dim")
    if (ahead := found.ahead) is not None:
        screen.out.print()
        interval = f" [{ahead.low:.2f}, {ahead.high:.2f}]" if ahead.low is not None else ""
        at = int(found.by_epochs[-1][0] or 0)
        by = f"{ahead.by:.2f}{interval} points before {ahead.second}"
        screen.text(f"after {at} epochs {ahead.name} is {by}; {ahead.said}", "bold")


def _text(rows: list[list[float | None]]) -> list[list[Any]]:
    return [[budget, *("" if score is None else score for score in rest)] for budget, *rest in rows]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
