"""From the settings of one training to a complete `TrialSpec`.

    resolve({"method": "retro", "student": {"arch": "resnet18"}, "teacher": {...}, "epochs": 16})

fills in every field. What is written wins over the preset, and the preset over the method's defaults. A
mistake is a `UserError` with the field's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainables.core import plugins
from trainables.core.errors import UserError
from trainables.spec.inputs import InputFields
from trainables.spec.parse import as_mapping, build, join, spelled_out
from trainables.spec.trial import (
    HEAD_METHOD,
    DataSpec,
    HeadTraining,
    StudentSpec,
    TeacherSpec,
    TeacherTraining,
    TrialSpec,
)
from trainables.training.flat_names import KEYS, SECTIONS, TEACHER, check_names, home
from trainables.training.own_code import own_code

if TYPE_CHECKING:  # and in functions: methods import torch, and `raykd status` has to start without it
    from trainables.methods.base import Method

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
    teachers = _teachers(method, parts.pop("teacher", None), data, written.get("preset"), where)
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
    trial = trial.model_copy(update={"student": student}).with_teachers(teachers)
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
        if section == TEACHER and isinstance(written.get(section), list | tuple):
            continue  # several; presets have none
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


def _teachers(
    method: type[Method], raw: Any, data: Mapping[str, Any], preset: str | None, where: str
) -> list[TeacherSpec]:
    """The teachers of a trial, complete; [] for a method without."""
    path = join(where, TEACHER)
    if raw is None and needs_teacher(method):
        raise UserError(
            path,
            f"is missing: method {method.name!r} learns from a teacher",
            expected="`{arch: NAME, checkpoint: FILE}` or `{arch: NAME, train: {method: moco, epochs: N}}`",
        )
    given = [] if raw is None else list(raw) if isinstance(raw, list | tuple) else [raw]
    if raw is not None and not given:
        raise UserError(path, "no teacher", value=[], expected="at least one")
    places = [join(path, str(at)) if len(given) > 1 else path for at in range(len(given))]
    shorthand = {names[1:]: field for names, field in SHORTHAND.items() if names[0] == TEACHER and names[1:]}
    each = [
        {SHORTHAND[TEACHER,]: one} if isinstance(one, str) else spelled_out(as_mapping(one, place), shorthand)
        for one, place in zip(given, places, strict=True)
    ]
    specs = [build(TeacherSpec, one, place) for one, place in zip(each, places, strict=True)]
    if not needs_teacher(method):
        return []
    if len(specs) > 1 and not method.several_teachers:
        raise UserError(
            path,
            f"has {len(specs)} teachers, and method {method.name!r} learns from one",
            expected=f"one teacher, or a method that takes several: {', '.join(_of_several())}",
        )
    found = [_teacher(spec, data, preset, place) for spec, place in zip(specs, places, strict=True)]
    if len(found) == 1 and found[0].weight != 1:
        problem = "goes with several teachers; the method's own weights are for a single one"
        raise UserError(join(path, "weight"), problem, value=found[0].weight, expected="1")
    for at, one in enumerate(found):
        if one in found[:at]:
            raise UserError(places[at], "stands there twice", expected="each teacher once, with its `weight`")
    return found


def _of_several() -> list[str]:
    from trainables.methods import methods

    return [name for name, method in methods().items() if method.several_teachers]


def _teacher(spec: TeacherSpec, data: Mapping[str, Any], preset: str | None, path: str) -> TeacherSpec:
    from trainables.teachers.student import with_weights

    spec = with_weights(spec, path)
    if spec.train is not None:
        spec = _trained(spec, spec.train, data, path)
    if spec.head is not None:
        spec = spec.model_copy(update={"head": _head(spec, spec.head, data, preset, join(path, "head"))})
    return spec


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
    """The teacher with all of its training filled in, so that its identity does not depend on defaults."""
    where = join(path, "train")
    raw = train.model_dump(exclude={"start"})
    method = _method(raw, where)
    if needs_teacher(method):
        raise UserError(
            join(where, "method"), "needs a teacher itself", value=method.name, expected="one that does not"
        )
    full = _of_backbone(teacher, raw, data, where, train.start)
    start = full.student.model_dump(mode="json") if full.student.has_learned else {}
    training = TeacherTraining(method=full.method, start=start, **_filled_in(full))
    return teacher.model_copy(update={**full.student.model.model_dump(), "train": training})


def _head(
    teacher: TeacherSpec, head: HeadTraining, data: Mapping[str, Any], preset: str | None, where: str
) -> HeadTraining:
    """Likewise of the head's fitting; without a preset of its own it has the trial's, or moco's `paper`."""
    raw = {**head.model_dump(), "method": HEAD_METHOD}
    if head.preset is None:
        raw["preset"] = preset if preset in _method(raw, where).presets else "paper"
    return HeadTraining(**_filled_in(_of_backbone(teacher, raw, data, where, {})))


def _of_backbone(
    teacher: TeacherSpec,
    raw: Mapping[str, Any],
    data: Mapping[str, Any],
    where: str,
    start: Mapping[str, Any],
) -> TrialSpec:
    """The training `raw` of the teacher's network, from the weights `start`.

    It uses the trial's data and nothing else of the trial: if its views followed an axis of the search, each
    trial would train a teacher of its own.
    """
    student = {**teacher.model.model_dump(), **start}
    try:
        return resolve({**raw, "student": student, "data": data}, where)
    except UserError as error:
        raise _of_network(error, where, "start") from None


def _filled_in(full: TrialSpec) -> dict[str, Any]:
    return {
        "epochs": full.epochs,
        "config": full.config,
        "optim": full.optim.model_dump(mode="json"),
        "views": full.views.model_dump(mode="json"),
        "seed": full.seed,
    }
