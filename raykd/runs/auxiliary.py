"""What a sweep trains besides its trials: teachers that have no file yet, and the no-teacher baseline."""

from __future__ import annotations

from typing import Any

from raykd.records.history import History, missing
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import Storage
from trainables.spec.trial import TrialSpec

_LONG = 5  # a baseline of more than so many times a trial's epochs gets a remark


def beside(spec: SweepSpec, storage: Storage, known: History | None = None) -> list[dict[str, Any]]:
    """Teachers that have no file in `storage` yet, and the baseline: a row for each training.

    Keys of a row: what, method, epochs, when; of the baseline also `trials`, the number of trials that cost
    as much compute. A baseline without epochs of its own gets those that cost as much as one trial, counted
    on a few images. `known` is the history of a sweep that has begun; its references are left out.
    """
    from trainables.planning.compute import equal_epochs

    rows = [
        {"what": "teacher", "method": trial.method, "epochs": trial.epochs, "when": "before the trials"}
        for trial in untrained(spec, storage)
    ]
    wanted = spec.wanted_references() if known is None else missing(spec, known)
    if "baseline" in wanted and spec.baseline is not None:
        trial = spec.baseline_trial()
        equal = equal_epochs(representative(spec), trial)
        epochs = spec.baseline.epochs or equal
        row = {"what": "baseline", "method": trial.method, "epochs": epochs, "trials": epochs / equal}
        rows.append({**row, "when": "on lanes that have no trial"})
    return rows


def long_baseline(epochs: int, spec: SweepSpec) -> list[str]:
    """A remark where the baseline has many times the epochs of a trial; else an empty list."""
    if epochs <= _LONG * spec.epochs:
        return []
    return [
        f"baseline: {epochs} epochs, {epochs / spec.epochs:.0f} times those of a trial; it runs on lanes "
        f"that have no trial, and `baseline.epochs` (--set baseline.epochs={spec.epochs}) sets fewer"
    ]


def untrained(spec: SweepSpec, storage: Storage) -> list[TrialSpec]:
    """The trials that train the teachers that the sweep needs and that have no file in `storage` yet."""
    from trainables.training.teacher_file import teacher_file, teacher_trial

    trainings = [training for trial in to_prepare(spec) if (training := teacher_trial(trial)) is not None]
    return [t for t in trainings if not teacher_file(t, storage.teachers()).exists()]


def representative(spec: SweepSpec) -> TrialSpec:
    """The trial that references and preparation use: the first one with a teacher, else the first one.

    Trials are one of each method, or of a study one of each arm, its base first.
    """
    trials = list(spec.trial_of_each())
    return next((trial for trial in trials if trial.teacher is not None), trials[0])


def to_prepare(spec: SweepSpec) -> list[TrialSpec]:
    """A trial for each pair of data set and teacher that the sweep needs, that of `representative` first."""
    found: dict[tuple[str, str], TrialSpec] = {}
    every = [representative(spec), *spec.trials_with_inputs()]
    for trial in sorted(every, key=lambda trial: trial.teacher is None):
        data = trial.data.model_dump_json()
        if trial.teacher is not None:
            found.setdefault((data, trial.teacher.model_dump_json()), trial)
        elif not any(known == data for known, _ in found):
            found[data, ""] = trial
    return list(found.values())
