"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from trainables.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there becomes `path` on a clean exit, else goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def expanded(path: str | Path) -> Path:
    """With `~` as the shell has it: that of a user who does not exist stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cache_folder() -> Path:
    """Where what can be made again lies by default: $RAYKD_CACHE, or ~/.cache/raykd."""
    try:
        return Path(os.environ.get("RAYKD_CACHE") or "~/.cache/raykd").expanduser()
    except RuntimeError:
        expected = "`HOME=DIR`, or `RAYKD_CACHE=DIR` with a folder of yours"
        raise UserError("HOME", "this user has no home folder", expected=expected) from None
