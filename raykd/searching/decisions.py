"""Which trials go on: asks Tune's schedulers, and records what they are told and what they answer.

Each epoch is decided once. Its report and the verdict are in the ledger before the trial is told. On resume a
new scheduler is fed the recorded reports in their order. That restores its rungs exactly; Tune's own restore
does not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import TrialScheduler

from raykd.lanes.proxy import NotKept, unpack
from raykd.records.history import ENDED, History, TrialRecord
from raykd.records.recorder import Recorder
from raykd.spec.schedulers.base import METRIC, TIME, SchedulerSpec
from raykd.spec.sweep import SweepSpec

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


def in_audit(trial: str, share: float, seed: int) -> bool:
    """Whether this trial runs on if it is stopped: `share` of all names, whatever the scores are.

    It follows from the name alone, so that every driver decides alike. `seed` is the sampler's.
    """
    drawn = hashlib.sha256(f"proxy audit {seed} {trial}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") < share * 2**64


class Decider:
    """Answers go or stop to each report. Higher scores are better.

    `epochs` is the last epoch of a trial that has no other one of its own (arms of a study may have).
    `audit(trial)` says whether a trial runs on that the scheduler stops. The scheduler hears no more of it:
    all others are judged as if it had stopped.
    """

    def __init__(
        self, spec: SchedulerSpec, epochs: int, audit: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._epochs = epochs
        self._audit = audit
        self._audited: dict[str, int] = {}  # trial -> the epoch after which it was to stop
        self._first_stop = spec.first_stop
        self._schedulers: list[Any] = spec.make(
            epochs
        )  # of which Tune's own classes ask for more than is used
        self._stubs: dict[str, tuple[_Stub, Any]] = {}

    @classmethod
    def of(cls, spec: SweepSpec) -> Decider:
        """Of a sweep, before its first report."""
        share, seed = spec.audited_share, spec.sampler.seed
        return cls(spec.scheduler, spec.epochs, lambda trial: in_audit(trial, share, seed))

    def audits(self, trial: str, epoch: int) -> bool:
        """Whether the scheduler stopped this trial at this epoch, and it runs on."""
        return self._audited.get(trial) == epoch

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
        elif score is not None and epoch < last and trial not in self._audited:
            verdict = scheduler.on_trial_result(_NoController(), stub, {TIME: epoch, METRIC: score})
            if verdict == TrialScheduler.STOP and self._audit(trial):
                self._audited[trial] = epoch
                verdict = TrialScheduler.CONTINUE
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
            if epoch in record.verdicts:
                self._follow(record, epoch)
            elif record.status not in ENDED:
                open_.append((trial, epoch, go))
        return open_

    def _follow(self, record: TrialRecord, epoch: int) -> None:
        """Take over whether a trial ran on: where records were lost, a replay may decide otherwise."""
        if record.audited == epoch:
            self._audited[record.trial] = epoch
        elif self.audits(record.trial, epoch):
            del self._audited[record.trial]


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
        """Record a verdict; after a stop the trial's end as well, and the start of an audit."""
        audit = {"audit": True} if self._decider.audits(name, epoch) else {}
        self._record.soon("verdict", trial=name, epoch=epoch, verdict="go" if go else "stop", **audit)
        if audit:
            self._proposer.end(name, "stopped")  # for the sampler it ends here
        if not go:
            self._end_after(name, epoch)

    def _end_after(self, name: str, epoch: int) -> None:
        last = self._record.history.trials[name].epochs or self._epochs
        self.end(name, "finished" if epoch >= last else "stopped", None)

    def end(self, name: str, status: str, reason: str | None) -> None:
        """Record a trial's end, and tell proposer and broker."""
        audited = self._record.history.trials[name].audited
        again = {} if audited is None else {"audited": audited}  # its verdict may get damaged
        self._record.soon("end", trial=name, status=status, reason=reason, **again)
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
