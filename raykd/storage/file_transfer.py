"""Copies files between a node and an object store, with the credentials that this takes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from raykd.storage.remote import Remote
from trainables.core.file_transfer import FileTransfer

# The environment variables that give access to a storage: a lane's workers may have them from nowhere else.
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_DISABLED",
    "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET",
)  # fmt: skip


def credentials() -> dict[str, str]:
    """Those of `CREDENTIALS` that are set in this process's environment."""
    return {name: os.environ[name] for name in CREDENTIALS if name in os.environ}


class RemoteTransfer(FileTransfer):
    """Copies files between an object store and its working copy on this node."""

    def __init__(self, remote: Remote, folder: Path) -> None:
        """`folder` is the working copy of `remote` on this node."""
        self.remote = remote
        self.folder = folder

    def key(self, path: Path) -> str:
        """The key on the storage of a file of the working copy."""
        return path.absolute().relative_to(self.folder).as_posix()

    def push(self, path: Path) -> None:
        self.remote.push(path, self.key(path))

    def pull(self, path: Path) -> bool:
        return self.remote.pull(self.key(path), path)

    def pull_missing(self, path: Path) -> None:
        from trainables.core.checksums import is_whole  # torch, which a driver's commands do without

        if not is_whole(path):
            self.pull(path)

    def names(self, folder: Path) -> list[str]:
        found = self.remote.list(self.key(folder), recursive=False)
        return [entry.key.rpartition("/")[2] for entry in found if entry.size >= 0]

    def remove(self, path: Path) -> None:
        self.remote.remove(self.key(path))

    def discard(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
