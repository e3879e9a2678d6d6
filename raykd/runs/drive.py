"""What a driver does in a sweep: warm lanes, prepare, measure references, let Tune run what is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raykd.console.live import Console
from raykd.console.wording import counted
from raykd.lanes.cluster import live_nodes
from raykd.lanes.demand import Demand
from raykd.lanes.messages import Task
from raykd.process import signals
from raykd.records.history import ENDED, History, TrialRecord
from raykd.records.ledger import TRIALS
from raykd.records.recorder import Recorder
from raykd.runs import sharing
from raykd.runs.ended import EndedTrials
from raykd.runs.evaluation import Evaluation, Evaluations
from raykd.runs.kinds import run_of
from raykd.searching.streak import FailureStreak
from raykd.spec.devices import idle_gpus, where
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import SweepFolder
from raykd.storage.scratch import scratch_folder
from trainables.core.errors import StorageLost, SweepFailed, UserError
from trainables.core.files import cache_folder
from trainables.core.plugins import luggage

if TYPE_CHECKING:
    from raykd.runs.budget import Meter

log = logging.getLogger("raykd.runs.drive")


class Drive:
    """Runs the sweep in `folder`. `actions` maps the names of what lanes can do to dotted functions."""

    def __init__(
        self,
        spec: SweepSpec,
        recorder: Recorder,
        console: Console,
        sweep: SweepFolder,
        actions: Mapping[str, str],
        ready: Replayed | None = None,
        asked: Evaluation | None = None,
    ) -> None:
        """`ready` is what `replayed` gives for the recorder's history, if that is there already.

        With `asked` this evaluation is run, and nothing else.
        """
        self.ready = ready
        self.asked = asked
        self.after = Evaluation.of(spec) if asked is None else None
        self.spec = spec
        self.record = recorder
        self.history = recorder.history
        self.sweep = sweep
        self.shared = sweep.resolved()  # the same sweep, by the path that every node knows
        self.actions = actions
        self.console = console

    def go(self, cluster: dict[str, Any]) -> None:
        """Run what is left of the sweep. `cluster` describes Ray, as `runs.sweep` joined it.

        Raises `SweepFailed` where it cannot go on, and `UserError` for a mistake that shows only now.
        """
        from raykd.lanes.pool import LanePool
        from raykd.runs.budget import Meter, check_measures, seconds_left, spent_in_words
        from raykd.runs.latencies import Latencies
        from raykd.runs.references import References

        spec, console = self.spec, self.console
        nodes = live_nodes()
        ready = None if self.asked else self.ready or replayed(spec, self.history)
        left = max(self._left(), *(one.most(spec) for one in (self.asked, self.after) if one), 0)
        held, room_for = spec.workers.lanes(nodes), spec.lanes or left
        if memory := cluster["memory"]:
            if memory.lanes < min(held, room_for):
                console.warn(f"memory holds {counted(memory.lanes, 'lane')}: {memory.said}")
            held, room_for = min(held, memory.lanes), min(room_for, memory.lanes)
        going = "" if self.asked else f"{counted(self._left(), 'trial')} to go; "
        console.say(f"{spec.name}: {going}files in {self.sweep}")
        room = f"{counted(held, 'lane')} of {counted(spec.workers.count, 'worker')}"
        asked = f", and `lanes` asks for {spec.lanes}" if spec.lanes is not None and spec.lanes < held else ""
        console.say(f"{counted(len(nodes), 'node')}, room for {room}{asked}, {where(spec.workers, nodes)}")
        for remark in idle_gpus(spec.workers, nodes):
            console.warn(remark)
        workers = spec.workers.on(nodes)
        check_measures(spec, workers, nodes)
        if spec.spends is not None:
            console.say(f"spent so far: {spent_in_words(spec.spends, workers, self.history.lane_s)}")
        if ready is not None and seconds_left(spec.spends, workers, self.history.lane_s) <= 0:
            console.warn("the budget is spent; a larger `budget` in its file lets it go on")
            return
        if cluster.get("webui_url"):
            asks = " (set RAY_AUTH_TOKEN before a run to know the token that it asks for)"
            shown = f"Ray's dashboard: http://{cluster['webui_url']}{asks if cluster['alone'] else ''}"
            console.say(shown, "dim")
        with scratch_folder() as scratch:
            pool = LanePool(
                workers,
                max(1, min(room_for, left)),
                sweep=self.shared,
                scratch=scratch,
                cache=cache_folder().absolute(),
                teachers=self.shared.storage.teachers(),
                targets=sharing.room_for(spec),
                actions=self.actions,
                plugins=luggage(cluster["plugins"]),
                demand=None if cluster["alone"] else Demand(workers, self._work_left, spec.lanes),
                on_event=console.warn,
                on_quarantine=lambda gpu, reason: self.record("quarantine", gpu=gpu, reason=reason),
            )
            with pool, Meter(spec, workers, self.record, pool) as meter:
                began = time.monotonic()
                references = References(spec, self.record, pool, console, self.sweep)
                latencies = Latencies(spec, self.record, pool, console, self.sweep)
                limit = spec.time_limit
                until = None if limit is None else began + limit
                if ready is not None:
                    with self._ended_trials():
                        if spec.needs_latency:
                            ready.proposer.measure_by(latencies.of)
                        tune = partial(self._tune, pool, ready, began, meter)
                        references.around(tune, until, latencies.measure_rest, lambda: meter.spent)
                if self.asked or not meter.spent:
                    self._evaluate(pool, min(held, room_for), until, lambda: meter.spent)
                if pool.broken:
                    raise SweepFailed(pool.broken)

    def _evaluate(self, pool: Any, lanes: int, until: float | None, spent: Callable[[], bool]) -> None:
        """Run the evaluation that is asked for; one of the spec once all trials have ended.

        The sweep's budget bounds the spec's evaluation. It does not bound one that a person asks for.
        """
        asked = self.asked or self.after
        if asked is None or pool.broken or signals.received():
            return
        over = until is not None and time.monotonic() >= until
        if self.asked is None and (over or not self.history.done):
            return
        evaluations = Evaluations(self.spec, self.record, pool, self.console, self.shared)
        try:
            if self.asked is None:
                evaluations.run(asked, lanes, until, spent)
            else:
                evaluations.run(asked, lanes, until)
        except (SweepFailed, UserError) as error:
            if self.asked is not None or pool.broken or isinstance(error, StorageLost):
                raise
            self.console.warn(f"students are left without an evaluation: {error}")

    def _ended_trials(self) -> AbstractContextManager[object]:
        """What removes the checkpoints of trials that end, unless they are to be kept."""
        if self.spec.keep_checkpoints == "all":
            return nullcontext()
        ended = EndedTrials(self.shared, self.history)
        self.record.listeners.append(ended)
        return ended

    def _left(self) -> int:
        """How many trials have not ended; of an evaluation none is trained."""
        if self.asked is not None:
            return 0
        # A copy of the values: the pool calls this from a thread of its own.
        return self.history.total - sum(t.status in ENDED for t in list(self.history.trials.values()))

    def _work_left(self) -> int:
        """How many lanes could have work, for a cluster that grows."""
        left = self._left()
        asked = self.asked or (self.after if not left else None)
        return left or (asked.most(self.spec) if asked is not None else 0)

    def _tune(self, pool: Any, ready: Replayed, began: float, meter: Meter) -> bool:
        """Let Tune run what is left. False if it was interrupted, or if time or budget were used up."""
        if self.history.done:
            return True
        from ray import tune

        from raykd.lanes.pool import NAMESPACE
        from raykd.lanes.proxy import TrialProxy, keep_secrets_out
        from raykd.lanes.watch import StopWhen, Watch
        from raykd.searching.algorithm import LedgerSearch
        from raykd.searching.decisions import TuneDecider

        decider, proposer = ready.decider, ready.proposer
        streak = self._streak()
        tune_decider = TuneDecider(
            decider, self.record, proposer, pool.broker, self.spec.epochs, on_end=streak.add
        )
        with signals.held():  # else one could break the ledger in the middle of a record
            tune_decider.catch_up(ready.undecided)
        search = LedgerSearch(
            proposer, self.record, lambda: pool.warm, self.task, pool.broker_name, NAMESPACE
        )
        keep_secrets_out()
        tuner = tune.Tuner(
            TrialProxy,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=tune_decider,
                num_samples=-1,
                reuse_actors=True,
                time_budget_s=self._time(began),
            ),
            run_config=tune.RunConfig(
                name="tune",
                stop=None if self.spec.spends is None else StopWhen(lambda: meter.spent),
                storage_path=str(pool.scratch),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[Watch(pool, self.record.check, streak.check)],
                verbose=0,
            ),
        )
        try:
            with signals.held():  # `Watch` acts on them at moments when no record is half written
                tuner.fit()
        except signals.Interrupted:
            pass
        except Exception as error:
            log.exception("Tune gave up")
            said = str(error) if isinstance(error, SweepFailed | UserError) else None
            if said is not None and said == streak.reason:
                said += self._try_again(streak.trials)
            why = said or pool.broken or f"{type(error).__name__}: {error}".splitlines()[0]
            raise (StorageLost if isinstance(error, StorageLost) else SweepFailed)(why) from error
        if search.complete:
            return True
        interrupted = signals.interrupted()
        if interrupted is not None:
            self.console.warn(str(interrupted))
            return False
        if meter.spent:
            self.console.warn("the budget is spent")
            return False
        over = self.spec.time_limit is not None and time.monotonic() - began >= self.spec.time_limit
        self.console.warn("the time limit is reached" if over else "interrupted")
        return False

    def _streak(self) -> FailureStreak:
        """What notices that trials fail alike. It knows the trials that ended under earlier drivers.

        A driver with a time limit may see fewer failures than make a streak.
        """
        spec = self.spec
        streak = FailureStreak(spec.failures_in_a_row, spec.trials // len(spec.replicates))
        used = run_of(spec).rounds_used(self.history)
        for trial in [self.history.trials[name] for name in self.history.ends]:
            # A failure that cannot be tried again may have stopped a driver before. With it this one, which
            # was started to go on with the others, would stop at once.
            if trial.status != "failed" or _may_try_again(trial, used):
                streak.add(trial)
        return streak

    def _try_again(self, failed: list[TrialRecord]) -> str:
        """Record that those of these trials are tried again that may be. Returns that, in words."""
        used = run_of(self.spec).rounds_used(self.history)
        names = [trial.trial for trial in failed if _may_try_again(trial, used)]
        if not names:
            why = ", also when they were tried again"
            if not all(trial.retries for trial in failed):
                why = "; a look of the study has counted them as failed, so they stay as they are"
            return f"{why}; the next driver goes on with the others"
        self.record("retry", trials=names)
        return f"; {counted(len(names), 'trial')} of these will be tried again, once, by the next driver"

    def _time(self, began: float) -> float | None:
        """Seconds left of the time limit, which counts from the start of this driver; None: no limit."""
        if self.spec.time_limit is None:
            return None
        return max(1.0, self.spec.time_limit - (time.monotonic() - began))

    def task(self, name: str) -> Task:
        """The task that trains a trial on a lane."""
        record = self.history.trials[name]
        trial = self.spec.trial(record.params, record.replicate)
        folder = trial_folder(self.shared.path, name)
        self._forget_after(folder / "checkpoints", record)
        trials = [trial.model_dump(mode="json")]
        return Task(name, "train", trials, str(folder), self.spec.attempts, record.attempts)

    def _forget_after(self, folder: Path, record: TrialRecord) -> None:
        """Remove checkpoints of epochs that the ledger does not hold, whose reports would be missing."""
        from trainables.training.checkpoints import Checkpoints

        ahead = Checkpoints(folder, self.shared.storage).forget_after(record.epoch + 1)
        if ahead:
            self.console.warn(
                f"trial {record.trial} has a checkpoint of epoch {ahead}, and the ledger knows of "
                f"{counted(record.epoch, 'epoch')}: the others are trained again"
            )


def _may_try_again(trial: TrialRecord, used: int) -> bool:
    """Whether a trial that failed has a second try left. `used` is how many rounds looks have used.

    A look counted the failed trials of its rounds as missing, and closed arms by the rest. With a result from
    a second try it would come out otherwise when a driver takes it anew, and its error rates would not hold.
    Looks are not recorded, so what they were taken from has to stay.
    """
    return not trial.retries and trial.replicate >= used


class Replayed(NamedTuple):
    """Sampler and scheduler as a ledger left them."""

    proposer: Any
    decider: Any
    undecided: list[tuple[str, int, bool]]  # as of `Decider.replay`


def replayed(spec: SweepSpec, history: History) -> Replayed:
    """Sampler and scheduler that were told everything in the ledger."""
    from raykd.searching.decisions import Decider

    decider = Decider.of(spec)
    return Replayed(run_of(spec).proposer(history), decider, decider.replay(history))


def trial_folder(sweep: Path, trial: str) -> Path:
    """The folder of a trial's files."""
    return sweep / TRIALS / trial
