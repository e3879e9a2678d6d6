"""What `raykd evaluate` does: find networks and suites, then plan, run, or give the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raykd.console.live import Console
from raykd.console.wording import counted
from raykd.evaluations.jobs import Job
from raykd.evaluations.networks import Selection
from raykd.evaluations.results import Results, base_of, gather
from raykd.records.evaluations import asked_again, readings
from raykd.records.history import History
from raykd.records.recorded_spec import spec_of
from raykd.runs.evaluation import Evaluation
from raykd.runs.evaluation_targets import Target, find_target
from raykd.runs.plan import devices
from raykd.runs.sweep import Place, evaluate
from raykd.spec.evaluate_section import BESIDE, Beside, check_names
from raykd.spec.suite_check import check_suites
from raykd.spec.suite_file import load_suite
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import Storage
from trainables.core.errors import UserError
from trainables.downstream.check import Cost, task_cost
from trainables.spec.suite import SuiteSpec


@dataclass(frozen=True)
class EvaluationRequest:
    """An evaluation that was asked for."""

    target: Target
    suites: list[SuiteSpec]
    goes_on_by: str = ""  # the command that goes on with it

    @classmethod
    def find(
        cls,
        what: str,
        on: Sequence[str | Path],
        storage: Storage,
        *,
        best: int = 1,
        sample: int = 0,
        trials: str | Sequence[str] = (),
        beside: str | Sequence[str] = BESIDE,
        arch: str | None = None,
        data: str | None = None,
        overrides: Sequence[str] = (),
        goes_on_by: str = "",
    ) -> EvaluationRequest:
        """The evaluation of `what` (a sweep, a study, an export's folder, a checkpoint) on the suites `on`.

        `overrides` are laid over every suite. Raises `UserError` for what is not there or cannot work.
        """
        trials = [trials] if isinstance(trials, str) else trials
        beside = [beside] if isinstance(beside, str) else beside
        if best < 1:
            raise UserError("--best", "is below 1", value=best)
        if sample < 0:
            raise UserError("--sample", "is below 0", value=sample)
        for option, given in (("--best", best != 1), ("--sample", sample)):
            if given and trials:
                problem = f"name what is evaluated, and so does {option}"
                raise UserError("--trials", problem, expected="one of them")
        suites = [load_suite(suite, overrides) for suite in on]
        check_names(suites, "--on")
        selection = Selection(best, tuple(trials), _known(beside), sample)
        target = find_target(what, storage, selection, suites, arch, data)
        return cls(target, suites, goes_on_by)

    def spec(self, history: History) -> SweepSpec:
        """The spec of the sweep, or that of an export or a checkpoint."""
        return self.target.spec or spec_of(history)

    def prepared(self) -> tuple[Evaluation, list[Job], dict[str, Any]]:
        """The evaluation, what is to be run, and its plan. Raises as `find_networks`, and for a task.

        Nothing is written for a sweep; of an export its student is copied to where workers find it.
        """
        history = self.target.history()
        spec, sweep = self.spec(history), self.target.sweep
        asked = Evaluation(self.suites, self.target.find, True, self.goes_on_by)
        found = asked.networks(spec, history, sweep)
        check_suites(self.suites, [(n.trial, n.opened_as) for n in found.networks], spec.workers.count)
        jobs = asked.jobs(found, history)
        rows: dict[str, int] = {}
        for network in found.networks:
            rows[network.row] = rows.get(network.row, 0) + 1
        wanted = [(job.key, job.split, job.suite_hash) for job in jobs.run]
        row_of = {network.name: network.row for network in found.networks}
        reads = {reading.network: reading.times for reading in readings(history.evaluated)}
        again: dict[str, int] = {}  # row -> how often its split will have been read
        for name in asked_again(history.evaluated, wanted):
            again[row_of[name]] = max(again.get(row_of[name], 0), reads.get(name, 1) + 1)
        plan = {
            "name": spec.name,
            "networks": [{"row": row, "networks": count} for row, count in rows.items()],
            "tasks": _tasks(jobs.run),
            "runs": len(jobs.run),
            "known": jobs.known,
            "read_again": again,
            "remarks": found.remarks,
            "folder": str(sweep),
        }
        size = len(jobs.run)
        return Evaluation(self.suites, self.target.find, True, self.goes_on_by, size), jobs.run, plan

    def plan(self, address: str | None) -> tuple[dict[str, Any], list[str]]:
        """What would be run, and remarks. Raises `UserError` for what cannot work."""
        _, _, planned = self.prepared()
        planned["devices"], remarks = devices(self.spec(self.target.history()), address)
        return planned, [*planned.pop("remarks"), *remarks]

    def run(self, address: str | None, console: Console) -> History:
        """Run what is not recorded yet, and return what is recorded then. Raises as `prepared`."""
        asked, jobs, planned = self.prepared()
        self.target.begin()
        history = self.target.history()
        renamed = asked.jobs(asked.networks(self.spec(history), history, self.target.sweep), history).renamed
        if not jobs and not renamed:
            for remark in planned["remarks"]:
                console.warn(remark)
            console.say("every evaluation of these suites is there", "green")
            return history
        return evaluate(Place(self.target.sweep, address), console, asked)

    def results(self, base: str | None = None) -> Results:
        """The scores so far on these suites, or on all where none are named.

        Raises `UserError` for a base that is not there.
        """
        history = self.target.history()
        names = [suite.name for suite in self.suites]
        return gather(history.evaluated, self.target.sweep, base or base_of(history), suites=names)


def plan_lines(planned: dict[str, Any]) -> list[str]:
    """A plan in words."""
    rows = ", ".join(f"{one['row']} ({counted(one['networks'], 'network')})" for one in planned["networks"])
    lines = [f"{planned['name']}: {rows}"]
    for task in planned["tasks"]:
        trains = f", {task['trained']:,} through forward and backward passes" if task["trained"] else ""
        lines.append(
            f"{task['suite']}/{task['task']}: {task['kind']} on {task['data']}, "
            f"{counted(task['runs'], 'run')}, {task['encoded']:,} images through forward passes{trains}"
        )
    known = f"; {planned['known']} are there already" if planned["known"] else ""
    lines.append(f"{counted(planned['runs'], 'run')}{known}")
    for row, times in planned["read_again"].items():
        lines.append(f"{row}: the test split would have been read {times} times, by suites that differ")
    return [*lines, f"files in {planned['folder']}"]


def _tasks(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The tasks of the plan: for each its runs, and the images that these pass through networks."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    costs: dict[str, Cost] = {}
    for job in jobs:
        cost = costs.get(job.key.task) or task_cost(job.task, job.network.trial)
        costs[job.key.task] = cost
        task = found.setdefault(
            (job.suite, job.name),
            {
                "suite": job.suite, "task": job.name, "kind": job.task.task,
                "data": job.task.images(job.network.trial.data), "runs": 0, "encoded": 0, "trained": 0,
            },
        )  # fmt: skip
        task["runs"] += 1
        task["encoded"] += cost.encoded
        task["trained"] += cost.trained
    return list(found.values())


def _known(beside: Sequence[str]) -> tuple[Beside, ...]:
    for name in beside:
        if name not in BESIDE:
            raise UserError("--beside", "no such row", value=name, expected="none, or some", choices=BESIDE)
    return tuple(name for name in BESIDE if name in beside)
