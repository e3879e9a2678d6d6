"""What a sweep trains besides its trials: teachers that have no file yet, and the no-teacher baseline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

from raykd.records.history import History, missing
from raykd.spec.study import StudySpec
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import Storage
from trainables.spec.trial import TrialSpec

BEFORE = "before the trials"
_LONG = 5  # a baseline of more than so many times a trial's epochs gets a remark


def beside(spec: SweepSpec, storage: Storage, known: History | None = None) -> list[dict[str, Any]]:
    """Networks that have no file in `storage` yet, and the baseline: a row for each training.

    Keys of a row: what, method, epochs, when; `flops` of the whole training and `trials`, the number of
    trials that cost as much, both counted on a few images; of the baseline also `asked`, its epochs without
    `baseline.cap`. A baseline without epochs of its own gets those that cost as much as one trial. `known` is
    the history of a sweep that has begun; its references are left out.
    """
    from trainables.planning.compute import equal_epochs, trial_flops

    prepared = to_prepare(spec)
    rows: list[tuple[TrialSpec, int, dict[str, Any]]] = [
        (trial, trial.epochs, {"what": what, "when": BEFORE})
        for trial, what in _with_purpose(_untrained(prepared, storage), prepared)
    ]
    wanted = spec.wanted_references() if known is None else missing(spec, known)
    if "baseline" in wanted and spec.baseline is not None:
        trial = spec.baseline_trial()
        equal = equal_epochs(representative(spec), trial)
        asked = spec.baseline.epochs or equal
        epochs = capped(asked, equal, spec)
        row = {"what": "baseline", "when": "on lanes that have no trial", "trials": epochs / equal}
        rows.append((trial.model_copy(update={"epochs": epochs}), asked, row))
    whole = trial_flops(representative(spec)) if rows else 1.0
    return [
        {
            "method": trial.method,
            "epochs": trial.epochs,
            "asked": asked,
            "flops": (flops := trial_flops(trial)),
            "trials": flops / whole,
            **row,
        }
        for trial, asked, row in rows
    ]


def capped(epochs: int, equal: int, spec: SweepSpec) -> int:
    """The baseline's epochs under its `cap`; `equal` of them cost as much as one trial."""
    if spec.baseline is None or spec.baseline.cap == "none":
        return epochs
    return min(epochs, max(1, int(equal * whole_trials(spec))))


def whole_trials(spec: SweepSpec) -> float:
    """The compute of all trials at most, in trials like `representative`, which are not stopped; at least 1.

    It does not change when a sweep is extended, since the epochs of a baseline are part of its identity.
    """
    if isinstance(spec, StudySpec):
        costs = [(spec.arm_trial(label), spec.cost(label)[1]) for label in spec.arms]
        like, known = representative(spec), [flops for _, flops in costs if flops is not None]
        if len(known) < len(costs):
            return float(spec.trials)
        one = next(flops for trial, flops in costs if trial == like and flops is not None)
        return max(1.0, sum(known) / one * spec.study.replicates)
    if len(spec.methods) == 1:
        return float(spec.trials)
    from trainables.planning.compute import trial_flops

    one = trial_flops(representative(spec))
    return max(1.0, spec.trials * fmean(trial_flops(trial) for trial in spec.trial_of_each()) / one)


def baseline_remarks(asked: int, epochs: int, spec: SweepSpec) -> list[str]:
    """Remarks where the baseline is capped, or where it has many times the epochs of a trial; else none.

    `asked` are its epochs without the cap.
    """
    if epochs < asked:
        return [
            f"baseline: {asked} epochs would cost more than all {spec.trials} trials of the sweep; it is "
            f"capped at what these cost, {epochs} epochs (--set baseline.cap=none lifts that)"
        ]
    if epochs <= _LONG * spec.epochs:
        return []
    return [
        f"baseline: {epochs} epochs, {epochs / spec.epochs:.0f} times those of a trial; it runs on lanes "
        f"that have no trial, and `baseline.epochs` (--set baseline.epochs={spec.epochs}) sets fewer"
    ]


def untrained(spec: SweepSpec, storage: Storage) -> list[TrialSpec]:
    """The trials that make what the sweep's networks need and `storage` lacks.

    Those are teachers, their heads, and what a student starts from. Each comes after those whose files it
    needs itself.
    """
    return _untrained(to_prepare(spec), storage)


def _untrained(prepared: Iterable[TrialSpec], storage: Storage) -> list[TrialSpec]:
    from trainables.training.teacher_file import teacher_file, trainings

    def made(training: TrialSpec) -> bool:
        return teacher_file(training, storage.teachers()).exists()

    needed = {one.signature(): one for trial in prepared for one in trainings(trial, made)}
    return [one for one in needed.values() if not made(one)]


def _with_purpose(needed: list[TrialSpec], prepared: list[TrialSpec]) -> Iterator[tuple[TrialSpec, str]]:
    """Each training with what it makes: a teacher, its head, or what a teacher or the student starts from."""
    from trainables.training.teacher_file import fits_head, teacher_trial, trainings

    every = [one for trial in prepared for one in (trial, *trainings(trial))] if needed else []
    taught = {m.signature() for trial in every for one in trial.of_each_teacher if (m := teacher_trial(one))}
    for training in needed:
        made = "teacher" if training.signature() in taught else "start"
        yield training, "teacher's head" if fits_head(training) else made


def representative(spec: SweepSpec) -> TrialSpec:
    """The trial that references and preparation use: the first one with a teacher, else the first one.

    Trials are one of each method, or of a study one of each arm, its base first.
    """
    trials = list(spec.trial_of_each())
    return next((trial for trial in trials if trial.teacher is not None), trials[0])


def to_prepare(spec: SweepSpec) -> list[TrialSpec]:
    """A trial for each set of data, teacher and student's training that the sweep needs.

    That of `representative` comes first.
    """
    found: dict[tuple[str, ...], TrialSpec] = {}
    every = [representative(spec), *spec.trials_with_inputs()]
    for trial in sorted(every, key=lambda trial: trial.teacher is None):
        before = trial.student.train.signature() if trial.student.train is not None else ""
        data = trial.data.model_dump_json()
        for teacher, one in zip(trial.teachers, trial.of_each_teacher, strict=True):
            found.setdefault((data, before, teacher.model_dump_json(exclude={"weight"})), one)
        if trial.teacher is None and not any(known[:2] == (data, before) for known in found):
            found[data, before] = trial
    return list(found.values())
