"""Commands that a user can paste: quoted, and with the storage where the command would look elsewhere."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from raykd.storage.folders import option

DEFAULT_STORAGE = "sweeps"
STORAGE_VARIABLE = "RAYKD_STORAGE"


def command(verb: str, folder: Path, *more: str) -> str:
    """`raykd VERB NAME` and the words `more`, for the sweep in `folder`."""
    return shlex.join(["raykd", verb, folder.name, *more, *storage_words(folder.parent)])


def storage_words(storage: Path) -> list[str]:
    """What a command says of the storage; nothing where it is the default and no variable says otherwise."""
    usual = os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE
    return [] if storage == Path(DEFAULT_STORAGE) == Path(usual) else ["--storage", option(storage)]
