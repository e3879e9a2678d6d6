"""What `raykd evaluate` is given: a sweep or a study, the folder of an export, or a checkpoint.

An export and a checkpoint belong to no sweep of this storage. Their evaluations are recorded in a folder of
their own, `.evaluations/NAME` of the storage, which has a ledger as a sweep has. The dot keeps it out of the
list of sweeps: nothing in it can be resumed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raykd.evaluations.networks import Found, Network, Selection, starts, teacher
from raykd.export.trial import CONFIG, STUDENT
from raykd.records import views
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.runs.evaluation import Find, finder
from raykd.spec.document import parse_yaml
from raykd.spec.search import SearchSpec, load_sweep, read_sweep
from raykd.spec.sections import BaselineSpec
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import Storage, SweepFolder
from trainables.core.errors import UserError
from trainables.core.files import expanded, own_folder
from trainables.spec.suite import SuiteSpec
from trainables.spec.trial import TrialSpec, digest, file_digest

FOLDER = ".evaluations"
_WEIGHTS = "model.safetensors"
_FILES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".tar", ".npz", ".onnx")


class Target:
    """A sweep whose networks are evaluated, or the folder in which other networks' evaluations go."""

    def __init__(self, sweep: SweepFolder, spec: SearchSpec | None, find: Find) -> None:
        """`spec` describes the network of an export or a checkpoint; None: the sweep has begun."""
        self.sweep = sweep
        self.spec = spec
        self.find = find

    def history(self) -> History:
        """What is recorded; of an export or a checkpoint that was not evaluated yet nothing."""
        if self.spec is not None and not self.sweep.has_ledger():
            return History()
        return views.read(self.sweep)

    def begin(self) -> None:
        """Make the folder and the ledger of an export or a checkpoint, unless they are there."""
        if self.spec is None:
            return
        own_folder(self.sweep.path.parent)
        if self.sweep.has_ledger():
            return
        with Ledger.create(self.sweep) as ledger:
            spec = self.spec.model_dump(mode="json")
            ledger.append(
                "sweep", spec=spec, spec_hash=self.spec.hash(), source=None, sampler={}, scheduler={},
                versions={},
            )  # fmt: skip


def find_target(
    what: str,
    storage: Storage,
    selection: Selection,
    suites: Sequence[SuiteSpec],
    arch: str | None = None,
    data: str | None = None,
) -> Target:
    """The target that `what` names. `arch` and `data` (a name, or YAML) are for checkpoints alone.

    Raises `UserError` for what is not there, and for options that do not go with it.
    """
    path = expanded(what)
    export = path.is_dir() and (path / CONFIG).is_file()
    checkpoint = path.is_file() or (path.suffix in _FILES and not storage.sweep(what).has_ledger())
    if not checkpoint:
        for option, value in (("--arch", arch), ("--data", data)):
            if value is not None:
                problem = "goes with a checkpoint: a sweep and an export say it themselves"
                raise UserError(option, problem, value=value)
    elif not path.is_file():
        raise UserError("WHAT", "no such file", value=what, expected="a checkpoint, an export or a sweep")
    if export or checkpoint:
        given = {"--trials": selection.trials, "--best": selection.best != 1, "--sample": selection.sample}
        for option in (option for option, value in given.items() if value):
            raise UserError(option, "goes with a sweep", value=what, expected="none: there is one student")
    if export:
        return _exported(path, storage, selection)
    if checkpoint:
        return _checkpoint(path, storage, suites, arch, data)
    place = path if "/" in what and path.is_dir() else None
    sweep = views.find(
        place.absolute().parent if place else storage, place.absolute().name if place else what
    )
    return Target(sweep, None, finder(selection))


def _exported(path: Path, storage: Storage, selection: Selection) -> Target:
    spec = load_sweep(path / CONFIG)
    trial = spec.trial({}, spec.seeds[0])
    given = path / STUDENT / _WEIGHTS
    if not given.is_file():
        raise UserError("WHAT", f"holds no student: there is no {given}", value=str(path))
    content = file_digest(given)[:8]
    sweep = storage.sweep(f"{FOLDER}/{_word(path)}-{content}")
    weights = sweep.path / _WEIGHTS

    def find(spec: SweepSpec, history: History, place: SweepFolder) -> Found:
        here = place.path / weights.name
        if not place.storage.pull(here) and given.is_file():
            own_folder(here.parent)
            shutil.copyfile(given, here)
            place.storage.push(here)
        found = Found()
        student = Network(
            "student", f"student-{content}", path.absolute().name, trial, trial.signature(), trial.seed, here
        )
        found.add(student, place.storage, "export it again")
        _beside(found, trial, place.storage, selection)
        return found

    return Target(sweep, _named(spec, sweep), find)


