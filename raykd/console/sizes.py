"""The sizes of students in tables of trials: only those in which the trials differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from raykd.records.history import SIZES, History
from trainables.core.amounts import magnitude

HEADINGS = {"params": "parameters", "macs": "multiply-adds", "latency": "latency, ms"}


def differing(sizes: Iterable[Mapping[str, float]]) -> list[str]:
    """The names of those sizes that are not the same everywhere."""
    known = [size for size in sizes if size]
    return [name for name in SIZES if len({size.get(name) for size in known}) > 1]


def shown_sizes(history: History) -> list[str]:
    """The sizes that tables of this sweep's trials show."""
    return differing(trial.size for trial in history.trials.values())


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
