"""The networks that are evaluated: students, and what stands beside them.

Of a search the best configurations, of a study every arm, each with all of its seeds. Beside them the
teacher, the student as it came with each of these seeds, and the student of the no-teacher baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal

from raykd.records.evaluations import in_drawing_order, with_all_seeds
from raykd.records.history import ENDED_WELL, History, TrialRecord
from raykd.records.ledger import TRIALS
from raykd.records.recorded_spec import trial_of
from raykd.spec.arms import ARM
from raykd.spec.evaluate_section import BESIDE, Beside
from raykd.spec.study import StudySpec
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import Storage, SweepFolder
from raykd.storage.commands import command
from trainables.core.errors import UserError
from trainables.spec.trial import StudentSpec, TrialSpec, digest

BASELINE: Literal["baseline"] = "baseline"
WHAT = {"start": "the student as it came", "teacher": "the teacher", "baseline": "no teacher"}


@dataclass(frozen=True)
class Network:
    """A network that tasks are run on."""

    who: Literal["student", "start", "teacher", "baseline"]
    name: str  # of its folder, the same in every evaluation of it
    row: str  # what it stands for in tables; networks of one row differ in their seed alone
    trial: TrialSpec
    signature: str | None = None  # of the student's trial
    seed: int | None = None  # that it was trained with
    weights: Path | None = None  # the student's file, in the storage

    @property
    def opened_as(self) -> Literal["student", "start", "teacher"]:
        """Which network of its trial it is: a baseline's is a student."""
        return "student" if self.who == "baseline" else self.who


@dataclass(frozen=True)
class Selection:
    """Which networks: the best `best` configurations of a search, or the trials named, and those beside.

    `sample` more are drawn by chance from all configurations, the best ones included. They say how well the
    search's score ranks students (`raykd.searching.outcomes`).
    """

    best: int = 1
    trials: tuple[str, ...] = ()
    beside: tuple[Beside, ...] = BESIDE
    sample: int = 0


@dataclass
class Found:
    """The networks of a selection, and remarks on those that cannot be evaluated."""

    networks: list[Network] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, network: Network, storage: Storage, why: str) -> None:
        """Add it, if its file is in the storage; else a remark says `why` there is none."""
        weights = network.weights
        if weights is not None and weights.name not in storage.names(weights.parent):
            self.remarks.append(f"{network.row} is left out: {storage.shown(weights)} is gone; {why}")
        elif all(network.name != other.name for other in self.networks):
            self.networks.append(network)


def find_networks(spec: SweepSpec, history: History, sweep: SweepFolder, selection: Selection) -> Found:
    """The networks of a sweep that `selection` names.

    Raises `UserError` for a trial that is not there, has left no student or is of another version of raykd,
    and where no trial has ended with a score.
    """
    found = Found()
    for row, records in chosen(spec, history, selection).items():
        for record in records:
            trial = trial_of(spec, record)
            weights = sweep.path / TRIALS / record.trial / "best.safetensors"
            student = Network("student", record.trial, row, trial, record.trial, record.replicate, weights)
            found.add(student, sweep.storage, f"`{command('resume', sweep, '--repair')}` trains it again")
    if not found.networks:
        why = "; ".join(found.remarks) or "no trial of it has ended with a score"
        raise UserError("name", f"has no student to evaluate: {why}", value=spec.name)
    students = [network.trial for network in found.networks]
    if "start" in selection.beside:
        varied = any(field.path[0] == "student" for field in spec.space.fields.values())
        for network in starts(students, sweep.storage, varied):
            found.add(network, sweep.storage, "it is trained again with the first trial that needs it")
    if "teacher" in selection.beside:
        for row, trial in spec.trials_of_rows().items():
            network = teacher(trial, sweep.storage, row.partition("-")[2])
            found.add(network, sweep.storage, "it is trained again with the first trial that needs it")
    if BASELINE in selection.beside and spec.baseline is not None:
        _add_baseline(found, spec, history, sweep)
    return found


