"""One driver at a time: who drives a sweep, in a folder or on a remote storage."""

from __future__ import annotations

from pathlib import Path

from raykd.storage import folder_lease
from raykd.storage.folders import origin_of
from raykd.storage.lease import Driver, Lease


def driver_of(folder: Path) -> Driver | None:
    """The driver that is alive and holds this sweep now, or None."""
    origin = origin_of(folder)
    if origin is None:
        found = folder_lease.holder(folder)
    else:
        from raykd.storage import remote_lease  # pyarrow, which folders do without

        found = remote_lease.holder(origin.remote, origin.key(folder))
    return Driver(found.host, found.pid) if found is not None else None


def take_lease(folder: Path) -> Lease:
    """The sweep, until it is closed; `UserError` naming who holds it already."""
    origin = origin_of(folder)
    if origin is None:
        return folder_lease.take(folder)
    from raykd.storage import remote_lease

    return remote_lease.take(origin.remote, origin.key(folder))
