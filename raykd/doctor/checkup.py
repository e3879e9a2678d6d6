"""What `raykd doctor` checks: this machine, a running cluster, or the cluster of a cluster file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from raykd.doctor.check import Check
from trainables.core.errors import UserError


def checkup(
    spec: str | None,
    storage: str | None,
    sets: list[str],
    cluster: Path | None,
    address: str | None,
    nodes: str | None,
) -> Iterator[Check]:
    """The checks, one by one as they are done. `UserError` for options that do not go together.

    With `cluster`, the spec, RAYKD_STORAGE and the files that they name are read on the head.
    """
    if cluster is not None:
        if address is not None or nodes is not None:
            raise UserError("--cluster", "goes without --address and --nodes", value=str(cluster))
        from raykd.doctor import launch

        given = ["--storage", storage] if storage else []
        return launch.checks(cluster, [*given, *(word for s in sets for word in ("--set", s))], spec)
    if nodes is not None and address is None:
        raise UserError("--nodes", "goes with --address", value=nodes)
    from raykd.spec.search import load_sweep
    from raykd.storage.commands import DEFAULT_STORAGE, STORAGE_VARIABLE
    from raykd.storage.open_storage import open_storage

    sweep = load_sweep(spec, sets) if spec else None
    place = storage or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE
    if address is not None:
        from raykd.doctor import cluster as running

        return running.checks(place, sweep, address, nodes.split(",") if nodes else ())
    from raykd.doctor import machine

    return machine.checks(open_storage(place, check=False), sweep)
