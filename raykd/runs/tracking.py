"""The trackers of a sweep that is driven: they are told of it while it runs, and caught up when it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raykd.process import signals
from raykd.records.history import History
from raykd.records.tracking.feed import TrackerFeed
from raykd.spec.tracking import TrackSpec

_CLOSE_S = 30.0  # for what a tracker lacks when a driver ends
_HURRIED_S = 5.0  # the same after a signal
WHOLE_S = 86_400.0  # the same where nothing else is to be done; a tracker that is down is given up sooner


def feeds(
    track: TrackSpec, history: History, folder: Path, tell: Callable[[str], object]
) -> list[TrackerFeed]:
    """A listener for each tracker that `track` names, which is told of all that `history` holds already.

    `folder` is the sweep's. `tell` is given a line for the user where a tracker is down.
    """
    found = [
        TrackerFeed(name, options.model_dump(exclude_none=True), folder, tell)
        for name, options in track.named().items()
    ]
    for feed in found:
        feed.rebuild(history)
    return found


def close(found: list[TrackerFeed], within: float = _CLOSE_S) -> None:
    """Write what is due, one tracker after the other, each for at most so many seconds."""
    for feed in found:
        feed.close(min(_HURRIED_S, signals.left() / 4) if signals.received() else within)
