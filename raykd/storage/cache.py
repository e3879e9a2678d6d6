"""The user's cache, which holds what can be made again: decoded images, working copies of object stores."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from raykd.storage.owners import make_private
from trainables.core.errors import UserError
from trainables.core.files import cache_folder


def ready_cache() -> Path:
    """The cache folder; if it is not there it is made, for this user alone.

    Raises `UserError` if it cannot be written.
    """
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
