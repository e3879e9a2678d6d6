"""What carries a worker's files between its node and a remote storage, and what lets it in there."""

from __future__ import annotations

import os
from pathlib import Path

from raykd.storage.remote import Remote

# What must reach the lanes' workers, where their node has nothing else: who asks, and where.
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_DISABLED",
    "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET",
)  # fmt: skip


def credentials() -> dict[str, str]:
    """What of this process's environment says who it is to a storage, and where that is."""
    return {name: os.environ[name] for name in CREDENTIALS if name in os.environ}


class RemoteTransfer:
    """Carries a worker's files (`trainables/core/file_transfer.py`): `here` is a copy of the storage."""

    def __init__(self, remote: Remote, here: Path) -> None:
        self.remote = remote
        self.here = here

    def push(self, path: Path) -> None:
        self.remote.push(path, self._key(path))

    def pull(self, path: Path) -> bool:
        return self.remote.pull(self._key(path), path)

    def names(self, folder: Path) -> list[str]:
        return [stored.key.rpartition("/")[2] for stored in self.remote.list(self._key(folder))]

    def remove(self, path: Path) -> None:
        self.remote.remove(self._key(path))

    def _key(self, path: Path) -> str:
        return path.relative_to(self.here).as_posix()
