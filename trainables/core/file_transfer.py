"""Transfer of files between a node and a remote storage. An engine may provide one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class FileTransfer(Protocol):
    """Each path is a place on this node; the storage has a copy of the file at that path.

    A transfer that fails is tried again (`storage_retry.py`); then `StorageLost` is raised.
    """

    def push(self, path: Path) -> None:
        """Upload the file and replace the copy there; the upload is complete when this returns."""

    def pull(self, path: Path) -> bool:
        """Download the file and replace what is here; False if the storage has none."""

    def names(self, folder: Path) -> list[str]:
        """The names of the files that the storage has in `folder`."""

    def remove(self, path: Path) -> None:
        """Delete the storage's copy, if there is one."""
