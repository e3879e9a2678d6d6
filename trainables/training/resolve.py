"""From the settings of one training to a complete `TrialSpec`.

    resolve({"method": "retro", "student": {"arch": "resnet18"}, "teacher": {...}, "epochs": 16})

fills in every field. What is written wins over the preset, and the preset over the method's defaults. A
mistake is a `UserError` with the field's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from trainables.core import plugins
from trainables.core.errors import UserError
from trainables.spec.inputs import InputFields
from trainables.spec.parse import as_mapping, build, join, spelled_out
from trainables.spec.trial import (
    DataSpec,
    OptimSpec,
    ProbeSpec,
    StudentSpec,
    TeacherSpec,
    TeacherTraining,
    TrialSpec,
    ViewSpec,
)
from trainables.training.own_code import own_code

if TYPE_CHECKING:  # and in functions: methods import torch, and `raykd status` has to start without it
    from trainables.methods.base import Method

# Where a trial is written: the fields of TrialSpec, and the preset that fills some of them in.
KEYS = (*TrialSpec.model_fields, "preset")  # `plugins`: names of modules, or a trial's mapping of them
SECTIONS: dict[str, type[BaseModel]] = {
    "student": StudentSpec,
    "teacher": TeacherSpec,
    "data": DataSpec,
    "views": ViewSpec,
    "optim": OptimSpec,
    "probe": ProbeSpec,
}
# A section may be one plain value (`student: resnet18`): section -> the field that it sets.
SHORTHAND: dict[tuple[str, ...], str] = {
    ("student",): "arch",
    ("teacher",): "arch",
    ("teacher", "train"): "method",
    ("student", "train"): "method",
    ("data",): "name",
    ("views",): "recipe",
    ("optim",): "optimizer",
    ("probe",): "score",
}
# The probe at the end of a training that makes a network for trials: its data may have no labels.
BEFORE_SCORE = "rankme"
BARE = ("method", "epochs", "seed")  # top-level fields that are not sections


def resolve(raw: Mapping[str, Any], where: str = "") -> TrialSpec:
    """The complete trial that `raw` describes.

    `raw` has the keys method, preset, student, teacher, data, views, optim, probe, epochs, seed, config;
    `where` is its path in the user's file. Precedence: defaults < preset < what is written. The teacher is
    dropped where the method uses none. Raises `UserError`.
    """
    written = spelled_out(as_mapping(raw, where), SHORTHAND)
    plugins.declare(plugins.named(written.pop("plugins", ()), join(where, "plugins")))
    for key in written:
        if key not in KEYS:
            raise UserError(join(where, key), "no such field", value=key, expected=home(key), choices=KEYS)
    method = _method(written, where)
    parts = _merge(_preset(method, written.get("preset"), where), written, where)
    config = _config(method, parts.pop("config", None), where)
    data = build(DataSpec, parts.get("data"), join(where, "data")).model_dump()
    teacher = _teacher(method, parts.pop("teacher", None), data, where)
    if "student" not in parts:
        raise UserError(join(where, "student"), "is missing", expected="`{arch: NAME}`, the network to train")
    student = _student(parts.pop("student"), data, join(where, "student"))
    given = {**parts, "method": method.name, "config": config, "data": data, "student": student.arch}
    trial = build(TrialSpec, spelled_out(given, SHORTHAND), where)
    if trial.probe.point not in method.points:
        raise UserError(
            join(where, "probe.point"),
            f"method {method.name!r} has no such probe point",
            value=trial.probe.point,
            choices=method.points,
        )
    trial = trial.model_copy(update={"teacher": teacher, "student": student})
    try:
        code = own_code(trial)
    except UserError as error:
        raise error.under(where) from None
    return trial.model_copy(update={"plugins": code}) if code else trial


def _method(written: Mapping[str, Any], where: str) -> type[Method]:
    from trainables.methods import load_method, methods

    name = written.get("method")
    if name is None:
        raise UserError(
            join(where, "method"), "is missing", expected="the name of a method", choices=methods()
        )
    if not isinstance(name, str):
        raise UserError(join(where, "method"), "is not a name", value=name, choices=methods())
    method = load_method(name, join(where, "method"))
    check_names(method)
    return method


def check_names(method: type[Method]) -> None:
    """Raise `TypeError` where a Config field or the method's name hides another field of a trial: a bug.

    A method may have the name of a field without parts (method `seed`, and a trial's `seed`): no flat name
    starts with such a field and a dot.
    """
    if method.name in set(KEYS) - set(BARE) or "." in method.name:
        raise TypeError(f"{method.__name__} may not be called {method.name!r}: flat names start like this")
    taken = {*OptimSpec.model_fields, *KEYS} & set(method.Config.model_fields)
    if taken:
        raise TypeError(
            f"{method.__name__}.Config may not have fields called {sorted(taken)}: trials have these"
        )


def _preset(method: type[Method], name: Any, where: str) -> Mapping[str, Any]:
    if name is None:
        return {}
    if not isinstance(name, str) or name not in method.presets:
        problem = f"method {method.name!r} has no such preset"
        raise UserError(join(where, "preset"), problem, value=name, choices=method.presets)
    return method.presets[name]


def _merge(preset: Mapping[str, Any], written: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The preset with what is written laid over it, field by field within a section."""
    parts = {**preset, **{key: value for key, value in written.items() if key not in ("method", "preset")}}
    for section in (*SECTIONS, "config"):
        if parts.get(section) is None and section not in preset:
            parts.pop(section, None)
            continue
        over, under = as_mapping(written.get(section), join(where, section)), preset.get(section, {})
        if (
            section == "views"
            and under.get("strength") == 0
            and over.get("recipe", under["recipe"]) != under["recipe"]
        ):
            under = {}  # the preset's strength of 0 belongs to its own recipe (flips alone)
        parts[section] = {**under, **over}
    return parts


def _config(method: type[Method], raw: Any, where: str) -> dict[str, Any]:
    path = join(where, "config")
    for name in as_mapping(raw, path):
        if name not in method.Config.model_fields:
            problem = f"method {method.name!r} has no such field"
            choices = method.Config.model_fields
            raise UserError(join(path, name), problem, value=name, expected=home(name), choices=choices)
    return build(method.Config, raw, path).model_dump(mode="json")


def home(name: str) -> str | None:
    """The section that has a field of this name, in words; None where none or several have."""
    homes = [section for section, model in SECTIONS.items() if name in model.model_fields]
    return f"it under `{homes[0]}`" if len(homes) == 1 else None


def _teacher(method: type[Method], raw: Any, data: Mapping[str, Any], where: str) -> TeacherSpec | None:
    path = join(where, "teacher")
    spec = None if raw is None else build(TeacherSpec, raw, path)
    if not needs_teacher(method):
        return None
    if spec is None:
        raise UserError(
            path,
            f"is missing: method {method.name!r} learns from a teacher",
            expected="`{arch: NAME, checkpoint: FILE}` or `{arch: NAME, train: {method: moco, epochs: N}}`",
        )
    from trainables.teachers.student import with_weights

    spec = with_weights(spec, path)
    if spec.train is None:
        return spec
    return _trained(spec, spec.train, data, path)


def _student(raw: Any, data: Mapping[str, Any], where: str) -> StudentSpec:
    written = as_mapping(raw, where)
    before = written.pop("train", None)
    taken = () if before is None else [name for name in InputFields.model_fields if name != "image_size"]
    inputs = {name: written.pop(name, None) for name in taken}
    spec = build(StudentSpec, written, where)
    if before is not None:
        spec = spec.model_copy(update={"train": _before(spec, before, data, join(where, "train"))})
    if not spec.has_learned:
        return spec
    from trainables.teachers.student import with_weights

    found = with_weights(spec, where)
    for name, given in inputs.items():
        of = getattr(found, name)
        if given is not None and given not in (of, list(of) if isinstance(of, tuple) else of):
            problem = "goes with `checkpoint`: a student is fed as in its training before"
            expected = "neither `mean` nor `std`" if name in ("mean", "std") else "none"
            raise UserError(join(where, name), problem, value=given, expected=expected)
    return found


def _before(spec: StudentSpec, raw: Any, data: Mapping[str, Any], where: str) -> TrialSpec:
    """The training of a student before the trial, of the same network, on the same data but for its own."""
    written = spelled_out(as_mapping(raw, where), SHORTHAND)
    student = {**spec.model.model_dump(), **as_mapping(written.get("student"), join(where, "student"))}
    if (student["arch"], student["options"]) != (spec.arch, spec.options):
        problem = "is another network than the one that starts from it"
        raise UserError(join(where, "student.arch"), problem, value=student["arch"], expected=spec.arch)
    own = as_mapping(written.get("data"), join(where, "data"))
    probe = written.get("probe", {"score": BEFORE_SCORE, "record": ()})
    try:
        full = resolve({**written, "student": student, "data": {**data, **own}, "probe": probe}, where)
    except UserError as error:
        raise _of_network(error, where) from None
    if "probe" in written:
        return full
    # At the end alone. No result depends on the probe, but the name of the file does.
    return full.model_copy(update={"probe": full.probe.model_copy(update={"every": full.epochs})})


def _of_network(error: UserError, where: str, start: str = "") -> UserError:
    """`error` of a training, placed: about the network at its section, about its weights at `start`."""
    own = join(where, "student")
    if error.field != own and not error.field.startswith(own + "."):
        return error
    rest = error.field.removeprefix(own).removeprefix(".")
    if start and rest.partition(".")[0] not in ("arch", "options"):
        return error.at(join(join(where, start), rest))
    return error.at(join(where.rpartition(".")[0], rest))


def needs_teacher(method: type[Method]) -> bool:
    """Whether this method learns from a teacher."""
    from trainables.methods.base import TAUGHT

    return bool(method.needs & TAUGHT)


def _trained(teacher: TeacherSpec, train: TeacherTraining, data: Mapping[str, Any], path: str) -> TeacherSpec:
    """The teacher with all of its training filled in, so that its identity does not depend on defaults.

    It uses the trial's data and nothing else of the trial: if its views followed an axis of the search, each
    trial would train a teacher of its own.
    """
    where = join(path, "train")
    raw = train.model_dump(exclude={"start"})
    method = _method(raw, where)
    if needs_teacher(method):
        raise UserError(
            join(where, "method"), "needs a teacher itself", value=method.name, expected="one that does not"
        )
    student = {**teacher.model.model_dump(), **train.start}
    try:
        full = resolve({**raw, "student": student, "data": data}, where)
    except UserError as error:
        raise _of_network(error, where, "start") from None
    training = TeacherTraining(
        method=full.method,
        epochs=full.epochs,
        config=full.config,
        optim=full.optim.model_dump(mode="json"),
        views=full.views.model_dump(mode="json"),
        seed=full.seed,
        start=full.student.model_dump(mode="json") if full.student.has_learned else {},
    )
    return teacher.model_copy(update={**full.student.model.model_dump(), "train": training})
