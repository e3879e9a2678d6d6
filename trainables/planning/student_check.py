"""The check of a student: its architecture, and the file that it starts from if it has learned before."""

from __future__ import annotations

from trainables.networks.backbones import check_arch
from trainables.planning.verified_files import verified
from trainables.spec.trial import StudentSpec
from trainables.teachers.architecture import stem_remark, twins_remark
from trainables.teachers.feeding import remark
from trainables.teachers.pretrained.layouts.base import BACKBONE
from trainables.teachers.pretrained.read import CheckpointFacts, tensors
from trainables.teachers.student import verify_student


def check_student(spec: StudentSpec) -> None:
    """Raise `UserError` for an unknown architecture or option, and for a checkpoint that does not fit."""
    check_arch(spec.arch, spec.section, spec.options)
    if spec.checkpoint is not None:
        _verified(spec)


def student_remarks(spec: StudentSpec) -> list[str]:
    """What a student starts from, and what may be wrong with it; none for one with random weights.

    Raises `UserError` for a file that cannot be read.
    """
    if spec.checkpoint is None:
        return []
    facts = _verified(spec)
    found = [start_text(spec)]
    if said := remark(spec):
        found.append(said)
    if said := twins_remark(facts, spec.arch):
        found.append(f"{spec.section}.arch: {said}")
    if said := stem_remark(facts, spec):
        found.append(f"{spec.section}.options.stem: {said}")
    return found


def start_text(spec: StudentSpec) -> str:
    """Which weights a student starts from: its file, the file's hash and origin, and what is left aside."""
    facts = _verified(spec)
    aside = {role: count for role, count in facts.roles.items() if role != BACKBONE}
    left = ", ".join(f"{role} ({tensors(count)})" for role, count in aside.items())
    return (
        f"student {spec.arch} starts from {spec.checkpoint} ({facts.sha256[:8]}, {facts.origin}): "
        f"{tensors(facts.roles[BACKBONE])} of its backbone" + (f"; left aside: {left}" if left else "")
    )


def _verified(spec: StudentSpec) -> CheckpointFacts:
    """`verify_student`; the file is read once for all trials that start from it."""
    assert spec.checkpoint is not None
    return verified(spec.checkpoint, ("student", spec.model), lambda: verify_student(spec))
