"""What `--storage` names: the place of all sweeps (`Storage`), and one sweep in it (`SweepFolder`).

    storage = open_storage("s3://bucket/sweeps")    # open_storage.py
    sweep = storage.sweep("wide")
    with sweep.take_lease(): ...

A storage is a folder (`local.py`), or an object store with a working copy on this machine
(`remote_storage.py`). It is opened once, from the command line, and handed down.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from raykd.storage.append_log import AppendLog
from raykd.storage.lease import Driver, Lease
from trainables.core.errors import UserError
from trainables.core.file_transfer import FileTransfer
from trainables.core.files import guard, is_own_file, own_folder

TEACHERS = ".teachers"
LEDGER = "ledger.jsonl"


class Storage(FileTransfer, ABC):
    """A place that holds sweeps, and the teachers that were trained for them.

    It is also the `FileTransfer` of this process: `pull(path)` brings a file of `folder` up to date, and
    `push(path)` brings it to where the storage is. In a `LocalStorage` every file is there already.
    """

    folder: Path  # the storage itself, or its working copy
    uri: str  # "" of a folder

    @property
    @abstractmethod
    def option(self) -> str:
        """What to give to `--storage` for this one."""

    @abstractmethod
    def shown(self, path: Path) -> str:
        """How messages call `path`, a file or folder below `folder`."""

    @abstractmethod
    def sweeps(self) -> list[str]:
        """The names of the sweeps that have begun."""

    def remains(self) -> list[str]:
        """The names of folders that are what a driver made, and hold no ledger."""
        return []  # an object store has no folder without files, and `sweeps` names each

    @abstractmethod
    def sweep(self, name: str) -> SweepFolder:
        """The sweep of this name, begun or not."""

    @abstractmethod
    def resolved(self) -> Storage:
        """The same storage, with `folder` as every node of a cluster knows it: without links."""

    def check_place(self, given: str, probe: bool) -> None:
        """Check that a folder is or could be there, with `probe` that this user can write in it.

        Raises `UserError`, which quotes `given`, the text behind `--storage`.
        """
        return  # an object store was asked when it was opened

    def fetch_teachers(self) -> None:
        """Copy those trained teachers into `folder` that are not there yet."""
        return

    def credentials(self) -> dict[str, str]:
        """The environment variables by which a worker on another node can use this storage. Secret."""
        return {}

    def teachers(self) -> Path:
        """The folder with the teachers that this user has trained.

        In a storage that several users share each has one: another user's weights could be anything.
        """
        common = self.folder / TEACHERS
        try:
            own_contents(common)
        except UserError:
            return self.folder / f"{TEACHERS}-{os.geteuid()}"
        return common

    def __str__(self) -> str:
        """How messages call it."""
        return self.shown(self.folder)


class SweepFolder(ABC):
    """One sweep of a storage: its files, its ledger, and the lease that its driver holds."""

    def __init__(self, storage: Storage, name: str) -> None:
        """The sweep `name`, begun or not; nothing is read or written."""
        self.storage = storage
        self.name = name
        self.path = storage.folder / name  # the folder on this machine

    def __str__(self) -> str:
        """How messages call it."""
        return self.storage.shown(self.path)

    def own(self, make: bool = False) -> None:
        """Check that `path`, if it is there, is this user's folder, and that it holds no link or pipe.

        With `make` it is made. Raises `UserError`.
        """
        own_contents(self.path, make)

    def resolved(self) -> SweepFolder:
        """The same sweep in `Storage.resolved`."""
        return self.storage.resolved().sweep(self.name)

    @abstractmethod
    def has_ledger(self) -> bool:
        """Whether the sweep has begun."""

    @abstractmethod
    def has_folder(self, name: str) -> bool:
        """Whether the sweep holds a folder of this name."""

    @abstractmethod
    def size(self) -> int:
        """Bytes of all files of the sweep."""

    @abstractmethod
    def read_ledger(self) -> tuple[bytes | None, int]:
        """The lines of the ledger, None where there is none, and the number of its last driver.

        Drivers are counted from 1, and in a folder not at all: there the number is 0.
        """

    @abstractmethod
    def open_ledger(self, driver: int, count: int, size: int) -> AppendLog:
        """The ledger, to append to it behind its first `count` records, which are `size` bytes.

        `driver` is the number that `read_ledger` gave. With 0 records a new ledger is begun.
        """

    @abstractmethod
    def replace_ledger(self, driver: int, lines: list[bytes]) -> None:
        """Write a ledger of these lines in the place of the one that is there, all of them or none."""

    @abstractmethod
    def driver(self) -> Driver | None:
        """The live process that holds the lease now."""

    @abstractmethod
    def take_lease(self) -> Lease:
        """Become the sweep's driver until the lease is closed.

        Raises `UserError`, which names the driver, if there is one already.
        """

    @abstractmethod
    def check_writable(self) -> None:
        """Raises `StorageLost` or `UserError` where the sweep cannot be written."""

    def make_copy(self) -> None:
        """Make `path` if it is a working copy that this machine does not have yet."""
        return

    def discard_copy(self) -> None:
        """Remove `path` if it is a working copy: the sweep was removed from the storage."""
        return

    def mirrored(self) -> AbstractContextManager[None]:
        """While this runs, files that are written in `path` are copied to the storage.

        Only the lease's holder may do so: what lies here may be older than what another driver wrote.
        """
        return nullcontext()

    def mirror(self) -> None:
        """Copy what is in `path` to the storage once."""
        with self.mirrored():
            pass


def own_contents(folder: Path, make: bool = False) -> None:
    """Check that a folder, if it is there, is this user's, and that it holds no link or pipe.

    With `make` it is made. Raises `UserError`.
    """
    guard(folder.parent)
    if make or folder.is_symlink() or folder.exists():
        own_folder(folder)
        for entry in folder.iterdir():  # refused now, and not when Ray has been started
            if not entry.is_dir() or entry.is_symlink():
                is_own_file(entry)
