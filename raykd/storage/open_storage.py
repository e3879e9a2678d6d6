"""From what a user wrote to the storage or the sweep that it means."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from raykd.storage.base import Storage, SweepFolder
from raykd.storage.local import LocalStorage
from trainables.core.files import guard


def open_storage(place: str | Path | Storage, check: bool = True) -> Storage:
    """The storage that `--storage` names: a folder or a URI. One that is open is returned.

    Raises `UserError` for a URI that cannot be one, and, with `check`, where the storage refuses us, has no
    such bucket, or does not answer.
    """
    if isinstance(place, Storage):
        return place
    if isinstance(place, Path) or not re.match(r"[a-z][a-z0-9+.-]+://", place, re.IGNORECASE):
        return LocalStorage(guard(Path(place)))
    if place.lower().startswith("file://"):
        return LocalStorage(guard(Path(unquote(urlsplit(place).path))))
    from raykd.storage.remote_storage import RemoteStorage  # pyarrow, which folders do without

    return RemoteStorage.connect(place, check)


def open_sweep(place: Path | SweepFolder) -> SweepFolder:
    """The sweep in a folder, whose storage is the folder above. One that is open is returned."""
    return place if isinstance(place, SweepFolder) else LocalStorage(place.parent).sweep(place.name)
