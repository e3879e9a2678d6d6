"""The contract of a tracker, and the table of those that there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from raykd.records.tracking.run import Run

# The name in a spec -> where its class is. Its options are a field of `raykd.spec.tracking.TrackSpec`.
TRACKERS = {
    "wandb": "raykd.records.tracking.wandb_runs:WandbRuns",
    "mlflow": "raykd.records.tracking.mlflow_runs:MlflowRuns",
}


class Place(NamedTuple):
    """What a tracker knows of the sweep."""

    folder: Path  # `tracking` in the sweep's folder, where it may keep files
    sweep: str  # the sweep's name
    key: str  # as of `run.key_of`


class Off(Exception):
    """The user has switched the tracker off, by its own means."""


class Tracker(ABC):
    """Makes a tracker hold what runs say. It lives in a process of its own, which may be killed at any time.

    Importing the tracker's package, and whatever may wait for a network, is for `__init__` and later. Errors
    of any type may be raised: they are told, and the run is given again later.
    """

    live: bool  # whether runs that have not ended can be added to, after a crash too
    where: str  # where runs go, in words. Another place is another tracker, which holds nothing yet.

    @abstractmethod
    def __init__(self, options: dict[str, Any], place: Place) -> None:
        """Connect. Raises `Off`."""

    @abstractmethod
    def write(self, run: Run) -> None:
        """Make the tracker hold `run`, whatever it held of it before; return when it does.

        With `run.before` this object was given so many epochs of it already. A run that has ended may start
        again: a trial that failed is tried once more.
        """

    def close(self) -> None:
        """Nothing more will be written."""
        return


def open_tracker(name: str, options: dict[str, Any], place: Place) -> Tracker:
    """Connect to the tracker of this name. Raises whatever its package raises."""
    module, _, kind = TRACKERS[name].partition(":")
    tracker: Tracker = getattr(import_module(module), kind)(options, place)
    return tracker
