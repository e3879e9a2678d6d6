"""The arms of a study's file: what its design makes of its factors, components or arms; a paper's numbers.

Every name is checked against the fields of the methods, so that a mistake is told at the key that holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raykd.ablation import designs
from raykd.ablation.study_file import StudyFile
from raykd.spec.arms import ArmSpec, Budget, Published
from raykd.spec.axis_kinds import same
from raykd.spec.document import parse_yaml
from raykd.spec.search import SearchSpec
from raykd.spec.space import searchable
from trainables.core.errors import UserError
from trainables.spec.parse import join
from trainables.training.flat_names import TEACHER, FlatField, find_field, flat_fields, flatten

_VARIES = {  # design -> the section that says what varies
    "one_at_a_time": "factors",
    "grid": "factors",
    "factorial": "factors",
    "leave_one_out": "components",
    "compare": "arms",
}
_ELSEWHERE = {  # fields that are no factor -> how arms can differ in them
    "method": "`design: compare`, with an arm a method: `arms: {moco: {method: moco}}`",
    "epochs": "`design: compare`, with `epochs` in an arm; or `budget`, for what is equal between arms",
    "seed": "`replicates: 5`, which gives every arm the same five seeds",
}


def arms_of(file: StudyFile, base: SearchSpec) -> designs.Arms:
    """Label -> arm, the base of the design first. `base` is a search over nothing with the base's settings.

    Raises `UserError` for a section of another design, an unknown field, and a design of a single arm.
    """
    section = _VARIES[file.design]
    for other in ("factors", "components", "arms"):
        if other != section and getattr(file, other):
            raise UserError(other, f"is no part of `design: {file.design}`", expected=f"`{section}`")
    if not getattr(file, section):
        raise UserError(section, "is missing", expected=StudyFile.model_fields[section].description)
    if file.resolution is not None and file.design != "factorial":
        problem = f"is no part of `design: {file.design}`"
        raise UserError("resolution", problem, expected="`design: factorial`")
    arms = _designed(file, section, base)
    if len(arms) < 2:
        raise UserError(section, "leaves nothing to compare: there is one arm", expected="another level")
    return arms


def factors_of(file: StudyFile, base: SearchSpec) -> dict[str, tuple[Any, ...]]:
    """Flat name -> levels. Raises `UserError` for a repeated level and for a factor that does not vary."""
    fields = {name: _field(name, base.methods, f"factors.{name}") for name in file.factors}
    found: dict[str, tuple[Any, ...]] = {}
    for name, levels in file.factors.items():
        for at, level in enumerate(levels):
            if any(same(level, other) for other in levels[:at]):
                raise UserError(f"factors.{name}.{at}", "stands there twice", value=level)
        if file.design != "one_at_a_time" and len(levels) < 2:
            raise UserError(
                f"factors.{name}", "does not vary", value=list(levels), expected="2 levels or more"
            )
        found[_unique(fields[name], found, f"factors.{name}")] = levels
    return found


def check_allowed(names: tuple[str, ...], methods: tuple[str, ...]) -> None:
    """Raise `UserError` where `allow` names neither a field nor a section of fields (`views`)."""
    known = flat_fields(methods)
    for at, name in enumerate(names):
        if not any(field.startswith(f"{name}.") for field in known):
            find_field(name, methods, f"allow.{at}")


def published_of(file: StudyFile, arms: Mapping[str, ArmSpec]) -> Published | None:
    """The numbers by the labels of arms; with a single factor the file may name the level alone.

    Raises `UserError` for a name that is no arm, and for two numbers of one arm.
    """
    if file.published is None:
        return None
    names = {label: label for label in arms}
    if len(file.factors) == 1:
        names |= {label.partition("=")[2]: label for label in arms}
    if file.design == "leave_one_out":
        names |= {label.removeprefix("without "): label for label in arms}
    values: dict[str, float] = {}
    for name, value in file.published.values.items():
        label = names.get(name) or _with_level(name, file, arms)
        if label is None:
            raise UserError(f"published.values.{name}", "is no arm of this study", value=name, choices=names)
        if label in values:
            raise UserError(f"published.values.{name}", f"is arm {label!r}, which stands there already")
        values[label] = value
    return file.published.model_copy(update={"values": values})


def _designed(file: StudyFile, section: str, base: SearchSpec) -> designs.Arms:
    """The arms that the design makes of its section."""
    if section == "factors":
        factors = factors_of(file, base)
        if file.design == "one_at_a_time":
            flat = {**flatten(base.trial({}, 0)), TEACHER: base.chosen_teacher({})}
            return designs.one_at_a_time(factors, {name: flat.get(name) for name in factors})
        return designs.grid(factors) if file.design == "grid" else designs.factorial(factors, file.resolution)
    if section == "components":
        return designs.leave_one_out(
            {name: _flat(raw, base.methods, f"components.{name}") for name, raw in file.components.items()}
        )
    return designs.compare({label: _arm(label, raw, base, file.budget) for label, raw in file.arms.items()})


def _levels_of(base: SearchSpec, factors: Iterable[str]) -> dict[str, Any]:
    """The base's level of each factor: as written, because a name of weights is a file in its trial."""
    flat, levels = flatten(base.trial({}, 0)), dict[str, Any]()
    for name in factors:
        here: Any = base.raw_trial({}, 0)
        for step in find_field(name, base.methods, f"factors.{name}").path:
            here = here.get(step) if isinstance(here, Mapping) else None
        levels[name] = flat.get(name) if here is None else here
    return levels


def _flat(settings: Mapping[str, Any], methods: tuple[str, ...], where: str) -> dict[str, Any]:
    """The settings by flat name; `UserError` for an unknown field and for one that is there twice."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        field = _field(name, methods, join(where, name))
        found[_unique(field, found, join(where, name))] = value
    return found


def _field(name: str, methods: tuple[str, ...], where: str) -> FlatField:
    """The field of that name, if arms may differ in it."""
    if name in _ELSEWHERE:
        raise UserError(where, "is no factor", expected=_ELSEWHERE[name])
    return searchable(name, methods, where)


def _unique(field: FlatField, found: Mapping[str, Any], where: str) -> str:
    """The flat name of a field that `found` does not hold yet; `UserError` else."""
    if field.flat in found:
        raise UserError(where, f"is {field.flat}, which stands there already")
    return field.flat


def _arm(label: str, raw: Mapping[str, Any], base: SearchSpec, budget: Budget) -> dict[str, Any]:
    """An arm of `compare`: its settings by flat name, and its own method, preset and epochs."""
    from trainables.methods import load_method

    own = {name: raw[name] for name in ("method", "preset", "epochs") if name in raw}
    method = load_method(str(own.get("method", base.methods[0])), f"arms.{label}.method").name
    settings = {name: value for name, value in raw.items() if name not in own}
    if "epochs" in own and budget != "epochs":
        raise UserError(f"arms.{label}.epochs", f"is what `budget: {budget}` finds out", value=own["epochs"])
    return {**own, **_flat(settings, (method,), f"arms.{label}")}


def _with_level(text: str, file: StudyFile, arms: Mapping[str, ArmSpec]) -> str | None:
    """The arm of a single factor with the level that `text` names: 1e-4 is 0.0001, and 64 is 64.0."""
    if len(file.factors) != 1:
        return None
    try:
        level = parse_yaml(text, "published.values")
    except UserError:
        return None
    having = (label for label, arm in arms.items() if same(next(iter(arm.levels.values())), level))
    return next(having, None)
