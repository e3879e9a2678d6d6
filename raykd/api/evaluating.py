"""Evaluating students on suites of tasks from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykd.api.places import storage_of
from raykd.api.session import driving, manners
from raykd.console.live import Console
from raykd.storage.base import Storage

if TYPE_CHECKING:
    from raykd.runs.evaluate import EvaluationRequest


def evaluate(
    what: str | Path,
    on: str | Path | Sequence[str | Path],
    *,
    best: int = 1,
    sample: int = 0,
    trials: str | Sequence[str] = (),
    beside: str | Sequence[str] = ("teacher", "start", "baseline"),
    base: str | None = None,
    arch: str | None = None,
    data: str | None = None,
    overrides: Sequence[str] = (),
    storage: str | Path | Storage | None = None,
    address: str | None = None,
    progress: bool | Console | None = None,
) -> dict[str, Any]:
    """Run suites of tasks on students, and return the table as `raykd evaluate --json` prints it.

    - `what`: the name of a sweep or a study, the folder of an export, or a checkpoint's file
    - `on`: a suite's file, one in `raykd list suites`, or several
    - `best`: of a search so many of its best configurations, with all seeds of each; or `trials`, by name
    - `sample`: of a search so many drawn by chance as well, which say how well its score ranks students
    - `beside`: what stands beside them; `base`: with which row the others are compared
    - `arch`, `data`: of a checkpoint, its architecture and its images
    - `overrides`: of the suites, as `["seeds=[0,1]"]`
    - `storage`, `address`, `progress`: as of `raykd.search`

    What is recorded already is not run again. Raises `UserError` for what cannot work, where nothing has
    ended with a score, and while another process drives the sweep.
    """
    from raykd.evaluations.tables import data as as_data

    with manners():
        from raykd.runs.evaluate import EvaluationRequest

        place = storage_of(storage)
        suites = [on] if isinstance(on, str | Path) else list(on)
        asked = EvaluationRequest.find(
            str(what), suites, place, best=best, sample=sample, trials=trials, beside=beside, arch=arch,
            data=data, overrides=overrides,
        )  # fmt: skip
    run(asked, address=address, progress=progress)
    with manners():
        return as_data(asked.results(base))


def run(asked: EvaluationRequest, *, address: str | None, progress: bool | Console | None) -> None:
    """Run an evaluation; see `evaluate`."""
    with driving(progress) as console:
        asked.run(address, console)
