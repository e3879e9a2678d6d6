"""The section on the front of a sweep: which students no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raykd.console.sizes import HEADINGS, front_table, shown_sizes
from raykd.console.wording import counted, number
from raykd.records.history import History
from raykd.report.elements import Element, Figure, Section, Table, Text
from raykd.report.plots import Plot, axis, dots, lines, plot, told
from raykd.searching.front import Weighed, objectives, weighed

_TITLES = {"params": "parameters", "macs": "multiply-adds of an image", "latency": "latency, ms"}


def front(history: History) -> Section | None:
    """A figure for each size that the score is weighed against; None where all students are of one size."""
    found, names = weighed(history), objectives(history)
    asked = bool(history.spec.get("objective"))
    if not asked and not set(names) & set(shown_sizes(history)):
        return None
    if not found:
        return Section("Score and size", [Text("No trial has ended with a score and a known size yet.")])
    columns, rows = front_table(history)
    best = [one for one in found if one.front]
    table = Table(
        "On the front, the smallest first", columns, [[number(cell) for cell in row] for row in rows]
    )
    parts: list[Element] = [Text(_in_words(best, found, names), "lead")]
    for at, name in enumerate(names):
        alt = (
            f"Score against {_TITLES[name]} of {counted(len(found), 'configuration')}. The {len(best)} on "
            "the front are in colour and joined by a line; the others are grey. The table holds the numbers."
        )
        title = f"Score and {HEADINGS[name].partition(',')[0]}"
        parts.append(Figure(title, alt, _figure(found, at, _TITLES[name]), table if at == 0 else None))
    stopped = sum(one.trial.status == "stopped" for one in best)
    said = "Early stopping goes by the score alone. "
    if stopped:
        said += (
            f"{counted(stopped, 'trial')} of the front {'was' if stopped == 1 else 'were'} stopped early: "
            "with all epochs its score may be better than shown."
        )
    else:
        said += (
            "A stopped trial is shown with the score that it had reached: with all epochs it may be better."
        )
    return Section("Score and size", [*parts, Text(said, "quiet")])


def _in_words(best: Sequence[Weighed], found: Sequence[Weighed], names: Sequence[str]) -> str:
    sizes = " and ".join(HEADINGS[name].partition(",")[0] for name in names)
    return (
        f"{len(best)} of {counted(len(found), 'configuration')} {'is' if len(best) == 1 else 'are'} on the "
        f"front of score and {sizes}: no other one has a better score and is as small."
    )


def _figure(found: Sequence[Weighed], at: int, title: str) -> Plot:
    """Score against one size. On the front of several sizes a line need not rise."""
    data: list[dict[str, Any]] = []
    rest, best = ([one for one in found if one.front is which] for which in (False, True))
    if rest:
        data.append(_dots(rest, at, "@faint", name="beaten by another one"))
    step = lines([one.sizes[at] for one in best], [one.score for one in best], "@best", hoverinfo="skip")
    if len(found[0].sizes) == 1:
        step["line"]["shape"] = "hv"
        data.append({**step, "showlegend": False})
    for status, symbol in (("finished", "circle"), ("stopped", "circle-open")):
        if of := [one for one in best if one.trial.status == status]:
            data.append(_dots(of, at, "@best", symbol, name=f"on the front, {status}"))
    spread = max(one.sizes[at] for one in found) / max(1e-9, min(one.sizes[at] for one in found))
    kind = {"type": "log"} if spread > 5 else {}
    return plot(data, 420, xaxis=axis(title, **kind), yaxis=axis("score"))


def _dots(of: Sequence[Weighed], at: int, *how: str, name: str) -> dict[str, Any]:
    return dots([one.sizes[at] for one in of], [one.score for one in of], (told(o.trial) for o in of), *how,
                name=name)  # fmt: skip
