"""A storage that is a folder, on this machine's disk or on one that all nodes share."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from raykd.storage import folder_lease
from raykd.storage.append_log import AppendLog, FileLog
from raykd.storage.base import LEDGER, Storage, SweepFolder
from raykd.storage.lease import Driver, Lease
from trainables.core.errors import UserError
from trainables.core.file_transfer import SharedFolder
from trainables.core.files import guard, opened, read_bytes, remove, replacing, sync_folder
from trainables.core.storage_retry import retry_seconds, with_retry

_PROBE = 64 << 10  # bytes that must fit into a storage before a sweep starts
_FIRST_TRY_S = 10.0
_MADE = (folder_lease.LOCK, "trials")  # in the folder of a sweep, by its driver


class LocalStorage(SharedFolder, Storage):
    """A folder that holds sweeps."""

    uri = ""

    def __init__(self, folder: Path) -> None:
        """The storage in `folder`, which need not be there yet."""
        self.folder = folder

    @property
    def option(self) -> str:
        return str(self.folder)

    def shown(self, path: Path) -> str:
        return str(path)

    def sweeps(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob(f"*/{LEDGER}"))

    def remains(self) -> list[str]:
        left = {path.parent.name for made in _MADE for path in self.folder.glob(f"*/{made}")}
        return sorted(name for name in left - set(self.sweeps()) if not name.startswith("."))

    def sweep(self, name: str) -> LocalSweep:
        return LocalSweep(self, name)

    def resolved(self) -> LocalStorage:
        return LocalStorage(guard(self.folder.resolve()))

    def check_place(self, given: str, probe: bool) -> None:
        above = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not above.is_dir():
            raise UserError("--storage", f"{above} is a file", value=given, expected="a folder")
        try:
            if probe:  # the mode bits do not count: not for root, nor on a read-only disk
                TemporaryDirectory(dir=above, prefix=".raykd-").cleanup()
        except OSError as error:
            problem = f"{above} cannot be written in: {error.strerror}"
            raise UserError("--storage", problem, value=given, expected="a folder of yours") from None


class LocalSweep(SweepFolder):
    """A sweep in a folder: the ledger is one file, and the lease a lock on another."""

    def has_ledger(self) -> bool:
        return (self.path / LEDGER).exists()

    def has_folder(self, name: str) -> bool:
        return (self.path / name).is_dir()

    def size(self) -> int:
        total = 0
        for above, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):  # it was removed in this moment
                    total += (Path(above) / name).lstat().st_size
        return total

    def read_ledger(self) -> tuple[bytes | None, int]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return read_bytes(self.path / LEDGER), 0
        return None, 0

    def open_ledger(self, driver: int, count: int, size: int) -> AppendLog:
        path = self.path / LEDGER
        if count:
            return FileLog(path, size=size)
        remove(path)  # its driver died before anything was recorded
        log = FileLog(path, os.O_CREAT | os.O_EXCL)
        # Without these a crash can leave a ledger whose records are on the disk and whose name is not.
        sync_folder(self.path)
        sync_folder(self.path.parent)
        return log

    def replace_ledger(self, driver: int, lines: list[bytes]) -> None:
        with replacing(self.path / LEDGER) as path:
            path.write_bytes(b"".join(lines))

    def driver(self) -> Driver | None:
        return folder_lease.driver(self.path)

    def take_lease(self) -> Lease:
        self.own()
        return folder_lease.take(self.path)

    def check_writable(self) -> None:
        probe = self.path / f".probe-{os.getpid()}.tmp"

        def write() -> None:
            self.own(make=True)
            with opened(probe, "wb") as file:
                file.write(b"\0" * _PROBE)
                file.flush()
                os.fsync(file.fileno())

        try:
            with_retry(write, f"{self.path} cannot be written", limit=min(_FIRST_TRY_S, retry_seconds()))
        finally:
            with suppress(OSError, UserError):
                remove(probe)
            with suppress(OSError):
                self.path.rmdir()  # a new sweep that is refused later leaves nothing behind
