"""What a sweep's results are compared with: raw pixels, the untrained student, the teacher, no teacher.

References run on the same lanes and the same data as the trials. Preparation comes first: it decodes the data
and trains a teacher that has no checkpoint. References never delay a trial: they run on lanes that have no
other work, during preparation, beside the last trials and after them. The baseline trains at least as long as
a trial, so it also leaves its lane at the end of an epoch when a trial waits.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from raykd.console.live import Console
from raykd.lanes.messages import Message, Task
from raykd.lanes.pool import LanePool
from raykd.records.history import missing
from raykd.records.recorder import Recorder
from raykd.runs.auxiliary import baseline_remarks, capped, representative, to_prepare
from raykd.runs.latencies import unmeasured
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import SweepFolder
from raykd.storage.commands import command
from trainables.core.errors import SweepFailed, UserError
from trainables.evaluation.probes import find_probe
from trainables.spec.trial import TrialSpec
from trainables.training.resolve import BEFORE_SCORE
from trainables.training.teacher_file import trainings

log = logging.getLogger("raykd.runs.references")
_POLL_S = 0.05


class References:
    """Preparation and reference rows of one sweep. Rows that are in the ledger already are not run again."""

    def __init__(
        self, spec: SweepSpec, record: Recorder, pool: LanePool, console: Console, sweep: SweepFolder
    ) -> None:
        self._spec = spec
        self._record = record
        self._pool = pool
        self._console = console
        self._sweep = sweep
        self._shared = sweep.resolved().path
        self._base = representative(spec)
        self._prepared = to_prepare(spec)

    def around(
        self,
        sweep: Callable[[], bool],
        until: float | None = None,
        last: Callable[[], None] = lambda: None,
        spent: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare, then run `sweep`, and measure the references in threads meanwhile.

        If `sweep` returns True, do `last` and wait for it and the references until `until` (seconds of the
        monotonic clock; None: without limit), or until the budget is `spent`. Raises what preparation raises.
        """
        early, late = [self._measure_networks, self._measure_baseline], [self._measure_teacher]
        if self._base.student.train is not None:  # whose weights these rows start from
            early, late = [], [*early, *late]
        beside = [self._beside(measure) for measure in early]
        self._prepare()
        beside += [self._beside(measure) for measure in late]
        if not sweep():
            return
        self._pool.no_more_trials()
        beside.append(self._beside(last))
        while any(thread.is_alive() for thread in beside):
            over = until is not None and time.monotonic() >= until
            if over or spent():
                break
            time.sleep(_POLL_S)
        if any(thread.is_alive() for thread in beside):
            times = ["latencies"] if unmeasured(self._spec, self._record.history) else []
            names = ", ".join([*missing(self._spec, self._record.history), *times])
            hint = command("resume", self._sweep)
            ended = "the budget is spent" if spent() else "the time limit is reached"
            self._console.warn(f"{ended} before these: {names}; go on with:  {hint}")

    def _beside(self, work: Callable[[], None]) -> threading.Thread:
        """Do `work` in a thread of its own. A failure is shown, and the sweep goes on."""

        def careful() -> None:
            try:
                work()
            except (SweepFailed, UserError) as error:
                if not self._pool.broken and not self._pool.stopping:  # else the sweep ends and shows why
                    self._console.warn(f"a reference could not be measured: {error}")
            except Exception:
                # The sweep is ending and its broker is gone; `resume` measures what is missing.
                log.exception("a reference was not measured")

        thread = threading.Thread(target=careful, name="references", daemon=True)
        thread.start()
        return thread

    def _prepare(self) -> None:
        self._console.say("preparing data and teacher")
        for at, trial in enumerate(self._prepared):
            self._prepare_for(trial, "prepare" if at == 0 else f"prepare-{at + 1}")

    def _prepare_for(self, trial: TrialSpec, name: str) -> None:
        total = sum(training.epochs for training in trainings(trial))
        who = "the teacher trains" if trial.student.train is None else "student and teacher train before"

        def show(message: Message) -> None:
            if message.note:
                self._console.warn(message.note)
                return
            if "images" in message.metrics:
                done, images = int(message.metrics["decoded"]), int(message.metrics["images"])
                self._console.progress("decoding, image", done, images)
                return
            # Not the score of the trial's probe: a teacher may have no labels.
            score = find_probe(BEFORE_SCORE)
            found = message.metrics.get(f"probe/{BEFORE_SCORE}", math.nan)
            said = f", {score.title} {found:.1f}" if score is not None and math.isfinite(found) else ""
            what = "a head is fitted to the teacher" if message.metrics.get("head") else who
            self._console.progress(f"{what}, epoch", message.epoch, total, said)

        try:
            self._pool.run(self._task(name, "prepare", trial), show)
        except UserError as error:  # a mistake that shows only once the data are read
            raise self._spec.placed(error, {}) from None

    def _measure_networks(self) -> None:
        wanted = self._spec.wanted_references()
        if "raw_pixels" in wanted:
            self._measure("raw_pixels", "raw pixels", "raw_pixels", self._base)
        if "untrained" in wanted:
            start = "as it came" if self._base.student.has_learned else "untrained"
            self._measure("untrained", f"the student, {start}", "untrained", self._base)

    def _measure_baseline(self) -> None:
        if "baseline" in missing(self._spec, self._record.history):
            trial, asked = self._with_epochs(self._spec.baseline_trial())
            label = f"no teacher: {trial.method}, {trial.epochs} epochs"
            if trial.epochs < asked:
                label += " (the compute of the whole sweep)"
            elif self._spec.baseline is not None and self._spec.baseline.epochs is None:
                label += f" (the compute of {self._base.epochs} of {self._base.method})"
            for remark in baseline_remarks(asked, trial.epochs, self._spec):
                self._console.warn(remark)
            self._measure("baseline", label, "train", trial)

    def _with_epochs(self, baseline: TrialSpec) -> tuple[TrialSpec, int]:
        """The baseline with its epochs under the cap, and its epochs without it.

        It has those that cost as much as a trial, unless the spec sets its epochs.
        """
        spec = self._spec.baseline
        assert spec is not None
        if spec.epochs is not None and spec.cap == "none":
            return baseline, spec.epochs
        found: list[int] = []
        task = self._task("equal_compute", "equal_compute", self._base, baseline)
        self._pool.run(task, lambda message: found.append(int(message.metrics["epochs"])))
        asked = spec.epochs or found[0]
        return baseline.model_copy(update={"epochs": capped(asked, found[0], self._spec)}), asked

    def _measure_teacher(self) -> None:
        wanted = self._spec.wanted_references()
        for row, taught in self._spec.trials_of_rows().items():
            if row in wanted and taught.teacher is not None:
                teacher, name = taught.teacher, row.partition("-")[2]
                size = f" at {teacher.side(self._base.data)} px" if teacher.image_size else ""
                label = f"the teacher {name}, " if name else "the teacher, "
                trial = self._base.with_teachers(taught.teachers)
                self._measure(row, f"{label}{teacher.arch}{size}", "teacher", trial)

    def _measure(self, name: str, label: str, action: str, trial: TrialSpec) -> None:
        """Run one reference and record its best epoch. Epochs that earlier drivers recorded count as well."""
        history = self._record.history
        if name in history.references:
            return

        def keep(message: Message) -> None:
            self._record("measured", name=name, epoch=message.epoch, metrics=message.metrics)

        self._pool.run(replace(self._task(name, action, trial), background=True), keep)
        best = history.measured.get(name, {})
        self._record("reference", name=name, label=label, metrics=best, trial=trial.signature())

    def _task(self, name: str, action: str, *trials: TrialSpec) -> Task:
        folder = self._shared / "references" / name
        return Task(
            name, action, [t.model_dump(mode="json") for t in trials], str(folder), self._spec.attempts
        )
