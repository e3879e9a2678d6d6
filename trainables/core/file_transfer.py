"""What brings files from a node to a storage that is no folder of it, and back. An engine may give one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class FileTransfer(Protocol):
    """Each path is where a file lies, or would lie, on this node.

    Whatever cannot be done now is tried again for a while; then `StorageLost` is raised.
    """

    def push(self, path: Path) -> None:
        """Bring the file to the storage, over what is there; it is whole there when this returns."""

    def pull(self, path: Path) -> bool:
        """Fetch the file, over what is here; False if the storage has none."""

    def names(self, folder: Path) -> list[str]:
        """The names of the files that the storage has in `folder`."""

    def remove(self, path: Path) -> None:
        """Take the file off the storage, if it is there."""
