"""Measures how long each student of a sweep takes, alone on its node, and records it.

A latency that the search waits for, because a limit or an objective needs it, is measured as soon as a trial
of that student is proposed: trials on the node leave after their present epoch and go on afterwards. All
others are measured when the trials are over, so that no trial waits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from raykd.console.live import Console
from raykd.lanes.messages import Message, Task
from raykd.records.history import History
from raykd.records.recorder import Recorder
from raykd.spec.sections import WorkersSpec
from raykd.spec.size_sections import student_key, student_label
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import SweepFolder
from trainables.core.errors import SweepFailed, UserError
from trainables.spec.trial import TrialSpec

if TYPE_CHECKING:
    from raykd.lanes.pool import LanePool

_BUSY = 1.2  # time that passed over time computed: above this other programs are said to have disturbed it


class Latencies:
    """The latencies of one sweep. Those in the ledger are not measured again."""

    def __init__(
        self, spec: SweepSpec, record: Recorder, pool: LanePool, console: Console, sweep: SweepFolder
    ) -> None:
        """`spec` asks for latencies."""
        self._spec = spec
        self._record = record
        self._pool = pool
        self._console = console
        self._folder = sweep.resolved().path / "references"
        self._asked: dict[str, SweepFailed | UserError | None] = {}  # student -> why it was not measured

    def of(self, trial: TrialSpec) -> float | None:
        """Milliseconds of the trial's student; None while they are measured.

        The first call begins that. Raises why it could not be measured.
        """
        key = student_key(trial)
        if key in (known := self._record.history.latencies):
            return float(known[key]["metrics"]["median_ms"])
        if key not in self._asked:
            self._asked[key] = None
            threading.Thread(target=self._try, args=(trial, key), name="latency", daemon=True).start()
        elif (failed := self._asked[key]) is not None:
            raise failed
        return None

    def measure_rest(self) -> None:
        """Measure the students of all trials that have no latency yet. Trials come first."""
        for trial in unmeasured(self._spec, self._record.history).values():
            try:
                self._measure(trial, background=True)
            except (SweepFailed, UserError) as error:
                if self._pool.broken or self._pool.stopping:
                    return  # the sweep ends and shows why; `resume` measures the rest
                self._console.warn(f"{student_label(trial)}: its latency could not be measured: {error}")

    def _try(self, trial: TrialSpec, key: str) -> None:
        try:
            self._measure(trial)
        except (SweepFailed, UserError) as error:
            self._asked[key] = error

    def _measure(self, trial: TrialSpec, background: bool = False) -> None:
        key, asked = student_key(trial), self._spec.latency
        assert asked is not None
        label = student_label(trial)

        def keep(message: Message) -> None:
            self._record("latency", student=key, label=label, metrics=message.metrics, where=message.note)
            if (busy := message.metrics["busy"]) > _BUSY:
                self._console.warn(
                    f"{label}: other programs computed on {message.note.partition(',')[0]} meanwhile: "
                    f"its passes took {busy:.1f} times as long as they computed"
                )

        name = f"latency-{key}"
        task = Task(
            name,
            "latency",
            [trial.model_dump(mode="json")],
            str(self._folder / name),
            self._spec.attempts,
            background=background,
            quiet=True,
            asked=asked.model_dump(mode="json"),
        )
        self._pool.run(task, keep)


def unmeasured(spec: SweepSpec, history: History) -> dict[str, TrialSpec]:
    """Student -> a trial with it, for students whose latency the sweep asks for and does not have."""
    if spec.latency is None:
        return {}
    found: dict[str, TrialSpec] = {}
    for record in history.trials.values():
        if record.student and record.student not in history.latencies and record.student not in found:
            found[record.student] = spec.trial(record.params, record.replicate)
    return found


def check_latency(spec: SweepSpec, workers: WorkersSpec, nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raise `UserError` for a latency that these nodes (as `ray.nodes()` lists them) can never measure."""
    if spec.latency is None:
        return
    nodes = list(nodes)
    if spec.latency.device == "gpu" and not workers.on(nodes).gpus:
        raise UserError(
            "latency.device", "workers have no GPU", value="gpu", expected="cpu, or `workers.gpus`"
        )
    most = max((int(node["Resources"].get("CPU", 0)) for node in nodes if node.get("Alive", True)), default=0)
    if spec.latency.threads > most > 0:
        problem = f"no node has so many CPUs: the largest has {most}"
        raise UserError("latency.threads", problem, value=spec.latency.threads, expected=f"at most {most}")
