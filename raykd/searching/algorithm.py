"""Optuna's ask and tell as a Tune search algorithm: proposes and names trials, re-offers unfinished ones.

It is a `SearchAlgorithm` and not a `Searcher`, because only the former can choose the names of trials (their
signatures) and offer a trial again.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any

from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.search import SearchAlgorithm

from raykd.lanes.messages import Task
from raykd.lanes.proxy import RESOURCES, NotKept
from raykd.records.history import ENDED
from raykd.records.recorder import Recorder
from raykd.searching.proposer import Proposes, Repeat, Wait

_AT_ONCE = 50  # proposals that cost nothing, before Tune goes on with other things


class LedgerSearch(NotKept, SearchAlgorithm):
    """Offers the unfinished trials of the ledger first, then the trials that the proposer suggests.

    `open_lanes()` is the maximum number of trials at once; `task(trial)` makes the task for a lane.
    """

    def __init__(
        self,
        proposer: Proposes,
        recorder: Recorder,
        open_lanes: Callable[[], int],
        task: Callable[[str], Task],
        broker: str,
        namespace: str,
    ) -> None:
        self._proposer = proposer
        self._record = recorder
        self._open_lanes = open_lanes
        self._task = task
        self._address = {"broker": broker, "namespace": namespace}
        unfinished = [t.trial for t in recorder.history.trials.values() if t.status not in ENDED]
        self._waiting: deque[str] = deque(unfinished)
        self._live: dict[str, str] = {}  # Tune's trial id -> raykd's name
        self._offers: dict[str, int] = {}
        self._exhausted = False
        self._experiment: Any = None

    @property
    def total_samples(self) -> int:
        """The number of configurations in the sweep; read by Tune."""
        return self._record.history.samples

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        """Accept Tune's metric and mode; the ledger has its own."""
        return True

    def add_configurations(self, experiments: Any) -> None:
        """Keep Tune's one experiment, which trials are made from."""
        self._experiment = experiments[0] if isinstance(experiments, list) else experiments

    def next_trial(self) -> Trial | None:
        """The next trial for Tune; None if all lanes are taken or there is none now."""
        if len(self._live) >= self._open_lanes():
            return None
        name = self._next_name()
        if name is None:
            return None
        # Tune keeps the ids of trials that it gave up, so a trial that is offered again needs a new id.
        offer = self._offers[name] = self._offers.get(name, 0) + 1
        trial_id = name if offer == 1 else f"{name}-{offer}"
        self._live[trial_id] = name
        return Trial(
            self._experiment.spec["run"],
            config={**self._address, "task": dataclasses.asdict(self._task(name))},
            trial_id=trial_id,
            experiment_tag=name,
            storage=self._experiment.storage,
            placement_group_factory=PlacementGroupFactory(RESOURCES),
            max_failures=-1,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        )

    def _next_name(self) -> str | None:
        if self._waiting:
            return self._waiting.popleft()
        for _ in range(_AT_ONCE):  # else reports of other trials would wait while many are refused
            if self._exhausted:
                break
            proposal = self._proposer.propose()
            if isinstance(proposal, Wait):
                return None  # Tune asks again
            if proposal is None:
                self._exhausted = True
                if self._proposer.exhausted and not self._record.history.exhausted:
                    self._record("exhausted")
            elif isinstance(proposal, Repeat):
                self._record("repeat", **proposal.record())
            else:
                self._record("suggest", **proposal.record())
                return proposal.trial
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Forget Tune's trial; offer it again if the ledger has no end of it."""
        name = self._live.pop(trial_id, None)
        if name is not None and self._record.history.trials[name].status not in ENDED:
            self._waiting.append(name)  # Tune gave it up, but the ledger did not

    @property
    def complete(self) -> bool:
        """Whether no trial is left to offer and every trial has ended."""
        return self._exhausted and not self._waiting and not self._live

    def is_finished(self) -> bool:
        """Whether Tune may end the experiment."""
        return bool(self._finished or self.complete)
