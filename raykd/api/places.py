"""The storage that Python code names."""

from __future__ import annotations

import os
from pathlib import Path

from raykd.storage.base import Storage
from raykd.storage.commands import DEFAULT_STORAGE, STORAGE_VARIABLE
from raykd.storage.open_storage import open_storage


def storage_of(given: str | Path | Storage | None) -> Storage:
    """The storage that `given` names; a folder by its absolute path, since a notebook may change its own."""
    if isinstance(given, Storage):
        return given
    named = str(given if given is not None else os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE)
    return open_storage(named if "://" in named else str(Path(named).expanduser().absolute()))
