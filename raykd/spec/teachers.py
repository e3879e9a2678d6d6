"""Teachers by name: what a sweep's `teachers` hold, and which of them its trials have.

    teachers: {r50: {arch: resnet50, checkpoint: a.pth}, b16: {arch: …, pretrained: true}, both: [r50, b16]}
    axes: {teacher: [r50, b16, both]}

`teacher` is a name, a mapping, or a list of these. A trial has the teacher itself, so its identity does not
depend on the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from trainables.core.errors import UserError
from trainables.spec.inputs import AS_STUDENT
from trainables.spec.normalisation import IMAGENET
from trainables.spec.parse import join

ARCH = "arch"
Written: TypeAlias = "str | dict[str, Any] | list[str | dict[str, Any]] | None"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,49}")


def check_named(teachers: Mapping[str, Any]) -> dict[str, Any]:
    """`teachers` as a spec has them. Raises `UserError` for a name or a teacher that cannot be one."""
    for name, teacher in teachers.items():
        if not _NAME.fullmatch(name):
            expected = "letters, digits, `_`, `-`, at most 50, the first no dash"
            raise UserError(name, "is no name for a teacher", value=name, expected=expected)
        if not isinstance(teacher, Mapping | list | tuple) or not teacher:
            expected = "`{arch: NAME, checkpoint: FILE}`, or a list of teachers"
            raise UserError(name, "is no teacher", value=teacher, expected=expected)
    return dict(teachers)


def as_written(given: Any, teachers: Mapping[str, Any]) -> Written:
    """`teacher` as a spec has it: the names of `teachers` as text. Left out, it is the first of these.

    Raises `UserError` at "" for what is no teacher.
    """
    if given is None:
        return next(iter(teachers), None)
    if isinstance(given, list | tuple):
        return [_one(each, teachers, str(at)) for at, each in enumerate(given)]
    return _one(given, teachers, "")


def _one(given: Any, teachers: Mapping[str, Any], where: str) -> str | dict[str, Any]:
    if isinstance(given, Mapping):
        name = given[ARCH] if set(given) == {ARCH} else None  # `teacher: r50`, spelled out as a section
        return name if isinstance(name, str) and name in teachers else dict(given)
    if isinstance(given, str):
        return given if given in teachers else {ARCH: given}
    expected = "`{arch: NAME, checkpoint: FILE}`, a name under `teachers`, or a list of these"
    raise UserError(where, "is no teacher", value=given, expected=expected)


def by_name(given: Any, teachers: Mapping[str, Any], where: str) -> Any:
    """What `resolve` takes: names replaced by their teachers, a list of lists by one list.

    Raises `UserError` at `where` for a name that is not under `teachers`.
    """
    found = [teacher for _, teacher in parts(given, teachers, where)]
    return found if isinstance(given, list | tuple) or len(found) != 1 else found[0]


def parts(given: Any, teachers: Mapping[str, Any], where: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, teacher) of each teacher in `given`; the name is "" for one that has none.

    Raises `UserError` at `where` for a name that is not under `teachers`.
    """
    return list(_parts(given, teachers, where, ()))


def _parts(
    given: Any, teachers: Mapping[str, Any], where: str, within: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(given, list | tuple):
        for at, each in enumerate(given):
            yield from _parts(each, teachers, join(where, str(at)), within)
    elif isinstance(given, str):
        if given not in teachers:
            raise unknown(given, teachers, where)
        if given in within:
            raise UserError(f"teachers.{given}", "contains itself", value=given)
        teacher = teachers[given]
        if isinstance(teacher, Mapping):
            yield given, dict(teacher)
        else:
            yield from _parts(teacher, teachers, f"teachers.{given}", (*within, given))
    else:
        yield "", dict(given)


def placed(error: UserError, given: Any, teachers: Mapping[str, Any]) -> UserError:
    """`error` about a teacher, at the name that the teacher has: `teacher.arch` at `teachers.r50.arch`."""
    first, *rest = error.field.split(".")
    if first != "teacher" or not rest or not given:
        return error
    names = [name for name, _ in parts(given, teachers, "teacher")]
    at = 0
    if len(names) > 1 and rest[0].isdigit():
        at, rest = int(rest[0]), rest[1:]
    return error.at(".".join(["teachers", names[at], *rest])) if names[at] else error


def refuse_unnamed(given: Any, teachers: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` for a value of the field `teacher` that is no name, and no list of names."""
    for name in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(name, str) or name not in teachers:
            raise unknown(name, teachers, where)


def refuse_part(path: tuple[str, ...]) -> None:
    """Raise `UserError` for a field of a teacher where there are several."""
    expected = "it in the list, under the teacher that it belongs to"
    raise UserError(".".join(path), "is a field of one teacher, and there are several", expected=expected)


def with_older_pixels(raw: Any, imagenet: bool) -> Any:
    """Teachers from files, cut and resized as the student: `teacher_pixels: own`, or `imagenet`.

    With `imagenet` those that name no mean and deviation have ImageNet's.
    """
    if isinstance(raw, list | tuple):
        return [with_older_pixels(each, imagenet) for each in raw]
    if not isinstance(raw, Mapping) or not (raw.get("checkpoint") is not None or raw.get("pretrained")):
        return raw
    usual = imagenet and raw.get("checkpoint") is not None and not {"mean", "std"} & raw.keys()
    return {**AS_STUDENT, **raw, **(IMAGENET._asdict() if usual else {})}


def unknown(given: Any, teachers: Mapping[str, Any], where: str) -> UserError:
    """The error for a value that is no name under `teachers`."""
    if not teachers:
        expected = "`teachers: {NAME: {arch: …, checkpoint: …}, …}`, whose names can be chosen"
        return UserError(where, "there are no teachers with names", value=given, expected=expected)
    return UserError(where, "no such teacher under `teachers`", value=given, choices=teachers)


def rows(every: Iterable[Any], teachers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The teachers in the values of `teacher` that a sweep has: name of the reference's row -> teacher.

    A single one has the row `teacher`; of several each has a row with its name, or with its number.
    """
    found: dict[str, dict[str, Any]] = {}
    for given in every:
        for at, (name, teacher) in enumerate(parts(given, teachers, "teacher")):
            teacher.pop("weight", None)  # which is no matter of a single one
            if teacher not in found.values():
                found[f"teacher-{name or at + 1}"] = teacher
    return found if len(found) > 1 else dict(zip(["teacher"], found.values(), strict=False))
