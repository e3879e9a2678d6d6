"""Commands that a user can paste: quoted, and with `--storage` where they would look elsewhere without."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from raykd.storage.base import Storage, SweepFolder

DEFAULT_STORAGE = "sweeps"
STORAGE_VARIABLE = "RAYKD_STORAGE"


def command(verb: str, sweep: SweepFolder, *more: str) -> str:
    """`raykd VERB NAME` and the words `more`, for this sweep."""
    return shlex.join(["raykd", verb, sweep.name, *more, *storage_words(sweep.storage)])


def storage_words(storage: Storage) -> list[str]:
    """The option `--storage`; nothing where it is the default and no variable says otherwise."""
    usual = os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE
    if Path(storage.option) == Path(DEFAULT_STORAGE) == Path(usual):
        return []
    return ["--storage", storage.option]
