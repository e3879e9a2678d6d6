"""The user's cache: what can be made again, such as decoded images and copies of remote sweeps."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from raykd.storage.owners import make_private
from trainables.core.errors import UserError
from trainables.core.files import cache_folder


def ready_cache() -> Path:
    """The cache folder, made for this user alone if it is not there. `UserError` if it cannot be written."""
    folder = cache_folder().absolute()
    try:
        make_private(folder)
        with TemporaryDirectory(dir=folder, prefix=".raykd-"):
            pass
    except OSError as error:
        raise UserError(
            "RAYKD_CACHE",
            f"the cache cannot be written: {error.strerror}",
            value=str(folder),
            expected="`RAYKD_CACHE=DIR` with a folder of yours; without it the cache is in HOME",
        ) from None
    return folder
