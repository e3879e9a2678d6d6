"""What a new sweep has where its file says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Older sweeps had the defaults of `SweepSpec`.
NEW = {"teacher_pixels": "trained", "keep_checkpoints": "unfinished"}
NEW_BASELINE = {"cap": "sweep"}


def without(keys: Iterable[str], raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` without those of `keys` that say nothing there."""
    return {key: value for key, value in raw.items() if key not in keys or value}


def as_new(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw`, the content of a file, with what a new sweep has where its file says nothing.

    The models' own defaults are for ledgers older than these fields: their sweeps go on as they began.
    """
    baseline = raw.get("baseline")
    if isinstance(baseline, Mapping):
        raw = {**raw, "baseline": {**NEW_BASELINE, **baseline}}
    return {**NEW, **raw}
