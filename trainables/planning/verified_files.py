"""What checkpoints hold, found out once for all trials that use them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path

from trainables.teachers.pretrained.read import CheckpointFacts

_seen: dict[tuple[Hashable, ...], CheckpointFacts] = {}


def verified(path: Path, read_as: Hashable, verify: Callable[[], CheckpointFacts]) -> CheckpointFacts:
    """What `verify` says of the file, which is read again only if it has changed.

    `read_as` is the network that it is read into. Raises what `verify` raises, each time.
    """
    path = path.expanduser()
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    key = (path.resolve(), stamp, read_as)
    if key not in _seen:
        _seen[key] = verify()
    return _seen[key]
