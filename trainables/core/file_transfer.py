"""Copying files between a node and the storage. A storage that is a folder of every node needs no copies."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from trainables.core.files import is_own_file, remove


class FileTransfer(Protocol):
    """Each path is a place on this node; the storage has a copy of the file at that path.

    What cannot be done now is tried again for a while; then `StorageLost` is raised.
    """

    def push(self, path: Path) -> None:
        """Copy the file to the storage, over what is there; it is whole there when this returns."""

    def pull(self, path: Path) -> bool:
        """Copy the file to this node, over what is here; False if the storage has none."""

    def pull_missing(self, path: Path) -> None:
        """Copy a file with a checksum to this node unless it is whole here."""

    def names(self, folder: Path) -> list[str]:
        """The names of the files that the storage has in `folder`, and not below it."""

    def remove(self, path: Path) -> None:
        """Remove the file from the storage, if it is there."""

    def discard(self, folder: Path) -> None:
        """Remove this node's copies of the files in a folder; the storage has them."""


class SharedFolder(FileTransfer):
    """For a storage that every node sees as a folder: nothing is copied."""

    def push(self, path: Path) -> None:
        return

    def pull(self, path: Path) -> bool:
        return is_own_file(path)

    def pull_missing(self, path: Path) -> None:
        return

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []

    def remove(self, path: Path) -> None:
        remove(path)

    def discard(self, folder: Path) -> None:
        return  # these are the files themselves
