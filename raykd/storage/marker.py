"""Whether every node sees the driver's storage: the driver places a file there, and each worker looks for it.

    marker = StorageMarker(sweep, name)
    marker.place()

and, in a worker:

    transfer, problem = find(marker.config, marker.credentials)

A lane takes no part if a worker of it does not find the file.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from raykd.storage.base import SweepFolder
from raykd.storage.file_transfer import RemoteTransfer
from raykd.storage.remote import Remote
from trainables.core.errors import SweepFailed, UserError
from trainables.core.file_transfer import FileTransfer, SharedFolder
from trainables.core.files import guard, opened, remove
from trainables.core.storage_retry import RETRY_ENV, limited, retry_seconds, with_retry
from trainables.spec.trial import TrialSpec
from trainables.training.workspace import Workspace

_NAME = ".beacon-"  # the name on disk is as old as the first sweeps
_BRIEF_S = 10.0


class StorageMarker:
    """The file of one driver in its sweep's folder."""

    def __init__(self, sweep: SweepFolder, name: str) -> None:
        """A marker `name` for `sweep`, not placed yet."""
        self._sweep = sweep
        self._path = sweep.path / f"{_NAME}{name}"

    @property
    def config(self) -> dict[str, Any]:
        """What a worker needs to find it: plain values, and no secrets."""
        storage = self._sweep.storage
        return {
            "marker": str(self._path),
            "uri": storage.uri,
            "storage": str(storage.folder),
            "retry_seconds": retry_seconds(),
        }

    @property
    def credentials(self) -> dict[str, str]:
        """The environment variables by which a worker on another node can use the storage."""
        return self._sweep.storage.credentials()

    def place(self) -> None:
        """Write the file, and remove those of drivers that were killed."""
        storage, folder = self._sweep.storage, self._sweep.path

        def write() -> None:
            self._sweep.own(make=True)
            for name in storage.names(folder):
                if name.startswith(_NAME):
                    storage.remove(folder / name)
            opened(self._path, "ab").close()

        with_retry(write, f"{folder} cannot be written")
        storage.push(self._path)

    def remove(self) -> None:
        """Remove the file, if that can be done now."""
        with suppress(OSError, SweepFailed), limited(_BRIEF_S):
            remove(self._path)
            self._sweep.storage.remove(self._path)


def find(config: Mapping[str, Any], credentials: Mapping[str, str]) -> tuple[FileTransfer, str]:
    """What copies this worker's files, and what is wrong with its storage ("" for nothing).

    `config` and `credentials` are the marker's.
    """
    os.environ[RETRY_ENV] = str(config["retry_seconds"])
    marker, uri, folder = Path(config["marker"]), config["uri"], Path(config["storage"])
    if not uri:
        seen = with_retry(marker.exists, f"{marker} cannot be read")
        if seen:  # what this worker writes lies there; on other nodes it may run as another user
            guard(folder, owner=marker.parent.stat().st_uid)
        problem = f"does not see {marker.parent}: every node must share the storage"
        return SharedFolder(), "" if seen else problem
    guard(folder)
    os.environ.update(credentials)
    try:
        transfer = RemoteTransfer(Remote.connect(uri), folder)
        transfer.remote.check()
        found = transfer.remote.has(transfer.key(marker))
        return transfer, "" if found else f"sees another storage than the driver at {uri}"
    except (UserError, SweepFailed) as error:
        return SharedFolder(), f"cannot use the storage: {error}"


def fetch_teachers(transfer: FileTransfer, trials: Sequence[TrialSpec], workspace: Workspace) -> None:
    """Copy the trials' teachers to this node that were trained on another one."""
    from trainables.training.teacher_file import teacher_file, teacher_trials

    for training in itertools.chain.from_iterable(map(teacher_trials, trials)):
        transfer.pull_missing(teacher_file(training, workspace.teachers))
