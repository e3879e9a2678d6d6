"""Optuna's ask and tell as a Tune search algorithm: proposes, names, and re-offers unfinished trials.

A `SearchAlgorithm` and not a `Searcher`, because it chooses the trials' names (their signatures) and can
offer a trial again.
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
from raykd.search.proposer import Proposes, Repeat, Wait


class LedgerSearch(NotKept, SearchAlgorithm):
    """Offers the unfinished trials of the ledger first, then what the proposer suggests.

    `open_lanes()` is how many trials may live at once; `task(trial)` makes the lane's work of a trial.
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
        self._live: dict[str, str] = {}  # Tune's id -> ours
        self._offers: dict[str, int] = {}
        self._exhausted = False
        self._experiment: Any = None

    @property
    def total_samples(self) -> int:
        return self._record.history.samples

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        return True

    def add_configurations(self, experiments: Any) -> None:
        self._experiment = experiments[0] if isinstance(experiments, list) else experiments

    def next_trial(self) -> Trial | None:
        if len(self._live) >= self._open_lanes():
            return None
        name = self._next_name()
        if name is None:
            return None
        # Tune keeps a trial that it gave up; ours, offered again, needs another of Tune's names.
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
        while not self._exhausted:
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
        name = self._live.pop(trial_id, None)
        if name is not None and self._record.history.trials[name].status not in ENDED:
            self._waiting.append(name)  # Tune gave it up; the ledger did not

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to offer and every trial has ended."""
        return self._exhausted and not self._waiting and not self._live

    def is_finished(self) -> bool:
        return bool(self._finished or self.complete)
