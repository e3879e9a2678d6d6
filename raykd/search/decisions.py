"""Which trials go on: Tune's schedulers, asked through one door that writes everything down.

An epoch is judged once: its report is in the ledger before the scheduler sees it, and the verdict before
the trial hears it. On resume the recorded reports are fed to a new scheduler in their order, which brings
its rungs back exactly; Tune's own restore does not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from raykd.lanes.proxy import NotKept, unpack
from raykd.records.history import ENDED, History
from raykd.spec.sections import SchedulerSpec

if TYPE_CHECKING:
    from raykd.records.recorder import Recorder
    from raykd.search.proposer import Proposes

_METRIC, _TIME = "score", "epoch"


class _Stub:
    """What a scheduler needs of a Tune trial: a name that stays the same when Tune makes the trial anew."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id

    def __hash__(self) -> int:
        return hash(self.trial_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stub) and other.trial_id == self.trial_id


class _NoController:
    """MedianStoppingRule asks who else waits, to let a trial pause. Lanes do not pause."""

    def get_live_trials(self) -> list[Any]:
        return []


class Decider:
    """Says go or stop for each report. Higher scores are better; `epochs` is where trials end, if they do not
    say otherwise (the arms of a study may)."""

    def __init__(self, spec: SchedulerSpec, epochs: int) -> None:
        self._epochs = epochs
        self._grace = None if spec.name == "none" else spec.grace
        self._schedulers = schedulers(spec, epochs)
        self._stubs: dict[str, tuple[_Stub, Any]] = {}

    def decide(
        self, trial: str, number: int, epoch: int, score: float | None, last: int | None = None
    ) -> bool:
        """True to go on. `number` is the trial's running number, `last` its last epoch.

        A report without a score is not judged. One that is not finite ends a trial that may be stopped, and
        takes no place on a rung: compared with it, every other score would be as good.
        """
        last = self._epochs if last is None else last
        if trial not in self._stubs:
            # Asynchronous Hyperband is one successive halving a bracket; trials take the brackets in turn,
            # by number, so that a replay puts each where it was.
            stub, scheduler = _Stub(trial), self._schedulers[number % len(self._schedulers)]
            scheduler.on_trial_add(_NoController(), stub)
            self._stubs[trial] = (stub, scheduler)
        stub, scheduler = self._stubs[trial]
        verdict = TrialScheduler.CONTINUE
        if score is not None and not math.isfinite(score):
            verdict = TrialScheduler.STOP if self._grace and epoch >= self._grace else TrialScheduler.CONTINUE
        elif score is not None and epoch < last:
            verdict = scheduler.on_trial_result(_NoController(), stub, {_TIME: epoch, _METRIC: score})
        return epoch < last and verdict == TrialScheduler.CONTINUE

    def replay(self, history: History) -> list[tuple[str, int, bool]]:
        """Feed recorded reports in their order of arrival. Returns those without a verdict, with it."""
        open_: list[tuple[str, int, bool]] = []
        for trial, epoch in history.arrivals:
            record = history.trials[trial]
            score = record.reports[epoch].get("score")
            go = self.decide(trial, record.number, epoch, score, record.epochs)
            if epoch not in record.verdicts and record.status not in ENDED:
                open_.append((trial, epoch, go))
        return open_


def schedulers(spec: SchedulerSpec, epochs: int) -> list[Any]:
    """Tune's schedulers for this setting: one, or one a bracket."""
    common: dict[str, Any] = {"time_attr": _TIME, "metric": _METRIC, "mode": "max"}
    if spec.name == "none":
        return [FIFOScheduler()]
    if spec.name == "median":
        return [
            MedianStoppingRule(
                **common, grace_period=spec.grace, min_samples_required=spec.min_samples, min_time_slice=0
            )
        ]
    brackets = spec.brackets if spec.name == "hyperband" else 1
    graces = [int(spec.grace * spec.factor**bracket) for bracket in range(brackets)]
    return [
        AsyncHyperBandScheduler(**common, max_t=epochs, grace_period=grace, reduction_factor=spec.factor)
        for grace in graces
        if grace <= epochs
    ]


class TuneDecider(NotKept, TrialScheduler):
    """The decider as Tune sees it: takes what a proxy relays, records, judges, records, answers."""

    def __init__(
        self, decider: Decider, recorder: Recorder, proposer: Proposes, broker: Any, epochs: int
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._decider = decider
        self._record = recorder
        self._proposer = proposer
        self._broker = broker
        self._epochs = epochs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        name = trial.config["task"]["id"]
        message = unpack(result)
        record = self._record.history.trials[name]
        if message.attempt:
            if message.attempt > record.attempts:  # else a proxy asked again before `heard` was there
                self._record("start", trial=name, attempt=message.attempt, lane=message.lane)
            self._broker.heard.remote(name, message.attempt)
            return str(TrialScheduler.CONTINUE)
        if message.ended:
            if record.status not in ENDED:
                self.end(name, "failed", message.failed or "it ended before its last epoch")
            return str(TrialScheduler.STOP)
        go = self.hear(name, message.epoch, message.metrics)
        self._broker.deliver.remote(name, message.epoch, go)
        return str(TrialScheduler.CONTINUE if go else TrialScheduler.STOP)

    def hear(self, name: str, epoch: int, metrics: dict[str, float]) -> bool:
        """Record a report, decider it, record the verdict. One that was judged before keeps its verdict."""
        record = self._record.history.trials[name]
        if epoch in record.verdicts:
            return record.verdicts[epoch] == "go"
        if epoch not in record.reports:
            self._record("report", trial=name, epoch=epoch, metrics=metrics)
        score = record.reports[epoch].get("score")
        if score is not None:
            self._proposer.report(name, epoch, score)
        go = self._decider.decide(name, record.number, epoch, score, record.epochs)
        self.settle(name, epoch, go)
        return go

    def catch_up(self) -> None:
        """Settle what a driver that was killed left open: reports without a verdict, stops without an end."""
        history = self._record.history
        for name, epoch, go in self._decider.replay(history):
            self.settle(name, epoch, go)
        for trial in list(history.trials.values()):
            stops = [epoch for epoch, verdict in trial.verdicts.items() if verdict == "stop"]
            if stops and trial.status not in ENDED:
                self._end_after(trial.trial, stops[0])

    def settle(self, name: str, epoch: int, go: bool) -> None:
        """Record a verdict, and the end that follows from a stop."""
        self._record("verdict", trial=name, epoch=epoch, verdict="go" if go else "stop")
        if not go:
            self._end_after(name, epoch)

    def _end_after(self, name: str, epoch: int) -> None:
        last = self._record.history.trials[name].epochs or self._epochs
        self.end(name, "finished" if epoch >= last else "stopped", None)

    def end(self, name: str, status: str, reason: str | None) -> None:
        self._record("end", trial=name, status=status, reason=reason)
        self._proposer.end(name, status)
        self._broker.forget.remote(name)

    # Tune's other questions: everything that matters was said above.

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None: ...

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None: ...

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None: ...

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None: ...

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        waiting = (t for t in tune_controller.get_trials() if t.status == "PENDING")
        return next(waiting, None)

    def debug_string(self) -> str:
        return "raykd"
