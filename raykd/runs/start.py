"""What `raykd run` does with a search space: find it, then plan or run it. `study.py` is for studies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raykd.console.live import Console
from raykd.records.history import History
from raykd.runs.plan import plan, planned_here, worker_memory
from raykd.runs.sweep import Place, Source, run
from raykd.spec.given import Given, Overrides, as_overrides, written
from raykd.spec.search import SearchSpec, find_space, load_sweep, read_sweep
from raykd.spec.validate import validate


@dataclass(frozen=True)
class SearchRequest:
    """A search that `raykd run` or `raykd.search` was asked for."""

    spec: SearchSpec
    source: Source | None = None  # the file that it was read from

    @classmethod
    def find(cls, given: Given, overrides: Overrides = ()) -> SearchRequest:
        """The search in a file, of that name, or that Python code gives, with overrides laid over it.

        Raises `UserError`.
        """
        sets = as_overrides(overrides)
        raw = written(given)
        if raw is not None:
            return cls(read_sweep(raw, sets))
        assert isinstance(given, str | Path)
        return cls(load_sweep(given, sets), Source.of(find_space(given), sets))

    def plan(self, place: Place) -> tuple[dict[str, Any], list[str]]:
        """What it would do, and remarks; see `plan_search`."""
        return plan_search(self.spec, place)

    def run(self, place: Place, console: Console) -> History:
        """Run it; see `run_search`."""
        return run_search(self.spec, place, console, self.source)


def plan_search(spec: SearchSpec, place: Place) -> tuple[dict[str, Any], list[str]]:
    """The plan of a search that has not begun, and remarks. Raises `UserError` for what cannot work."""
    remarks = validate(spec, worker_memory(spec, place.address))
    planned = plan(spec, place.sweep)
    return planned, remarks + planned_here(planned, spec, place.address)


def run_search(spec: SearchSpec, place: Place, console: Console, source: Source | None) -> History:
    """Check a search, warn of what may not be meant, and run it. Raises `UserError` for what cannot work."""
    console.waits_for(f"checking {spec.name}")
    for remark in validate(spec, worker_memory(spec, place.address)):
        console.warn(remark)
    return run(spec, place, console, source)
