"""An Optuna study written from the ledger, for `optuna-dashboard SWEEP/optuna.journal`.

It is a view: the sweep never reads it, and it can be deleted. A trial is added when it ends: COMPLETE with
its best score, PRUNED if the scheduler stopped it, or FAIL. Its scores by epoch are the intermediate values.
"""

from __future__ import annotations

import logging
import math
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from raykd.records.history import ENDED, History, TrialRecord
from raykd.records.ledger import Record
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError
from trainables.core.files import read_bytes, replacing

JOURNAL = "optuna.journal"
_NAME = "trial"  # the attribute that holds a trial's name
_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}

log = logging.getLogger("raykd.records.dashboard")


class DashboardStudy:
    """A listener of the recorder: adds every trial that ends to the study in the sweep's folder."""

    def __init__(self, folder: Path, spec: SweepSpec) -> None:
        self.path = folder / JOURNAL
        self.space = spec.space
        self.name = spec.name
        self._study: optuna.Study | None = None

    def __call__(self, record: Record, history: History) -> None:
        """A record was written; `history` holds it already."""
        if record["kind"] == "end":
            self.rebuild(history) if self._study is None else self._add(history.trials[record["trial"]])

    def rebuild(self, history: History) -> None:
        """Make the study as `history` says.

        A file that is right is only appended to: a dashboard that reads it keeps its place. One with a torn
        line, or with trials of another sweep, is written anew.
        """
        ended = [t for t in history.trials.values() if t.status in ENDED]
        ended.sort(key=lambda t: (t.ended, t.number))
        there = self._open(ended)
        if there is None:
            with replacing(self.path) as temporary:
                self._study = self._create(temporary)
                for trial in ended:
                    self._add(trial)
            there = self._open(ended)
        for trial in ended:
            if trial.trial not in (there or ()):
                self._add(trial)

    def _open(self, ended: list[TrialRecord]) -> set[str] | None:
        """Open the study that is there and return its trials' names; None if it must be written anew."""
        right = {trial.trial: trial for trial in ended}
        try:
            data = read_bytes(self.path)
            if not data.endswith(b"\n"):
                return None
            study = optuna.load_study(study_name=self.name, storage=_storage(self.path))
            trials = study.get_trials(deepcopy=False)
            found = [str(t.user_attrs[_NAME]) for t in trials]
            same = all(
                _said(t) == _said(self._frozen(right[name])) for t, name in zip(trials, found, strict=True)
            )
        except FileNotFoundError:
            return None
        except UserError:
            raise  # a link in its place
        except Exception:  # whatever is wrong: the ledger has everything
            log.warning("%s cannot be read and is written anew", self.path, exc_info=True)
            return None
        if len(found) != len(set(found)) or not same:
            return None
        self._study = study
        return set(found)

    def _create(self, path: Path) -> optuna.Study:
        storage = _storage(path)
        study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], self.name)
        study = optuna.load_study(study_name=self.name, storage=storage)
        assert study._study_id == study_id
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(["score"])
        return study

    def _add(self, trial: TrialRecord) -> None:
        assert self._study is not None
        self._study.add_trial(self._frozen(trial))

    def _frozen(self, trial: TrialRecord) -> FrozenTrial:
        params, distributions = self.space.encode(trial.params)
        scores = {epoch: m["score"] for epoch, m in trial.reports.items() if "score" in m}
        state, value = _STATES[trial.status], trial.best[0] if trial.best else None
        if state == TrialState.FAIL or value is None:  # Optuna has no complete trial without a value
            state, value = TrialState.FAIL, None
        return FrozenTrial(
            number=-1,  # the storage gives the next one: trials are numbered as they end
            trial_id=-1,
            state=state,
            value=value,
            datetime_start=_datetime(trial.started if trial.started is not None else trial.suggested),
            datetime_complete=_datetime(trial.ended),
            params=params,
            distributions=distributions,
            user_attrs=_attributes(trial),
            system_attrs={},
            intermediate_values={epoch: s for epoch, s in scores.items() if math.isfinite(s)},
        )


def _said(trial: FrozenTrial) -> tuple[Any, ...]:
    """What the dashboard shows of a trial, to compare two of them."""
    return trial.state, trial.values, trial.params, trial.user_attrs, trial.intermediate_values


def _attributes(trial: TrialRecord) -> dict[str, Any]:
    attributes = {
        _NAME: trial.trial,
        "number": trial.number,
        "method": trial.method,
        "arm": trial.arm,
        "seed": trial.replicate,
        "origin": trial.origin,
        "epochs": trial.epoch,
        "best_epoch": trial.best[1] if trial.best else None,
        "reason": trial.reason,
        **trial.size,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _datetime(time: float | None) -> datetime | None:
    return None if time is None else datetime.fromtimestamp(time, timezone.utc)


class _NoLock(JournalFileOpenLock):
    """No lock: a line is appended by one write. Optuna's lock blocks for 30 s after a process was killed."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None: ...


def _storage(path: Path) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock(str(path))))
