"""What every node must see, or the storage is not shared: a file, lit by the driver, sought by each worker.

    marker = StorageMarker(folder, name)
    marker.light()

and, in a worker:

    transfer, problem = find(marker.config, marker.credentials)

A lane whose workers do not find it takes no part.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykd.storage.file_transfer import RemoteTransfer, credentials
from raykd.storage.folders import origin_of, own_sweep
from raykd.storage.remote import Remote
from trainables.core.errors import SweepFailed, UserError
from trainables.core.files import guard, opened, remove
from trainables.core.storage_retry import PATIENCE, limited, retry_seconds, with_retry

if TYPE_CHECKING:
    from trainables.spec.trial import TrialSpec
    from trainables.training.workspace import Workspace

_NAME = ".beacon-"  # the name on disk is as old as the first sweeps
_BRIEF_S = 10.0


class StorageMarker:
    """In the folder of one driver's sweep."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{_NAME}{name}"
        self._origin = origin_of(folder)

    @property
    def config(self) -> dict[str, Any]:
        """What a worker needs to find it: plain, and without secrets."""
        origin = self._origin
        return {
            "marker": str(self._path),
            "origin": origin and (origin.uri, str(origin.here)),
            "patience": retry_seconds(),
        }

    @property
    def credentials(self) -> dict[str, str]:
        """What a worker on another node needs to be let in."""
        return credentials() if self._origin is not None else {}

    def place(self) -> None:
        """Put it there, in the place of those of drivers that were killed."""
        folder = self._path.parent
        if self._origin is None:
            with_retry(self._place_here, f"{folder} cannot be written")
            return
        there = self._origin.remote
        for stored in there.list(self._origin.key(folder), recursive=False):
            if fnmatch(stored.key.rpartition("/")[2], f"{_NAME}*"):
                there.remove(stored.key)
        there.put(self._origin.key(self._path), b"whoever reads this shares the storage")

    def remove(self) -> None:
        """Take it away, if that can be done now."""
        with suppress(OSError, SweepFailed), limited(_BRIEF_S):
            if self._origin is None:
                self._path.unlink(missing_ok=True)
            else:
                self._origin.remote.remove(self._origin.key(self._path))

    def _place_here(self) -> None:
        own_sweep(self._path.parent, make=True)
        for path in self._path.parent.glob(f"{_NAME}*"):
            remove(path)
        opened(self._path, "ab").close()


def find(config: Mapping[str, Any], given: Mapping[str, str]) -> tuple[RemoteTransfer | None, str]:
    """Who carries this worker's files, where that is needed; and what is wrong with its storage, or "".

    `config` is the marker's, `given` its credentials.
    """
    os.environ[PATIENCE] = str(config["patience"])
    marker = Path(config["marker"])
    if config["origin"] is None:
        seen = with_retry(marker.exists, f"{marker} cannot be read")
        if seen:  # what this worker writes lies there; on other nodes it may run as another user
            guard(marker.parent.parent, owner=marker.parent.stat().st_uid)
        return None, "" if seen else f"does not see {marker.parent}: every node must share the storage"
    uri, here = config["origin"]
    guard(Path(here))
    os.environ.update(given)
    try:
        transfer = RemoteTransfer(Remote.connect(uri), Path(here))
        transfer.remote.check()
        key = marker.relative_to(here).as_posix()
        return transfer, "" if transfer.remote.has(key) else f"sees another storage than the driver at {uri}"
    except (UserError, SweepFailed) as error:
        return None, f"cannot use the storage: {error}"


def fetch_teachers(transfer: RemoteTransfer, trials: Sequence[TrialSpec], workspace: Workspace) -> None:
    """Bring the trials' teachers here that were trained on another node."""
    from trainables.core.checksums import is_whole
    from trainables.training.teacher_file import teacher_file, teacher_trial

    for training in filter(None, map(teacher_trial, trials)):
        file = teacher_file(training, workspace.teachers)
        if not is_whole(file):
            transfer.pull(file)
