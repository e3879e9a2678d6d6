"""The sizes of students in tables of trials: only those in which the trials differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from raykd.records.history import SIZES, History

HEADINGS = {"params": "parameters", "macs": "multiply-adds", "latency": "latency, ms"}
_UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


def magnitude(value: float) -> str:
    """A count in three digits: `4.2M`, `385M`, `1.25G`."""
    for unit, letter in _UNITS:
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


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
