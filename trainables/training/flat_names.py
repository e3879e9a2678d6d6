"""The flat names of a trial's fields (`gamma`, `lr`, `views.strength`): of search axes, `fixed` and tables.

The settings of a method and of the optimizer have their bare names, the fields of other sections have the
section in front.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from trainables.core.errors import UserError
from trainables.spec.trial import (
    DataSpec,
    HeadTraining,
    OptimSpec,
    ProbeSpec,
    StudentSpec,
    TeacherSpec,
    TeacherTraining,
    TrialSpec,
    ViewSpec,
)

if TYPE_CHECKING:  # and in functions: methods import torch, and `raykd status` has to start without it
    from trainables.methods.base import Method

# Where a trial is written: the fields of TrialSpec, and the preset that fills some of them in.
KEYS = (
    *(name for name in TrialSpec.model_fields if name != "further_teachers"),
    "preset",
)  # `plugins`: names of modules, or a trial's mapping of them
SECTIONS: dict[str, type[BaseModel]] = {
    "student": StudentSpec,
    "teacher": TeacherSpec,
    "data": DataSpec,
    "views": ViewSpec,
    "optim": OptimSpec,
    "probe": ProbeSpec,
}
TEACHER = "teacher"  # the section that can be set as a whole
BARE = ("method", "epochs", "seed")  # top-level fields that are not sections
# Mappings with any keys: arguments of constructors, and the parts of a teacher's training.
_OPEN = (
    "student.options",
    "teacher.options",
    "views.operations",
    "views.second",
    "teacher.train.config",
    "teacher.train.optim",
    "teacher.train.views",
    "teacher.train.start",
    "student.train",
    "teacher.head.config",
    "teacher.head.optim",
    "teacher.head.views",
)


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


def home(name: str) -> str | None:
    """The section that has a field of this name, in words; None where none or several have."""
    homes = [section for section, model in SECTIONS.items() if name in model.model_fields]
    return f"it under `{homes[0]}`" if len(homes) == 1 else None


@dataclass(frozen=True)
class FlatField:
    """A field under its flat name: where it is written, which methods have it, what it is."""

    name: str  # as the user wrote it: `gamma`, `retro.gamma`, `views.strength`
    path: tuple[str, ...]  # in the mapping that `resolve` takes
    methods: frozenset[str]  # of those asked for, the ones that have it
    description: str

    @property
    def flat(self) -> str:
        """The flat name without a method in front."""
        return self.path[-1] if self.path[0] in ("config", "optim") else ".".join(self.path)


def flatten(trial: TrialSpec) -> dict[str, Any]:
    """Every field of `trial` under its flat name, values plain JSON."""
    dump = trial.model_dump(mode="json")
    flat: dict[str, Any] = {name: dump[name] for name in BARE}
    flat.update(dump["config"])
    flat.update(dump["optim"])
    for section in SECTIONS:
        if isinstance(dump[section], list):  # several teachers
            for at, one in enumerate(dump[section]):
                flat.update(_dotted(f"{section}.{at}", one))
        elif section != "optim" and dump[section] is not None:
            flat.update(_dotted(section, dump[section]))
    return flat


def put(raw: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of the nested mapping `raw` with `value` at `path`."""
    if len(path) == 1:
        return {**raw, path[0]: value}
    inner = raw.get(path[0])
    return {**raw, path[0]: put(inner if isinstance(inner, Mapping) else {}, path[1:], value)}


def flat_fields(methods: Iterable[str]) -> dict[str, FlatField]:
    """Every flat field that a trial of one of these methods has, by name."""
    from trainables.methods import load_method

    names = frozenset(methods)
    found: dict[str, FlatField] = {}
    for method in sorted(names):
        cls = load_method(method)
        check_names(cls)
        for name, field in cls.Config.model_fields.items():
            having = found[name].methods if name in found else frozenset()
            found[name] = FlatField(name, ("config", name), having | {method}, field.description or "")
    for name in BARE:
        found[name] = FlatField(name, (name,), names, TrialSpec.model_fields[name].description or "")
    found[TEACHER] = FlatField(TEACHER, (TEACHER,), names, "who teaches: a name under `teachers`, or several")
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            path = _PARTS.get((section, name), {(section, name): field.description})
            for at, description in path.items():
                flat = at[-1] if section == "optim" else ".".join(at)
                found[flat] = FlatField(flat, at, names, description or "")
    return found


def _parts(name: str, model: type[BaseModel]) -> dict[tuple[str, ...], str | None]:
    return {("teacher", name, part): field.description for part, field in model.model_fields.items()}


# Fields that are sections themselves.
_PARTS: Mapping[tuple[str, str], Mapping[tuple[str, ...], str | None]] = {
    ("teacher", "train"): _parts("train", TeacherTraining),
    ("teacher", "head"): {
        ("teacher", "head"): TeacherSpec.model_fields["head"].description,
        **_parts("head", HeadTraining),
    },
}


def find_field(name: str, methods: Sequence[str], where: str) -> FlatField:
    """The field called `name`, for trials of these methods; `retro.gamma` is `gamma` of method retro alone.

    Raises `UserError` at `where` with the nearest name.
    """
    from trainables.methods import methods as all_methods

    first, _, rest = name.partition(".")
    if rest and first in all_methods():
        if first not in methods:
            raise UserError(where, "method is not in this sweep", value=first, choices=methods)
        inner = find_field(rest, [first], where)
        return FlatField(name, inner.path, inner.methods, inner.description)
    known = flat_fields(methods)
    if name in known:
        return known[name]
    if any(name.startswith(prefix + ".") and name != prefix + "." for prefix in _OPEN):
        return FlatField(name, tuple(name.split(".")), frozenset(methods), "")
    others = [m for m, cls in all_methods().items() if name in cls.Config.model_fields]
    problem, expected = "no such field", None if others else _dot(name)
    if others:
        problem += f" of {', '.join(methods)}: {name!r} belongs to {', '.join(others)}"
    near = [k for k in known if ("." in k) == ("." in name)] if home(name) is None else known
    raise UserError(where, problem, value=name, expected=expected, choices=near)


def _dot(name: str) -> str | None:
    """The full name of a field whose section was left out or need not be there."""
    first, _, rest = name.partition(".")
    if first in ("config", "optim") and rest:
        return f"the bare name, {rest!r}"
    homes = [
        section for section, model in SECTIONS.items() if name in model.model_fields and section != "optim"
    ]
    return " or ".join(f"`{section}.{name}`" for section in homes) or None


def _dotted(prefix: str, value: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat.update(_dotted(f"{prefix}.{name}", inner))
        else:
            flat[f"{prefix}.{name}"] = inner
    return flat
