"""What differs between two specs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trainables.spec.parse import join

if TYPE_CHECKING:
    from raykd.spec.sweep import SweepSpec


def difference(old: SweepSpec, new: SweepSpec) -> list[str]:
    """What changed, a line a field: `axes.gamma.log: [0.003, 3] -> [0.003, 1]`."""
    before, after = (dict(_leaves("", spec.model_dump(mode="json"))) for spec in (old, new))
    lines = []
    for path in sorted(before.keys() | after.keys()):
        was, now = (repr(side[path]) if path in side else "nothing" for side in (before, after))
        if was != now:
            lines.append(f"{path}: {was} -> {now}")
    return lines


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in nested mappings that is no mapping itself."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(join(prefix, key), inner)
    else:
        yield prefix, value
