"""The sizes of students in tables of trials: only those in which the trials differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raykd.records.history import SIZES, History
from raykd.searching.front import front, objectives
from trainables.core.amounts import magnitude

HEADINGS = {"params": "parameters", "macs": "multiply-adds", "latency": "latency, ms"}


def differing(sizes: Iterable[Mapping[str, float]]) -> list[str]:
    """The names of those sizes that are not the same everywhere."""
    known = [size for size in sizes if size]
    return [name for name in SIZES if len({size.get(name) for size in known}) > 1]


def shown_sizes(history: History) -> list[str]:
    """The sizes that tables of this sweep's trials show."""
    asked = {*history.spec.get("objective", ()), *_limited(history)} if history.sweep else set()
    differ = differing(trial.size for trial in history.trials.values())
    return [name for name in SIZES if name in asked or name in differ]


def _limited(history: History) -> Iterable[str]:
    limits = history.spec.get("limits") or {}
    return (name for name, limit in limits.items() if limit is not None)


def size_cells(size: Mapping[str, float], names: Iterable[str]) -> list[str]:
    """These sizes as cells of a table; "" where one is not known."""
    return [_cell(name, size[name]) if name in size else "" for name in names]


def in_words(size: Mapping[str, float]) -> str:
    """A student's size in words, for a sentence; "" where it is not known."""
    said = {name: f"{magnitude(size[name])} {HEADINGS[name]}" for name in size if name != "latency"}
    if "latency" in size:
        said["latency"] = f"{_cell('latency', size['latency'])} ms a forward pass"
    return ", ".join(said[name] for name in SIZES if name in said)


def _cell(name: str, value: float) -> str:
    return f"{value:.3g}" if name == "latency" else magnitude(value)


def refused_last(history: History) -> str | None:
    """Why a search without further proposals has ended, where that is since they were refused; else None."""
    last = max((trial.number for trial in history.trials.values()), default=-1)
    refused = [record for record in history.refused if record["number"] > last]
    others = [record for record in history.repeats if record["number"] > last and not record.get("over")]
    if len(refused) <= len(others):
        return None
    return (
        f"the last {len(refused)} proposals were refused, so the search ends with "
        f"{len(history.trials)} trials: nothing within `limits` is found any more; the last one: "
        f"{refused[-1]['reason']}. Raise `limits`, or put smaller students on the axes"
    )


def front_table(history: History) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) of the trials on the front, the smallest first. Raises `SweepFailed` without any."""
    found = front(history)
    axes = list(dict.fromkeys(name for one in found for name in one.trial.params))
    names = list(dict.fromkeys([*objectives(history), *shown_sizes(history)]))
    rows = []
    for one in found:
        row = [one.trial.trial, *size_cells(one.trial.size, names), one.score, one.trial.status]
        rows.append([*row, one.trial.epoch, *(one.trial.params.get(axis, "") for axis in axes)])
    return ["trial", *(HEADINGS[name] for name in names), "score", "status", "epoch", *axes], rows


def front_data(history: History) -> list[dict[str, Any]]:
    """The same as data, for JSON."""
    return [
        {
            "trial": one.trial.trial,
            "score": one.score,
            "size": one.trial.size,
            "status": one.trial.status,
            "epoch": one.trial.epoch,
            "params": one.trial.params,
        }
        for one in front(history)
    ]
