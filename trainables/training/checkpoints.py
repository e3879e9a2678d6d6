"""Checkpoints that survive a crash: written whole or not at all, known to be intact before they are trusted.

A state is a tree of dicts, lists, numbers, strings and tensors (what `torch.load(weights_only=True)` reads).
Its file carries the epoch and the CRC-32 of its bytes in the name, `epoch-00012-1a2b3c4d.pt`, appears by
rename after fsync, and the one before it is kept: a damaged newest file costs one epoch, not the trial. Where
a `FileTransfer` copies files, the storage decides which checkpoints there are; the folder holds copies.
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
        """Those in `folder`, which every node sees, or of which `transfer` copies the files."""
        self.folder = folder
        self.transfer = transfer or SharedFolder()

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write the state after `epoch` epochs; on return it is on the disk, with the one before it kept.

        Raises `StorageLost` where that cannot be done within `retry_seconds`.
        """
        final = with_retry(lambda: self._write(epoch, state), f"{self.folder} cannot be written")
        self.transfer.push(final)
        with contextlib.suppress(OSError):  # what could not be removed goes with the next one
            self._prune(epoch, final)

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """(epoch, state) of the newest intact checkpoint, tensors on the CPU; None where there is none."""
        for epoch, path in reversed(self._stored()):
            here = path.is_file() and _intact(path)
            if here or (self.transfer.pull(path) and _intact(path)):
                with opened(path) as file:
                    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                return epoch, state
            _log.warning("%s is damaged: the one before it is used", path)
        return None

    def forget_after(self, epoch: int) -> int | None:
        """Take away what is of a later epoch; returns the latest of these, None where there was none."""
        later = [(past, path) for past, path in self._stored() if past > epoch]
        for _, path in later:
            remove(path)
            self.transfer.remove(path)
        return later[-1][0] if later else None

    def _write(self, epoch: int, state: dict[str, Any]) -> Path:
        def name() -> str:
            return f"epoch-{epoch:05d}-{summed.crc:08x}.pt"

        with replacing(self.folder / "epoch", name) as temporary, opened(temporary, "wb") as file:
            summed = _Summed(file)
            try:
                torch.save(state, summed)  # type: ignore[arg-type]  # write and flush are all it uses
            except RuntimeError as error:  # torch hides what the file said
                raise summed.error or error from None
        return self.folder / name()

    def _prune(self, epoch: int, final: Path) -> None:
        here = [path.name for path in self.folder.iterdir()]
        kept = self._kept(here, epoch, final)
        for name in here:
            # Also a damaged file of this epoch or a later one, and what a killed writer left.
            if name not in kept and (_NAME.fullmatch(name) or name.endswith(".tmp")):
                remove(self.folder / name)
        stored = self.transfer.names(self.folder)
        kept = self._kept(stored, epoch, final)
        for name in stored:
            if name not in kept and _NAME.fullmatch(name):
                self.transfer.remove(self.folder / name)

    def _kept(self, names: list[str], epoch: int, final: Path) -> list[str]:
        """Of these checkpoints the new one, `final`, and the last of those before `epoch`."""
        before = [path.name for past, path in self._parsed(names) if past < epoch]
        return [final.name, *before[-(_KEPT - 1) :]]

    def _stored(self) -> list[tuple[int, Path]]:
        """(epoch, path) of each checkpoint that the storage has, by epoch."""
        return self._parsed(self.transfer.names(self.folder))

    def _parsed(self, names: list[str]) -> list[tuple[int, Path]]:
        named = [(_NAME.fullmatch(name), self.folder / name) for name in names]
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
