"""The check of a trial's teacher before anything starts: it exists and has what the method needs."""

from __future__ import annotations

from trainables.core.errors import UserError
from trainables.methods import load_method, methods
from trainables.methods.base import TAUGHT, Method
from trainables.networks.backbones import check_arch
from trainables.networks.sized import network_of
from trainables.planning.verified_files import verified
from trainables.spec.trial import DataSpec, TeacherSpec
from trainables.teachers.architecture import stem_remark, twins_remark
from trainables.teachers.pretrained.read import CheckpointFacts, read_checkpoint
from trainables.teachers.teacher import FIT, lacks, verify

_USUAL_SHARE = 224 / 256  # of evaluation views; `margin` makes room for it


def check_teacher(spec: TeacherSpec | None, needs: frozenset[str], classes: int = 0) -> None:
    """Raise `UserError` for a teacher that is missing, unreadable, or lacks what a method `needs` of it.

    `classes` is the number of classes of the data; 0: it does not matter.
    """
    if not needs & TAUGHT:
        return
    if spec is None:
        expected = "`{arch: NAME, checkpoint: FILE}` or `{arch, train}`"
        raise UserError("teacher", "is missing", expected=expected)
    if spec.head is not None:
        needs -= {"teacher_head"}
    check_arch(spec.arch, "teacher", spec.options)
    if (spec.checkpoint is None) == (spec.train is None):
        has = "neither `checkpoint` nor" if spec.train is None else "both `checkpoint` and"
        expected = "one of them" if spec.train is not None else "one of them, or `pretrained: true`"
        raise UserError("teacher", f"has {has} `train`", expected=expected)
    if spec.checkpoint is not None:
        facts = _verified(spec)
        if lacking := lacks(facts, needs, classes):
            raise UserError(
                "teacher.checkpoint",
                f"this method {lacking.what}; roles found: {facts.roles_text()}"
                + (f"; {facts.remark}" if facts.remark else ""),
                value=str(spec.checkpoint),
                expected=lacking.expected,
            )
    elif spec.train is not None:
        method = load_method(spec.train.method, "teacher.train.method")
        for need, hook, what in (
            ("teacher_head", "own_head", "projection head to reuse"),
            ("teacher_classifier", "own_classifier", "classifier"),
        ):
            if need in needs and not _overrides(method, hook):
                raise UserError(
                    "teacher.train.method",
                    f"trains no {what}",
                    value=method.name,
                    expected=FIT if need == "teacher_head" else None,
                    choices=[n for n, m in methods().items() if _overrides(m, hook) and not m.needs & TAUGHT],
                )


def headless(spec: TeacherSpec) -> str:
    """Why a teacher has no projection head, as a clause; empty if it has one.

    Raises `UserError` for a file that cannot be read.
    """
    if spec.head is not None:
        return ""
    if spec.train is not None:
        return "" if _overrides(load_method(spec.train.method), "own_head") else "its training makes no head"
    facts = _verified(spec)
    if facts.head_problem:
        return f"the projection head in {facts.path.name} cannot be read ({facts.head_problem})"
    return "" if facts.head else f"{facts.path.name} holds no projection head"


def _verified(spec: TeacherSpec) -> CheckpointFacts:
    """`verify` for the checkpoint of `spec`; the file is read once for all trials that use it.

    Raises `UserError` for a file that cannot be read or is of another network.
    """
    assert spec.checkpoint is not None
    path, model = spec.checkpoint.expanduser(), network_of(spec)

    def find() -> CheckpointFacts:
        return verify(read_checkpoint(path, "teacher.checkpoint"), model, image_size=spec.image_size)

    return verified(path, ("teacher", model, spec.image_size), find)


def teacher_remarks(spec: TeacherSpec | None) -> list[str]:
    """Remarks on a teacher that can be run but may not be what the user wants: several networks fit the file.

    Raises `UserError` for a file that cannot be read.
    """
    if spec is None or spec.checkpoint is None:
        return []
    facts = _verified(spec)
    said = {"arch": twins_remark(facts, spec.arch), "options.stem": stem_remark(facts, spec)}
    return [f"teacher.{field}: {remark}" for field, remark in said.items() if remark]


def few_pixels(spec: TeacherSpec, data: DataSpec) -> str:
    """A remark where images are stored with fewer pixels than the teacher sees; else empty."""
    side = spec.side(data)
    if side <= data.stored:
        return ""
    stored = round(side / _USUAL_SHARE)
    change = {"margin": stored - data.image_size, "crop_share": round(data.kept() / data.stored, 4)}
    if data.keep == "jpeg" and data.short_side < stored:
        change["short_side"] = stored
    written = ", ".join(f"{name}: {value}" for name, value in change.items())
    return (
        f"teacher.image_size: it sees {side} px, and images are prepared with {data.stored} (image_size and "
        f"margin), so its views are enlarged. `data: {{{written}}}` keeps enough pixels, and the student's "
        "evaluation views as they are"
    )


def _overrides(method: type[Method], hook: str) -> bool:
    """Whether this method defines `hook` (`own_head` or `own_classifier`)."""
    return getattr(method, hook) is not getattr(Method, hook)
