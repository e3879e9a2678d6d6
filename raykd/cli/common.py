"""Options that several verbs have, and the folders that they name."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from raykd.storage.commands import DEFAULT_STORAGE, STORAGE_VARIABLE
from raykd.storage.folders import origin_of, storage_folder
from trainables.core.errors import UserError

Storage = Annotated[
    str, typer.Option(help="Folder that holds the sweeps, or s3://, gs:// ...", envvar=STORAGE_VARIABLE)
]
Name = Annotated[str, typer.Argument(help="Name of a sweep.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster of yours to join, `auto` (the one of this machine) or `local` (a new one); "
        "default: RAY_ADDRESS, one that your `ray start` began here, or a new one."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field of the spec, e.g. --set samples=4."),
]
HERE = DEFAULT_STORAGE


def writable(given: str, probe: bool) -> Path:
    """The storage folder `given`, which need not exist.

    Raises `UserError` where no folder can be there; with `probe` also where it cannot be written in.
    """
    storage = storage_folder(given)
    if origin_of(storage) is not None:
        return storage
    above = next(path for path in (storage, *storage.absolute().parents) if path.exists())
    if not above.is_dir():
        raise UserError("--storage", f"{above} is a file", value=given, expected="a folder")
    try:
        if probe:  # by writing, since permission bits tell nothing about root or a read-only disk
            TemporaryDirectory(dir=above, prefix=".raykd-").cleanup()
    except OSError as error:
        problem = f"{above} cannot be written in: {error.strerror}"
        raise UserError("--storage", problem, value=given, expected="a folder of yours") from None
    return storage


def folder_of(storage: str | Path, name: str) -> Path:
    """The folder of the sweep `name`. Raises `UserError` with the nearest name where there is none."""
    from raykd.records.views import find

    return find(storage_folder(storage), name)