def _beside(found: Found, trial: TrialSpec, storage: Storage, selection: Selection) -> None:
    """Add the student as it came and the teacher, if their files are here."""
    if "start" in selection.beside:
        for network in starts([trial], storage):
            found.add(network, storage, "it was trained in another storage")
    if "teacher" in selection.beside:
        several = len(trial.teachers) > 1
        for at, one in enumerate(trial.of_each_teacher, start=1):
            network = teacher(one, storage, str(at) if several else "")
            file = one.teacher.checkpoint if one.teacher is not None else None
            if network.weights is None and file is not None and not file.exists():
                found.remarks.append(f"{network.row} is left out: there is no {file}")
                continue
            found.add(network, storage, "it was trained in another storage")


def _checkpoint(
    path: Path, storage: Storage, suites: Sequence[SuiteSpec], arch: str | None, data: str | None
) -> Target:
    from trainables.data.data_sets import check_data
    from trainables.teachers.pretrained.read import read_checkpoint
    from trainables.teachers.student import verify_student

    facts = read_checkpoint(path, "WHAT").facts
    student = _student(arch) if arch is not None else {"arch": facts.arch}
    if student["arch"] is None:
        expected = "--arch ARCH, or --arch '{arch: ARCH, options: {...}}'"
        raise UserError("--arch", "is missing: the file does not say its architecture", expected=expected)
    if student["arch"] == facts.arch:
        student = {"options": dict(facts.options), **student}
    raw = {
        "name": _word(path),
        "method": BaselineSpec().method,  # which trains nothing here; a spec has one
        "student": {**student, "checkpoint": str(path.absolute())},
        "data": _data(data, suites),
        "epochs": 1,
        "samples": 1,
        "sampler": "random",
        "references": [],
    }
    try:
        spec = read_sweep(raw)
        trial = spec.trial({}, 0)
        verify_student(trial.student)
        if data is not None:
            check_data(trial.data)
    except UserError as error:  # about the fields of a file that nobody wrote
        section = error.field.partition(".")[0]
        raise error.at({"student": "--arch", "data": "--data"}.get(section, error.field)) from None
    # The options and the pixels that a network is given define its results as its weights do.
    identity = digest(trial.student.identity(trial.data))
    sweep = storage.sweep(f"{FOLDER}/{_word(path)}-{identity}")
    at = {"data": str(trial.data.path), "student": identity}  # other images than those of another path
    name = identity if trial.data.path is None else digest(at)
    network = Network("start", f"file-{name}", path.name, trial)
    return Target(sweep, _named(spec, sweep), lambda *_: Found([network]))


def _student(given: str) -> dict[str, Any]:
    """The network of a checkpoint: its architecture, or a mapping as `student` has in a spec."""
    found = parse_yaml(given, "--arch")
    if isinstance(found, dict) and "arch" in found:
        return found
    if not isinstance(found, str):
        raise UserError(
            "--arch", "is no network", value=given, expected="a name, or {arch: NAME, options: ...}"
        )
    return {"arch": found}


def _data(given: str | None, suites: Sequence[SuiteSpec]) -> dict[str, Any]:
    """The data of a checkpoint, which has none of its own."""
    if given is None:
        for suite in suites:
            for name, task in suite.tasks.items():
                if "name" not in task.data:
                    raise UserError(
                        "--data",
                        f"is missing: task {name!r} of {suite.name} takes the student's own data, and a "
                        "checkpoint says none",
                        expected="--data NAME, or --data '{name: NAME, image_size: 32}'",
                    )
        return {}
    found = parse_yaml(given, "--data")
    if isinstance(found, str):
        return {"name": found}
    if not isinstance(found, dict):
        raise UserError("--data", "is no data set", value=given, expected="a name, or {name: NAME, ...}")
    return found


def _named(spec: SearchSpec, sweep: SweepFolder) -> SearchSpec:
    """The spec under the name of the folder of its evaluations."""
    return spec.model_copy(update={"name": sweep.path.name})


def _word(path: Path) -> str:
    """The name of a file or folder as a part of a folder's name."""
    stem = path.absolute().name.partition(".")[0]
    return re.sub(r"[^\w-]+", "-", stem, flags=re.ASCII).strip("-_")[:60] or "network"
