"""Students that have learned before: their weights are found and read as a teacher's are.

spec = with_weights(StudentSpec(arch="resnet18", pretrained=True), "student")    # its file, mean and std
build_student(spec, seed=0)                                                      # a Backbone
"""

from __future__ import annotations

from typing import TypeVar

from trainables.core.errors import UserError
from trainables.networks.backbones import Backbone, build_backbone
from trainables.spec.trial import StudentSpec, WeightsSpec
from trainables.teachers.feeding import filled
from trainables.teachers.fill import fill_backbone
from trainables.teachers.named_weights import with_file
from trainables.teachers.pretrained.read import CheckpointFacts, read_checkpoint

W = TypeVar("W", bound=WeightsSpec)
_SOURCES = ("checkpoint", "train", "pretrained")


def with_weights(spec: W, where: str) -> W:
    """`spec` with the file that its name stands for, and with the normalisation of that file's training.

    `where` is its path in the user's file. Raises `UserError` for more than one source of weights.
    """
    given = [f"`{name}`" for name in _SOURCES if getattr(spec, name, None)]
    if len(given) > 1:
        raise UserError(where, f"has both {' and '.join(given)}", expected="one of them")
    return filled(with_file(spec, where))


def build_student(spec: StudentSpec, seed: int) -> Backbone:
    """The student as it comes: with its checkpoint's weights, or with random ones drawn from `seed`.

    Raises `UserError` at `student` for a file that cannot be read or whose backbone does not load to the last
    weight. A projection head or classifier in the file is left aside.
    """
    return _read(spec, seed)[0] if spec.checkpoint is not None else build_backbone(spec, seed)


def verify_student(spec: StudentSpec) -> CheckpointFacts:
    """The facts of the student's checkpoint. Raises `UserError` where `build_student` would."""
    return _read(spec, 0)[1]


def _read(spec: StudentSpec, seed: int) -> tuple[Backbone, CheckpointFacts]:
    assert spec.checkpoint is not None
    read = read_checkpoint(spec.checkpoint, f"{spec.section}.checkpoint")
    backbone = build_backbone(spec, seed)
    fill_backbone(backbone, read)
    return backbone, read.facts
