"""Evaluates networks of a sweep on suites of tasks, on the lanes of a pool: after its trials, or on its own.

Jobs are run several at once, as many as there are lanes. What the ledger holds is not run again, so an
interrupted evaluation goes on where it was. A job that fails is recorded with its reason, and the others go
on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from raykd.console.live import Console
from raykd.console.wording import counted
from raykd.evaluations.jobs import Job, Jobs, jobs_of
from raykd.evaluations.networks import Found, Selection, find_networks
from raykd.lanes.messages import Message, Task
from raykd.lanes.pool import LanePool
from raykd.process import signals
from raykd.records.evaluations import asked_again
from raykd.records.history import History
from raykd.records.recorder import Recorder
from raykd.spec.evaluate_section import suites_of
from raykd.spec.study import StudySpec
from raykd.spec.suite_check import check_evaluate
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import SweepFolder
from trainables.core.errors import SweepFailed, UserError
from trainables.spec.suite import SuiteSpec

log = logging.getLogger("raykd.runs.evaluation")
_POLL_S = 0.2
_ACTION = "evaluate"

S = TypeVar("S", bound=SweepSpec)
Find = Callable[[SweepSpec, History, SweepFolder], Found]


@dataclass(frozen=True)
class Evaluation:
    """What is asked: suites, and which networks of a sweep are evaluated on them."""

    suites: Sequence[SuiteSpec]
    find: Find
    again: bool = False  # jobs that failed are run again
    goes_on_by: str = ""  # the command that goes on with it, where it is not the sweep's own
    size: int | None = None  # how many jobs it has, where that is known

    @classmethod
    def of(cls, spec: SweepSpec) -> Evaluation | None:
        """What the spec asks for after the trials; None for nothing. Raises `UserError` for a suite."""
        if spec.evaluate is None:
            return None
        return cls(
            suites_of(spec.evaluate),
            finder(Selection(spec.evaluate.best, (), spec.evaluate.beside, spec.evaluate.sample)),
        )

    def networks(self, spec: SweepSpec, history: History, sweep: SweepFolder) -> Found:
        """The networks, with remarks on those that cannot be evaluated. Raises as `find_networks`."""
        return self.find(spec, history, sweep)

    def jobs(self, found: Found, history: History) -> Jobs:
        """What is to be run on them, and what is known."""
        return jobs_of(found.networks, self.suites, history.evaluated, self.again)

    def most(self, spec: SweepSpec) -> int:
        """How many jobs it has at most, as far as that is known before the trials have ended."""
        if self.size is not None:
            return self.size
        each = sum(len(suite.tasks) * len(suite.seeds) for suite in self.suites)
        rows = len(spec.arms) if isinstance(spec, StudySpec) else spec.evaluate.best if spec.evaluate else 1
        return each * (2 * rows * len(spec.replicates) + 2)


def finder(selection: Selection) -> Find:
    """The function that finds the networks of a selection in a sweep."""
    return lambda spec, history, sweep: find_networks(spec, history, sweep, selection)


def pending(spec: SweepSpec, history: History, sweep: SweepFolder) -> bool:
    """Whether a sweep whose trials have ended has evaluations left that its spec asks for."""
    wanted = Evaluation.of(spec)
    if wanted is None:
        return False
    try:
        jobs = wanted.jobs(wanted.networks(spec, history, sweep), history)
    except UserError:
        return False  # no trial has left a student, or none that this raykd can open
    return bool(jobs.run or jobs.renamed)


def evaluable(spec: S, console: Console, raises: bool) -> S:
    """The spec, without `evaluate` where a suite cannot be run, such as one whose file is gone.

    Trials that are left do not wait for it. With `raises`, where there are none, that is the error.
    """
    try:
        check_evaluate(spec)
    except UserError as error:
        if raises:
            raise
        console.warn(f"no student will be evaluated: {error}")
        return spec.model_copy(update={"evaluate": None})
    return spec


class Evaluations:
    """Runs the jobs of an evaluation on a pool's lanes, and records how each one ended."""

    def __init__(
        self, spec: SweepSpec, record: Recorder, pool: LanePool, console: Console, sweep: SweepFolder
    ) -> None:
        """`sweep` is the folder as every node knows it."""
        self._spec = spec
        self._record = record
        self._pool = pool
        self._console = console
        self._sweep = sweep
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._done = self._failed = self._total = 0
        self._died = ""  # why a thread ended before its job had a record

    def run(
        self,
        asked: Evaluation,
        lanes: int,
        until: float | None = None,
        spent: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run what is missing, at most so many jobs at once, until `until` (seconds of the monotonic clock).

        It ends as well once the budget is `spent`. Raises `Interrupted` for a signal, and `SweepFailed` where
        nothing can be recorded any more, or where jobs have ended without a record.
        """
        found = asked.networks(self._spec, self._record.history, self._sweep)
        for remark in found.remarks:
            self._console.warn(remark)
        jobs = asked.jobs(found, self._record.history)
        self._rename(jobs)
        if not jobs.run:
            self._console.say("every evaluation of these suites is there", "green")
            return
        self._tell(jobs)
        self._waiting.extend(jobs.run)
        self._total = len(jobs.run)
        threads = [
            threading.Thread(target=self._work, name="evaluations", daemon=True)
            for _ in range(min(len(jobs.run), lanes + 1))
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            signals.check()
            self._record.check()
            if self._pool.broken:
                raise SweepFailed(self._pool.broken)
            over = until is not None and time.monotonic() > until
            if over or spent():
                self._waiting.clear()
                ended = "the time limit is reached" if over else "the budget is spent"
                self._console.warn(f"{ended} before the last evaluation")
                return
            time.sleep(_POLL_S)
        signals.check()
        self._record.check()
        self._refuse_silent_ends()
        self._rename(asked.jobs(found, self._record.history))  # of a task that two suites have
        said = f"{counted(self._done, 'evaluation')} done"
        self._console.say(said + (f", {self._failed} failed" if self._failed else ""))

    def _refuse_silent_ends(self) -> None:
        """Raise `SweepFailed` where threads have ended, and not all of their jobs have a record."""
        if self._pool.broken:
            raise SweepFailed(self._pool.broken)
        left = self._total - self._done - self._failed
        if left and not self._pool.stopping:  # a pool that stops is the end of a driver, which says why
            why = f": {self._died}" if self._died else ""
            raise SweepFailed(f"{left} of {counted(self._total, 'evaluation')} did not run{why}")

    def _rename(self, jobs: Jobs) -> None:
        for fields in jobs.renamed:
            self._record("evaluated", **fields)

    def _tell(self, jobs: Jobs) -> None:
        known = f"; {jobs.known} are there already" if jobs.known else ""
        self._console.say(f"{counted(len(jobs.run), 'evaluation')} to go{known}")
        wanted = [(job.key, job.split, job.suite_hash) for job in jobs.run]
        rows = {job.network.name: job.network.row for job in jobs.run}
        names = [rows[name] for name in asked_again(self._record.history.evaluated, wanted)]
        if names:
            self._console.warn(
                "another suite has read the test split before, so it is read once more for "
                f"{', '.join(dict.fromkeys(names))}"
            )

    def _work(self) -> None:
        """Run one job after the other. What a thread of this pool does."""
        while True:
            with self._lock:
                if not self._waiting or signals.received():
                    return
                job = self._waiting.popleft()
            try:
                self._one(job)
            except (Exception, signals.Interrupted) as error:
                # The driver ends, and its main thread says why; or its broker is gone.
                log.exception("%s was not evaluated", job.id)
                self._died = f"{type(error).__name__}: {error}".splitlines()[0]
                return

    def _one(self, job: Job) -> None:
        found: list[dict[str, float]] = []

        def keep(message: Message) -> None:
            if message.note:
                self._console.warn(message.note)
            if message.epoch > 0:
                found.append(message.metrics)

        reason: str | None = None
        try:
            self._pool.run(self._task(job), keep)
        except (SweepFailed, UserError) as error:
            if self._pool.broken or self._pool.stopping or signals.received():
                return
            reason = str(error).removeprefix(f"{_ACTION}: ")
        metrics = found[-1] if found and reason is None else {}
        if not metrics and reason is None:
            reason = "it has reported nothing"
        self._record("evaluated", **job.record(metrics, reason))
        self._say(job, metrics, reason)

    def _say(self, job: Job, metrics: dict[str, float], reason: str | None) -> None:
        with self._lock:
            self._done += reason is None
            self._failed += reason is not None
            at = f"{self._done + self._failed} of {self._total}"
        seed = f", seed {job.network.seed}" if job.network.seed is not None else ""
        said = f"{at}: {job.suite}/{job.name} on {job.network.row}{seed}"
        if reason is not None:
            self._console.say(f"{said} failed: {reason}", "red")
        else:
            self._console.say(f"{said}: {metrics.get('score', float('nan')):.2f}")

    def _task(self, job: Job) -> Task:
        network = job.network
        asked = {
            "who": network.opened_as,
            "weights": str(network.weights) if network.opened_as == "student" else None,
            "task": job.asked,
            "seed": job.at,
        }
        trials = [network.trial.model_dump(mode="json")]
        folder = str(self._sweep.path / job.folder)
        return Task(job.id, _ACTION, trials, folder, self._spec.attempts, asked=asked)
