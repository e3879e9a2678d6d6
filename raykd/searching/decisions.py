"""Which trials go on: asks Tune's schedulers, and records what they are told and what they answer.

Each epoch is decided once. Its report and the verdict are in the ledger before the trial is told. On resume a
new scheduler is fed the recorded reports in their order. That restores its rungs exactly; Tune's own restore
does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import TrialScheduler

from raykd.lanes.proxy import NotKept, unpack
from raykd.records.history import ENDED, History, TrialRecord
from raykd.records.recorder import Recorder
from raykd.spec.schedulers.base import METRIC, TIME, SchedulerSpec

if TYPE_CHECKING:
    from raykd.searching.proposer import Proposes


class _Stub:
    """What a scheduler uses of a Tune trial: a name that stays the same when Tune creates the trial again."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id

    def __hash__(self) -> int:
        return hash(self.trial_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stub) and other.trial_id == self.trial_id


class _NoController:
    """MedianStoppingRule asks which trials wait, so that it can pause one. Lanes do not pause."""

    def get_live_trials(self) -> list[Any]:
        return []


class Decider:
    """Answers go or stop to each report. Higher scores are better.

    `epochs` is the last epoch of a trial that has no other one of its own (arms of a study may have).
    """

    def __init__(self, spec: SchedulerSpec, epochs: int) -> None:
        self._epochs = epochs
        self._first_stop = spec.first_stop
        self._schedulers: list[Any] = spec.make(
            epochs
        )  # of which Tune's own classes ask for more than is used
        self._stubs: dict[str, tuple[_Stub, Any]] = {}

    def decide(
        self, trial: str, number: int, epoch: int, score: float | None, last: int | None = None
    ) -> bool:
        """True to go on. `number` is the trial's running number, `last` its last epoch.

        A report without a score stops no trial. A score that is not finite stops the trial if it may be
        stopped by now. Such a score is not shown to the scheduler: beside it every other one would look good.
        """
        last = self._epochs if last is None else last
        if trial not in self._stubs:
            # Of several schedulers (Hyperband's brackets) the trial's number decides, so that a replay puts
            # each trial where it was.
            stub, scheduler = _Stub(trial), self._schedulers[number % len(self._schedulers)]
            scheduler.on_trial_add(_NoController(), stub)
            self._stubs[trial] = (stub, scheduler)
        stub, scheduler = self._stubs[trial]
        verdict = TrialScheduler.CONTINUE
        if score is not None and not math.isfinite(score):
            may_stop = self._first_stop is not None and epoch >= self._first_stop
            verdict = TrialScheduler.STOP if may_stop else TrialScheduler.CONTINUE
        elif score is not None and epoch < last:
            verdict = scheduler.on_trial_result(_NoController(), stub, {TIME: epoch, METRIC: score})
        return epoch < last and verdict == TrialScheduler.CONTINUE

    def replay(self, history: History) -> list[tuple[str, int, bool]]:
        """Feed the recorded reports in their order of arrival.

        Returns (trial, epoch, go on) for each report of a trial in flight that has no recorded verdict.
        """
        open_: list[tuple[str, int, bool]] = []
        for trial, epoch in history.arrivals:
            record = history.trials[trial]
            score = record.reports[epoch].get("score")
            go = self.decide(trial, record.number, epoch, score, record.epochs)
            if epoch not in record.verdicts and record.status not in ENDED:
                open_.append((trial, epoch, go))
        return open_


class TuneDecider(NotKept, TrialScheduler):
    """The decider as a scheduler of Tune's: records what a trial's proxy relays, decides, answers."""

    def __init__(
        self,
        decider: Decider,
        recorder: Recorder,
        proposer: Proposes,
        broker: Any,
        epochs: int,
        on_end: Callable[[TrialRecord], object] = lambda _: None,
    ) -> None:
        """`on_end` is given each trial that ends."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._decider = decider
        self._record = recorder
        self._proposer = proposer
        self._broker = broker
        self._epochs = epochs
        self._on_end = on_end

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        name = trial.config["task"]["id"]
        message = unpack(result)
        record = self._record.history.trials[name]
        if message.attempt:
            if message.attempt > record.attempts:  # else a proxy asked again before it got the answer
                # Waits for the disk: so the console reads from which epoch before there are later ones.
                self._record("start", trial=name, attempt=message.attempt, lane=message.lane)
            self._record.after(lambda: self._broker.heard.remote(name, message.attempt))
            return str(TrialScheduler.CONTINUE)
        if message.ended:
            if record.status not in ENDED:
                self.end(name, "failed", message.failed or "it ended before its last epoch")
            return str(TrialScheduler.STOP)
        go = self.hear(name, message.epoch, message.metrics)
        self._record.after(lambda: self._broker.deliver.remote(name, message.epoch, go))
        return str(TrialScheduler.CONTINUE if go else TrialScheduler.STOP)

    def hear(self, name: str, epoch: int, metrics: dict[str, float]) -> bool:
        """Record a report, decide, record the verdict. A report that has a verdict keeps it.

        The records are not on the disk yet: whoever tells the trial does so by `Recorder.after`.
        """
        record = self._record.history.trials[name]
        if epoch in record.verdicts:
            return record.verdicts[epoch] == "go"
        if epoch not in record.reports:
            self._record.soon("report", trial=name, epoch=epoch, metrics=metrics)
        score = record.reports[epoch].get("score")
        if score is not None:
            self._proposer.report(name, epoch, score)
        go = self._decider.decide(name, record.number, epoch, score, record.epochs)
        self.settle(name, epoch, go)
        return go

    def catch_up(self, undecided: Sequence[tuple[str, int, bool]] | None = None) -> None:
        """Settle what a killed driver left open: reports without a verdict, stopped trials without an end.

        `undecided` is what `Decider.replay` returned; None: the decider has not replayed the ledger yet.
        """
        history = self._record.history
        for name, epoch, go in self._decider.replay(history) if undecided is None else undecided:
            self.settle(name, epoch, go)
        for trial in list(history.trials.values()):
            stops = [epoch for epoch, verdict in trial.verdicts.items() if verdict == "stop"]
            if stops and trial.status not in ENDED:
                self._end_after(trial.trial, stops[0])
        self._record.sync()

    def settle(self, name: str, epoch: int, go: bool) -> None:
        """Record a verdict; after a stop the trial's end as well."""
        self._record.soon("verdict", trial=name, epoch=epoch, verdict="go" if go else "stop")
        if not go:
            self._end_after(name, epoch)

    def _end_after(self, name: str, epoch: int) -> None:
        last = self._record.history.trials[name].epochs or self._epochs
        self.end(name, "finished" if epoch >= last else "stopped", None)

    def end(self, name: str, status: str, reason: str | None) -> None:
        """Record a trial's end, and tell proposer and broker."""
        self._record.soon("end", trial=name, status=status, reason=reason)
        self._proposer.end(name, status)
        self._record.after(lambda: self._broker.forget.remote(name))
        self._on_end(self._record.history.trials[name])

    # Tune's other calls: nothing is left to do for them.

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None: ...

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None: ...

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None: ...

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None: ...

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        waiting = (t for t in tune_controller.get_live_trials() if t.status == "PENDING")  # few of all
        return next(waiting, None)

    def debug_string(self) -> str:
        return "raykd"
