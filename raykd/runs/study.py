"""What `raykd ablate` does: find the study, then plan it, give its results, run it or go on with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raykd.ablation.budget import with_costs
from raykd.ablation.conclusions import conclude
from raykd.ablation.guard import check_study
from raykd.ablation.study import find_study, load_study, read_study
from raykd.ablation.tables import data
from raykd.console.live import Console
from raykd.records import recorded_spec
from raykd.records.history import History
from raykd.records.views import read
from raykd.runs.plan import planned_here, worker_memory
from raykd.runs.retune import tune
from raykd.runs.study_plan import plan_study, plan_unstarted
from raykd.runs.sweep import Place, Source, resume, run
from raykd.spec.given import Given, Overrides, as_overrides, written
from raykd.spec.study import StudySpec
from raykd.spec.sweep_fields import NAME
from raykd.storage.base import Storage, SweepFolder
from raykd.storage.commands import command
from trainables.core.errors import UserError


@dataclass(frozen=True)
class StudyRequest:
    """A study that `raykd ablate` was asked for."""

    # A file, `-`, the name of a study that comes with raykd, or of one that has begun; None: from no file.
    given: str | None
    overrides: list[str]  # `path=value`, the preset first
    spec: StudySpec
    sweep: SweepFolder
    history: History | None = None  # None: it has not begun
    extend: int = 0  # replicates to add to every arm
    as_started: bool = False  # go on even if its file has changed

    @classmethod
    def find(
        cls,
        given: Given,
        preset: str | None,
        overrides: Overrides,
        storage: Storage,
        extend: int = 0,
        as_started: bool = False,
    ) -> StudyRequest:
        """The study `given` as it has begun in `storage`; else as its file, preset and overrides say it.

        Raises `UserError` where there is no such study, for overrides of one that has begun, and for `extend`
        and `as_started` of one that has not.
        """
        sets = [*([f"preset={preset}"] if preset else []), *as_overrides(overrides)]
        raw = written(given)
        if raw is not None:
            spec = read_study(raw, sets, storage)
            return cls(None, sets, spec, storage.sweep(spec.name))
        given = str(given)
        sweep = storage.sweep(f"{given}_{preset}" if preset else given)
        is_name = (
            bool(NAME.fullmatch(sweep.path.name)) and Path(given).name == given and not Path(given).is_file()
        )
        if not is_name or not sweep.has_ledger():
            if extend or as_started:
                option = "--extend" if extend else "--as-started"
                raise UserError(option, "goes with the name of a study that has begun", value=given)
            spec = load_study(given, sets, storage)
            return cls(given, sets, spec, storage.sweep(spec.name))
        history = read(sweep)
        spec = study_of(history, sweep)
        if overrides:
            expected = "it as it is, or another name"
            raise UserError("--set", f"the study {given!r} has begun", expected=expected)
        return cls(given, sets, spec, sweep, history, extend, as_started)

    def plan(self, address: str | None) -> tuple[dict[str, Any], list[str]]:
        """Arms and worst-case cost, and remarks. Raises `UserError` for what cannot work."""
        remarks: list[str] = []
        if self.history is None:
            memory = worker_memory(self.spec, address)
            planned, remarks = plan_unstarted(self.spec, self.sweep, memory)
        else:
            planned = plan_study(self.spec, self.sweep, self.history)
        return planned, remarks + planned_here(planned, self.spec, address)

    def results(self) -> dict[str, Any]:
        """What the data support so far, for JSON. Raises `UserError` for a study that has not begun."""
        if self.history is None:
            problem = "goes with `--plan`, or with a study that has begun"
            raise UserError("--json", problem, value=self.given)
        return data(conclude(self.spec, self.history))

    def run(self, address: str | None, console: Console) -> History:
        """Run the study, or go on with it where it has begun. Raises `UserError` for what cannot work."""
        place = Place(self.sweep, address)
        if self.history is not None:
            return resume(place, console, extend=self.extend, as_started=self.as_started)
        spec, remarks = check_study(self.spec, worker_memory(self.spec, address))
        for remark in remarks:
            console.warn(remark)
        spec = with_costs(tune(spec, place, console))
        source = Source.of(find_study(self.given), self.overrides) if self.given is not None else None
        return run(spec, place, console, source)


def study_of(history: History, sweep: SweepFolder) -> StudySpec:
    """The spec of a study that has begun. Raises `UserError` for a search."""
    if not history.study:
        expected = f"`{command('resume', sweep)}`"
        raise UserError("STUDY", "is a search, no study", value=history.spec["name"], expected=expected)
    return recorded_spec.study_of(history)