def chosen(spec: SweepSpec, history: History, selection: Selection) -> dict[str, list[TrialRecord]]:
    """Row -> its trials that have ended with a score, in the order of their seeds. Raises `UserError`."""
    if selection.trials:
        records = [history.find(name) for name in selection.trials]
        for record in records:
            if record.status not in ENDED_WELL or record.best is None:
                problem = f"has left no student to evaluate: it is {record.status}"
                raise UserError("--trials", problem, value=record.trial)
    else:
        records = [t for t in history.trials.values() if t.status in ENDED_WELL and t.best is not None]
    arms: dict[str, list[TrialRecord]] = {}
    for record in records:
        arms.setdefault(
            str(record.params.get(ARM)) if isinstance(spec, StudySpec) else record.arm, []
        ).append(record)
    for trials in arms.values():
        trials.sort(key=lambda trial: trial.replicate)
    if isinstance(spec, StudySpec):
        return {label: arms[label] for label in spec.arms if label in arms}
    if not selection.trials:
        whole = list(with_all_seeds(records).values())
        whole.sort(key=lambda trials: -fmean(t.best[0] for t in trials if t.best))
        drawn = set(in_drawing_order(trials[0].arm for trials in whole)[: selection.sample])
        found = whole[: selection.best]
        found += [trials for trials in whole[selection.best :] if trials[0].arm in drawn]
        return {trials[0].trial: trials for trials in found}
    first: dict[str, str] = {}  # the name of a row does not depend on which of its replicates are evaluated
    for record in sorted(history.trials.values(), key=lambda trial: trial.replicate):
        if record.status in ENDED_WELL and record.best is not None:
            first.setdefault(record.arm, record.trial)
    return {first[arm]: trials for arm, trials in arms.items()}


def starts(students: Sequence[TrialSpec], storage: Storage, varied: bool = False) -> Iterator[Network]:
    """The students as they came: with random weights one of each seed, else one.

    `varied`: the sweep searches the student, so a row names its own also where all of `students` have one.
    """
    every = {digest(trial.student.identity(trial.data)): trial.student.arch for trial in students}
    for trial in students:
        student = trial.student
        identity = digest(student.identity(trial.data))
        name = f"start-{identity}" + ("" if student.has_learned else f"-{trial.seed}")
        row = WHAT["start"] if student.has_learned else "the student, untrained"
        if varied or len(every) > 1:
            same = varied or sum(arch == student.arch for arch in every.values()) > 1
            row += f" ({student.arch}{f' {identity}' if same else ''})"
        seed = None if student.has_learned else trial.seed
        yield Network("start", name, row, trial, seed=seed, weights=_made_before(student, storage))


def teacher(trial: TrialSpec, storage: Storage, name: str = "") -> Network:
    """The teacher of `trial`, which has one; `name` is its name in the spec."""
    from trainables.training.teacher_file import teacher_path

    spec = trial.teacher
    assert spec is not None
    identity = digest(spec.identity(trial.data))
    row = f"the teacher {name}, {spec.arch}" if name else f"the teacher, {spec.arch}"
    made = spec.train is not None or spec.head is not None
    weights = teacher_path(trial, storage.teachers()) if made else None
    return Network("teacher", f"teacher-{identity}", row, trial, weights=weights)


def _made_before(student: StudentSpec, storage: Storage) -> Path | None:
    """The file that a student's training before has left in the storage; None without one."""
    from trainables.training.teacher_file import start_path

    return start_path(student, storage.teachers()) if student.train is not None else None


def _add_baseline(found: Found, spec: SweepSpec, history: History, sweep: SweepFolder) -> None:
    measured = history.references.get(BASELINE)
    if measured is None:
        if BASELINE in spec.wanted_references():
            found.remarks.append(f"{BASELINE} is left out: it has not been trained yet")
        return
    trial = spec.baseline_trial()
    weights = sweep.path / "references" / BASELINE / "best.safetensors"
    row = f"{WHAT[BASELINE]}: {trial.method}"
    known = measured["trial"]  # of the training that was really run, whose epochs the spec may not say
    name = f"{BASELINE}-{known if isinstance(known, str) else trial.signature()}"
    network = Network(BASELINE, name, row, trial, seed=trial.seed, weights=weights)
    found.add(network, sweep.storage, "a sweep of this baseline's method trains it again")
