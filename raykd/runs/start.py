"""What `raykd run` does with a search space: check it, then plan or run it. `study.py` is for studies."""

from __future__ import annotations

from typing import Any

from raykd.console.live import Console
from raykd.records.history import History
from raykd.runs.plan import plan, planned_here, worker_memory
from raykd.runs.sweep import Place, Source, run
from raykd.spec.search import SearchSpec
from raykd.spec.validate import validate


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
