"""Options that several verbs have, and the folders that they name."""

from __future__ import annotations

from typing import Annotated

import typer

from raykd.storage.base import Storage as OpenStorage
from raykd.storage.base import SweepFolder
from raykd.storage.commands import DEFAULT_STORAGE, STORAGE_VARIABLE
from raykd.storage.open_storage import open_storage

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


def writable(given: str, probe: bool) -> OpenStorage:
    """The storage `given`, whose folder need not exist.

    Raises `UserError` where no folder can be there; with `probe` also where it cannot be written in.
    """
    storage = open_storage(given)
    storage.check_place(given, probe)
    return storage


def sweep_of(storage: str | OpenStorage, name: str) -> SweepFolder:
    """The sweep `name`. Raises `UserError` with the nearest name where there is none."""
    from raykd.records.views import find

    return find(open_storage(storage), name)
