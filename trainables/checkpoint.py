"""Checkpoints that survive a crash: written whole or not at all, known to be intact before they are trusted.

A state is a tree of dicts, lists, numbers, strings and tensors (what `torch.load(weights_only=True)` reads).
Its file carries the epoch and the CRC-32 of its bytes in the name, `epoch-00012-1a2b3c4d.pt`, appears by
rename after fsync, and the one before it is kept: a damaged newest file costs one epoch, not the trial.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

_NAME = re.compile(r"epoch-(\d+)-([0-9a-f]{8})\.pt")
_KEPT = 2
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one trial in one folder. One writer at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write the state after `epoch` epochs; on return it is on the disk, with the one before it kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"writing-{os.getpid()}.tmp"
        with temporary.open("wb") as file:
            summed = _Summed(file)
            torch.save(state, summed)  # type: ignore[arg-type]  # write and flush are all it uses
            file.flush()
            os.fsync(file.fileno())
        final = self.folder / f"epoch-{epoch:05d}-{summed.crc:08x}.pt"
        temporary.rename(final)
        sync_folder(self.folder)
        kept = [path for past, path in self._files() if past < epoch][-(_KEPT - 1) :]
        for path in self.folder.iterdir():
            # Also a damaged file of this epoch or a later one, and what a killed writer left.
            if path not in (final, *kept) and (_NAME.fullmatch(path.name) or path.suffix == ".tmp"):
                path.unlink(missing_ok=True)

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """(epoch, state) of the newest intact checkpoint, tensors on the CPU; None where there is none."""
        for epoch, path in reversed(self._files()):
            if _checksum(path) == path.stem[-8:]:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return epoch, state
            _log.warning("%s is damaged: the one before it is used", path)
        return None

    def forget_after(self, epoch: int) -> int | None:
        """Take away what is of a later epoch; returns the latest of these, None where there was none."""
        later = [(past, path) for past, path in self._files() if past > epoch]
        for _, path in later:
            path.unlink()
        return later[-1][0] if later else None

    def _files(self) -> list[tuple[int, Path]]:
        """(epoch, path) by epoch."""
        if not self.folder.is_dir():
            return []
        named = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return sorted((int(match[1]), path) for match, path in named if match)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there becomes `path` on a clean exit, else goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Summed:
    """A file for writing that keeps the CRC-32 of what went through it, so that nothing is read back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.crc = 0

    def write(self, data: bytes) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _checksum(path: Path) -> str:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"
