"""What the training loop and its engine share: where a trial's files lie, and what an epoch reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trainables.core.file_transfer import FileTransfer, SharedFolder
from trainables.targets.room import Room


@dataclass(frozen=True)
class Workspace:
    """Where a trial's files lie."""

    folder: Path  # this trial's own
    cache: Path  # decoded data, of this node
    teachers: Path  # trained teachers, shared by trials and nodes
    transfer: FileTransfer = field(default_factory=SharedFolder)  # between this node and the storage
    targets: Room = "off"  # the room in the cache for teachers' answers, which trials share


@dataclass(frozen=True)
class EpochReport:
    """What an epoch gave."""

    epoch: int  # finished epochs, from 1
    # score, probe/NAME, probe/NAME_se (absent where an epoch is not probed); loss/total, loss/TERM; lr;
    # images_per_s in this epoch; train_s, seconds of training so far without probes
    metrics: dict[str, float]
    note: str = ""  # something a person should read


Report = Callable[[EpochReport], bool]  # True: go on; False: stop. Called on every worker
