"""`raykd export NAME --out DIR`: a trial's config, command, student and model card.

    DIR/config.yaml    a sweep of exactly this trial, all settings explicit: `raykd run DIR/config.yaml`
    DIR/command.txt    that command; on the CPU it gives the same score to the last bit
    DIR/student/       the weights with the best score, in the form that timm (or torchvision) opens
    DIR/README.md      the model card, with the score on the test split
    DIR/student.onnx, DIR/student.pt2   with --format, after a check against the student

This module reads the test split, and so do the tasks of `raykd evaluate`.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from raykd.export.formats import TIMM, check_formats, check_licence
from raykd.records.history import History, TrialRecord
from raykd.records.ledger import TRIALS, Ledger
from raykd.records.recorded_spec import check_settings, spec_of, trial_of
from raykd.spec.document import write_yaml
from raykd.spec.search import load_sweep
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import Storage, SweepFolder
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import SweepFailed, UserError
from trainables.core.files import cache_folder
from trainables.spec.inputs import InputFields
from trainables.spec.trial import TrialSpec

CONFIG = "config.yaml"
COMMAND = "command.txt"
STUDENT = "student"
CARD = "README.md"


def export(
    place: SweepFolder | Path,
    trial: str | None,
    out: Path,
    formats: str | Iterable[str] = (),
    licence: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write trial `trial` (8 hex digits or their beginning; None: the best) of a sweep into the folder `out`.

    `formats` are names in `FORMATS`, or a comma list of them. Works while the sweep runs. Returns `out` as an
    absolute path; `tell` gets one line about each graph that was checked. Raises `UserError` if the trial has
    no student, `out` is not empty, or the student cannot be had in one of the formats, and `SweepFailed` if
    no trial has a score. After an error nothing is left in `out`.
    """
    names, licence = check_formats(formats), check_licence(licence)
    from raykd.export import student
    from raykd.export.evaluation_card import evaluation_parts
    from raykd.export.graphs import write_graphs
    from raykd.export.model_card import model_card

    sweep, out = open_sweep(place), out.absolute()
    storage = sweep.storage
    _refuse_used(out)
    history = History.of(Ledger.read(sweep))
    spec = spec_of(history)
    check_settings(spec, history)
    record, settings = chosen(spec, history, trial)
    if TIMM in names:
        student.check_timm(settings.student)
    weights = weights_of(record, sweep)
    making = out.with_name(f".{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    try:
        making.mkdir(parents=True)
    except OSError as error:
        raise UserError("--out", f"cannot be made: {error.strerror}", value=str(out)) from None
    try:
        _write_config(making / CONFIG, spec, settings)
        (making / COMMAND).write_text(_command(settings, out, storage) + "\n")
        backbone, facts = student.open_student(settings, weights, sweep)
        # Before the test split is read, because a student may turn out to have no graph.
        lines = student.write_student(settings, backbone, making / STUDENT, licence)
        about = student.graph_metadata(settings, backbone, licence)
        shape = about["preprocessing"]["input_size"]
        checks = write_graphs(names, backbone.model, shape, making, about)
        scores = student.score_on_test(settings, backbone, cache_folder())
        beside = student.teacher_on_test(settings, storage, cache_folder()) if scores else None
        size = student.Size(sum(p.numel() for p in backbone.parameters()), backbone.feature_dim)
        told = checks, licence, tuple(evaluation_parts(history, record, sweep))
        card = model_card(history, record, settings, facts, scores, beside, lines, size, backbone, *told)
        (making / CARD).write_text(card)
        making.replace(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    if tell is not None:
        for check in checks:
            tell(check.text())
    return out


def weights_of(record: TrialRecord, sweep: SweepFolder) -> Path:
    """The file of a trial's best student, brought to this machine. Raises `UserError` if it has left none."""
    from trainables.training.run import BEST

    weights = sweep.path / TRIALS / record.trial / BEST
    if not sweep.storage.pull(weights):
        why = f"{sweep.storage.shown(weights)} is gone" if record.best else "none of its epochs was scored"
        raise UserError("trial", f"has left no student: {why}", value=record.trial)
    return weights


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("--out", f"{out} is in use", expected="a new or empty folder")
    above = next(path for path in out.parents if path.exists())
    if not above.is_dir():
        raise UserError("--out", f"{above} is a file", value=str(out), expected="a new folder")


def config_of(spec: SweepSpec, trial: TrialSpec) -> dict[str, Any]:
    """A sweep of exactly `trial`, as a mapping: all fields explicit, no preset, axis or early stopping."""
    dump = trial.model_dump(mode="json")
    if dump["data"]["path"] is not None:  # not part of the trial's identity, and the config may be moved
        dump["data"]["path"] = str(Path(dump["data"]["path"]).absolute())
    sections = ("student", "teacher", "data", "views", "optim", "probe")
    if dump["data"]["fit"] == "centre":  # the default; older configs do not have this field
        del dump["data"]["fit"]
    if dump["data"]["crop_share"] is None:  # likewise
        del dump["data"]["crop_share"]
    written = dump["teacher"] if isinstance(dump["teacher"], list) else [dump["teacher"]]
    for one in written if trial.teachers else ():
        for name in InputFields.model_fields:
            if one[name] is None:
                del one[name]
    return {
        "name": f"{spec.name[:80]}-{trial.signature()}",  # at most 100 letters
        **({"plugins": list(spec.plugins)} if spec.plugins else {}),
        "method": trial.method,
        **{name: dump[name] for name in sections if dump[name] is not None},
        "epochs": trial.epochs,
        "fixed": dump["config"],
        "samples": 1,
        "seeds": [trial.seed],
        "sampler": {"name": "random", "seed": 0},
        "scheduler": {"name": "none"},
        "workers": spec.workers.model_dump(mode="json"),
        "references": [],
    }


def _command(trial: TrialSpec, out: Path, storage: Storage) -> str:
    """The command that repeats the trial, from any folder, in the sweep's storage to reuse its teacher."""
    config = str(out.resolve() / CONFIG)
    command = shlex.join(["raykd", "run", config, "--storage", storage.resolved().option])
    files = [network.checkpoint for network in (trial.teacher, trial.student) if network is not None]
    if any(file is not None and not file.is_absolute() for file in files):
        return f"cd {shlex.quote(str(Path.cwd()))} && {command}"
    return command


def chosen(spec: SweepSpec, history: History, name: str | None) -> tuple[TrialRecord, TrialSpec]:
    """Record and spec of the trial called `name` (8 hex digits or their beginning; None: the best).

    Raises `UserError` if there is no such trial or its signature has changed with raykd's version, and
    `SweepFailed` if no trial has a score.
    """
    record = history.find(name) if name is not None else history.best()
    if record is None:
        raise SweepFailed("no trial of this sweep has a score yet")
    return record, trial_of(spec, record)


def _write_config(path: Path, spec: SweepSpec, trial: TrialSpec) -> None:
    head = (
        f"# Trial {trial.signature()} of sweep {spec.name}, complete. Repeat it with:  raykd run {CONFIG}\n"
    )
    path.write_text(head + write_yaml(config_of(spec, trial)))
    again = load_sweep(path).trial({}, trial.seed)
    if again.signature() != trial.signature():
        raise AssertionError(f"{path} describes {again.signature()}, not {trial.signature()}")
