"""A storage that is an object store, with a working copy under this user's cache.

The object store holds what counts: a sweep's ledger, its lease, the checkpoints and students of its trials,
and trained teachers. Tables, curves and logs are written in the working copy and mirrored.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from raykd.storage import remote_lease, segments
from raykd.storage.append_log import AppendLog
from raykd.storage.base import TEACHERS, Storage, SweepFolder
from raykd.storage.cache import ready_cache
from raykd.storage.file_transfer import RemoteTransfer, credentials
from raykd.storage.lease import Driver, Lease
from raykd.storage.mirror import mirrored
from raykd.storage.owners import make_private
from raykd.storage.remote import Remote
from raykd.storage.uri import shown
from trainables.core.files import cache_folder, guard, own_folder


class RemoteStorage(RemoteTransfer, Storage):
    """An object store that holds sweeps."""

    def __init__(self, remote: Remote, folder: Path) -> None:
        """`folder` is the working copy of `remote`."""
        super().__init__(remote, folder)
        self.uri = remote.uri

    @classmethod
    def connect(cls, uri: str, check: bool = True) -> RemoteStorage:
        """The storage at `uri`, with its working copy, which is made if it is not there.

        Raises `UserError` for a URI that cannot be one, and, with `check`, where the storage refuses us, has
        no such bucket, or does not answer.
        """
        remote = Remote.connect(uri if "?" in uri else uri.rstrip("/"))
        if check:
            remote.check()
        folder = working_copy(remote.uri)
        if not folder.is_dir():
            ready_cache()
            make_private(folder)
        return cls(remote, guard(folder))

    @property
    def option(self) -> str:
        return self.uri

    def shown(self, path: Path) -> str:
        key = self.key(path)
        return shown(self.uri, "" if key == "." else key)

    def sweeps(self) -> list[str]:
        found = self.remote.list("", recursive=False)
        return [entry.key for entry in found if entry.size < 0 and not entry.key.startswith(".")]

    def sweep(self, name: str) -> RemoteSweep:
        return RemoteSweep(self, name)

    def resolved(self) -> RemoteStorage:
        return RemoteStorage(self.remote, guard(self.folder.resolve()))

    def fetch_teachers(self) -> None:
        for entry in self.remote.list(TEACHERS, recursive=False):
            path = self.folder / entry.key
            if path.suffix == ".safetensors" and not path.is_file():
                self.pull(path)

    def credentials(self) -> dict[str, str]:
        return credentials()


class RemoteSweep(SweepFolder):
    """A sweep on an object store: the ledger is objects of whole lines, and the lease an object, too."""

    storage: RemoteStorage

    def __init__(self, storage: RemoteStorage, name: str) -> None:
        super().__init__(storage, name)
        self._remote = storage.remote

    def has_ledger(self) -> bool:
        return self.has_folder(segments.FOLDER)

    def has_folder(self, name: str) -> bool:
        return bool(self._remote.list(f"{self.name}/{name}"))

    def size(self) -> int:
        return sum(entry.size for entry in self._remote.list(self.name) if entry.size > 0)

    def read_ledger(self) -> tuple[bytes | None, int]:
        data, driver = segments.read(self._remote, self.name)
        return (data if driver else None), driver

    def open_ledger(self, driver: int, count: int, size: int) -> AppendLog:
        return segments.Segments(self._remote, self.name, driver + 1, count)

    def replace_ledger(self, driver: int, lines: list[bytes]) -> None:
        self.open_ledger(driver, 0, 0).append(b"".join(lines))  # one object: all of them or none

    def driver(self) -> Driver | None:
        return remote_lease.driver(self._remote, self.name)

    def take_lease(self) -> Lease:
        return remote_lease.take(self._remote, self.name)

    def check_writable(self) -> None:
        self._remote.check_writable()

    def make_copy(self) -> None:
        own_folder(self.path)

    def discard_copy(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def mirrored(self) -> AbstractContextManager[None]:
        return mirrored(self.storage, self.path)


def working_copy(uri: str) -> Path:
    """The folder under the cache that is the working copy of a URI, always the same one."""
    name = re.sub(r"\W+", "-", shown(uri).partition("://")[2]).strip("-")[-40:]
    return cache_folder().absolute() / "storage" / f"{name}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
