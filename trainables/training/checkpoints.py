"""Checkpoints that survive a crash: they are written atomically, and verified before they are loaded.

A state is a tree of dicts, lists, numbers, strings and tensors (as `torch.load(weights_only=True)` reads it).
The file's name contains the epoch and the CRC-32 of its bytes: `epoch-00012-1a2b3c4d.pt`. The file is renamed
to it after fsync. The checkpoint before it is kept, so a damaged newest file costs one epoch and not the
trial. If a `FileTransfer` copies files, the storage decides which checkpoints exist; the folder has copies.
"""

from __future__ import annotations

import contextlib
import logging
import re
import zlib
from pathlib import Path
from typing import IO, Any

import torch

from trainables.core.file_transfer import FileTransfer, SharedFolder
from trainables.core.files import opened, remove, replacing
from trainables.core.storage_retry import with_retry

_NAME = re.compile(r"epoch-(\d+)-([0-9a-f]{8})\.pt")
_KEPT = 2
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one trial in one folder. One writer at a time."""

    def __init__(self, folder: Path, transfer: FileTransfer | None = None) -> None:
        """Use `folder`. Every node can read it, or `transfer` copies its files to and from the storage."""
        self.folder = folder
        self.transfer = transfer or SharedFolder()

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write the state after `epoch` epochs. On return it is on the disk; the one before it is kept.

        Raises `StorageLost` if writing fails for longer than the time limit of `storage_retry`.
        """
        final = with_retry(lambda: self._write(epoch, state), f"{self.folder} cannot be written")
        self.transfer.push(final)
        with contextlib.suppress(OSError):  # the next `save` tries again to remove old files
            self._prune(epoch, final)

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """(epoch, state) of the newest intact checkpoint, tensors on the CPU; None if there is none."""
        for epoch, path in reversed(self._stored()):
            here = path.is_file() and _intact(path)
            if here or (self.transfer.pull(path) and _intact(path)):
                with opened(path) as file:
                    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                return epoch, state
            _log.warning("%s is damaged: the one before it is used", path)
        return None

    def forget_after(self, epoch: int) -> int | None:
        """Remove the checkpoints after `epoch`; returns the last removed epoch, None if there was none."""
        later = [(past, path) for past, path in self._stored() if past > epoch]
        for _, path in later:
            remove(path)
            self.transfer.remove(path)
        return later[-1][0] if later else None

    def discard(self) -> None:
        """Remove all checkpoints and what killed processes left beside them, here and in the storage."""
        self.forget_after(-1)
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                if _NAME.fullmatch(path.name) or path.name.endswith(".tmp"):
                    remove(path)
        with contextlib.suppress(OSError):  # it is not there, or holds files of others
            self.folder.rmdir()

    def _write(self, epoch: int, state: dict[str, Any]) -> Path:
        def name() -> str:
            return f"epoch-{epoch:05d}-{summed.crc:08x}.pt"

        with replacing(self.folder / "epoch", name) as temporary, opened(temporary, "wb") as file:
            summed = _Summed(file)
            try:
                torch.save(state, summed)  # type: ignore[arg-type]  # it only uses write and flush
            except RuntimeError as error:  # torch hides the file's error
                raise summed.error or error from None
        return self.folder / name()

    def _prune(self, epoch: int, final: Path) -> None:
        here = [path.name for path in self.folder.iterdir()]
        kept = self._kept(here, epoch, final)
        for name in here:
            # Also removes damaged files of this or a later epoch, and temporary files of killed processes.
            if name not in kept and (_NAME.fullmatch(name) or name.endswith(".tmp")):
                remove(self.folder / name)
        stored = self.transfer.names(self.folder)
        kept = self._kept(stored, epoch, final)
        for name in stored:
            if name not in kept and _NAME.fullmatch(name):
                self.transfer.remove(self.folder / name)

    def _kept(self, names: list[str], epoch: int, final: Path) -> list[str]:
        """The checkpoints in `names` to keep: the new one, `final`, and the last one before `epoch`."""
        before = [path.name for past, path in self._parsed(names) if past < epoch]
        return [final.name, *before[-(_KEPT - 1) :]]

    def _stored(self) -> list[tuple[int, Path]]:
        """(epoch, path) of each checkpoint in the storage, sorted by epoch."""
        return self._parsed(self.transfer.names(self.folder))

    def _parsed(self, names: list[str]) -> list[tuple[int, Path]]:
        named = [(_NAME.fullmatch(name), self.folder / name) for name in names]
        return sorted((int(match[1]), path) for match, path in named if match)


class _Summed:
    """A file for writing that computes the CRC-32 of the written bytes, so that none are read back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.crc = 0
        self.error: OSError | None = None  # the last error of a write

    def write(self, data: bytes) -> int:
        """Write `data`; returns the number of bytes."""
        self.crc = zlib.crc32(data, self.crc)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()


def _intact(path: Path) -> bool:
    """Whether the CRC-32 of the file's bytes is the one in its name."""

    def summed() -> int:
        crc = 0
        with opened(path) as file:
            while chunk := file.read(2**20):
                crc = zlib.crc32(chunk, crc)
        return crc

    return f"{with_retry(summed, f'{path} cannot be read'):08x}" == path.stem[-8:]
