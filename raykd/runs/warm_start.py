"""Reads the sweeps that `warm_start` names, before a search begins."""

from __future__ import annotations

from pathlib import Path

from raykd.records import views
from raykd.records.earlier import Earlier
from raykd.records.history import ENDED, History
from raykd.spec.search import SearchSpec
from raykd.storage.base import SweepFolder
from raykd.storage.open_storage import open_storage
from trainables.core.errors import SweepFailed, UserError


def earlier(spec: SearchSpec, sweep: SweepFolder) -> Earlier | None:
    """What the search in `sweep` has from earlier ones, read from their ledgers; None where it names none.

    Raises `UserError` for a sweep that is not there, is this one, cannot be read, or has no trial that ended.
    """
    if not spec.warm_start:
        return None
    from raykd.searching.warm_start import take_over

    return take_over(spec, {source: _read(source, at, sweep) for at, source in enumerate(spec.warm_start)})


def _read(source: str, at: int, sweep: SweepFolder) -> History:
    """The history of a sweep that is named like the sweep's own storage has it, by its folder or its URI."""
    field = f"warm_start.{at}"
    try:
        there = _find(source, sweep)
        if there.path.resolve() == sweep.path.resolve():
            expected = f"earlier sweeps; `raykd resume {sweep.name} --extend N` adds trials to this one"
            raise UserError("", "is the sweep itself", value=source, expected=expected)
        history = views.read(there)
    except UserError as error:
        raise error.at(field) from None
    except SweepFailed as error:
        raise UserError(field, str(error), value=source) from None
    if not any(trial.status in ENDED for trial in history.trials.values()):
        raise UserError(field, "no trial of it has ended", value=source, expected="a sweep with results")
    return history


def _find(source: str, sweep: SweepFolder) -> SweepFolder:
    if "/" not in source:
        if source == sweep.name:
            return sweep
        return views.find(sweep.storage, source)
    place, mark, options = source.partition("?")
    above, _, name = place.rstrip("/").rpartition("/")
    storage = open_storage(f"{above}{mark}{options}" if "://" in source else Path(above or "/"))
    return views.find(storage, name)
