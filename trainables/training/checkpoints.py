"""Checkpoints that survive a crash: written whole or not at all, known to be intact before they are trusted.

A state is a tree of dicts, lists, numbers, strings and tensors (what `torch.load(weights_only=True)` reads).
Its file carries the epoch and the CRC-32 of its bytes in the name, `epoch-00012-1a2b3c4d.pt`, appears by
rename after fsync, and the one before it is kept: a damaged newest file costs one epoch, not the trial. With
a transfer the storage is elsewhere: it decides which checkpoints there are, and the folder is a copy of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import zlib
from pathlib import Path
from typing import IO, Any

import torch

from trainables.core.file_transfer import FileTransfer
from trainables.core.files import opened, own_folder, remove, rename, sync_folder
from trainables.core.storage_retry import with_retry

_NAME = re.compile(r"epoch-(\d+)-([0-9a-f]{8})\.pt")
_KEPT = 2
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one trial in one folder. One writer at a time."""

    def __init__(self, folder: Path, transfer: FileTransfer | None = None) -> None:
        self.folder = folder
        self.transfer = transfer

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write the state after `epoch` epochs; on return it is on the disk, with the one before it kept.

        Raises `StorageLost` where that cannot be done for longer than the patience.
        """
        final = with_retry(lambda: self._write(epoch, state), f"{self.folder} cannot be written")
        if self.transfer is not None:
            self.transfer.push(final)
        with contextlib.suppress(OSError):  # what could not be removed goes with the next one
            self._prune(epoch, final)

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """(epoch, state) of the newest intact checkpoint, tensors on the CPU; None where there is none."""
        transfer = self.transfer
        for epoch, path in reversed(self._files() if transfer is None else self._stored(transfer)):
            here = path.is_file() and _intact(path)
            if here or (transfer is not None and transfer.pull(path) and _intact(path)):
                with opened(path) as file:
                    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                return epoch, state
            _log.warning("%s is damaged: the one before it is used", path)
        return None

    def forget_after(self, epoch: int) -> int | None:
        """Take away what is of a later epoch; returns the latest of these, None where there was none."""
        transfer = self.transfer
        there = self._files() if transfer is None else self._stored(transfer)
        later = [(past, path) for past, path in there if past > epoch]
        for _, path in later:
            remove(path)
            if transfer is not None:
                transfer.remove(path)
        return later[-1][0] if later else None

    def _write(self, epoch: int, state: dict[str, Any]) -> Path:
        own_folder(self.folder)
        temporary = self.folder / f"writing-{os.getpid()}.tmp"
        try:
            with opened(temporary, "wb") as file:
                summed = _Summed(file)
                try:
                    torch.save(state, summed)  # type: ignore[arg-type]  # write and flush are all it uses
                except RuntimeError as error:  # torch hides what the file said
                    raise summed.error or error from None
                file.flush()
                os.fsync(file.fileno())
            final = self.folder / f"epoch-{epoch:05d}-{summed.crc:08x}.pt"
            rename(temporary, final)
        finally:
            remove(temporary)  # half a file only takes room
        sync_folder(self.folder)
        return final

    def _prune(self, epoch: int, final: Path) -> None:
        kept = [path for past, path in self._files() if past < epoch][-(_KEPT - 1) :]
        for path in self.folder.iterdir():
            # Also a damaged file of this epoch or a later one, and what a killed writer left.
            if path not in (final, *kept) and (_NAME.fullmatch(path.name) or path.suffix == ".tmp"):
                remove(path)
        if self.transfer is not None:
            stored = self._stored(self.transfer)
            kept = [path for past, path in stored if past < epoch][-(_KEPT - 1) :]
            for _, path in stored:
                if path not in (final, *kept):
                    self.transfer.remove(path)

    def _stored(self, transfer: FileTransfer) -> list[tuple[int, Path]]:
        """(epoch, path) by epoch of those on the storage."""
        named = [(_NAME.fullmatch(name), self.folder / name) for name in transfer.names(self.folder)]
        return sorted((int(match[1]), path) for match, path in named if match)

    def _files(self) -> list[tuple[int, Path]]:
        """(epoch, path) by epoch."""
        if not self.folder.is_dir():
            return []
        named = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return sorted((int(match[1]), path) for match, path in named if match)


class _Summed:
    """A file for writing that keeps the CRC-32 of what went through it, so that nothing is read back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.crc = 0
        self.error: OSError | None = None  # that a write met

    def write(self, data: bytes) -> int:
        self.crc = zlib.crc32(data, self.crc)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _intact(path: Path) -> bool:
    """Whether the file's bytes are those that its name was given for."""

    def summed() -> int:
        crc = 0
        with opened(path) as file:
            while chunk := file.read(2**20):
                crc = zlib.crc32(chunk, crc)
        return crc

    return f"{with_retry(summed, f'{path} cannot be read'):08x}" == path.stem[-8:]
