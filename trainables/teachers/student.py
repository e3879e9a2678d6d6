"""Students that have learned before: their weights are found and read as a teacher's are.

spec = with_weights(StudentSpec(arch="resnet18", pretrained=True), "student")    # its file and inputs
build_student(spec, 0, spec.checkpoint)                                          # a Backbone
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from trainables.core.errors import UserError
from trainables.networks.backbones import Backbone, build_backbone
from trainables.spec.inputs import InputFields
from trainables.spec.trial import StudentSpec, WeightsSpec
from trainables.teachers.feeding import filled
from trainables.teachers.fill import fill_backbone
from trainables.teachers.named_weights import with_file
from trainables.teachers.pretrained.read import CheckpointFacts, read_checkpoint

W = TypeVar("W", bound=WeightsSpec)
_SOURCES = ("checkpoint", "train", "pretrained")


def with_weights(spec: W, where: str) -> W:
    """`spec` with the file that its name stands for, and with the images that the file's network takes.

    `where` is its path in the user's file. Raises `UserError` for more than one source of weights.
    """
    given = [f"`{name}`" for name in _SOURCES if getattr(spec, name, None)]
    if len(given) > 1:
        raise UserError(where, f"has both {' and '.join(given)}", expected="one of them")
    if isinstance(spec, StudentSpec) and spec.train is not None:  # fed as in that training
        trained = spec.train.student
        return spec.model_copy(update={name: getattr(trained, name) for name in InputFields.model_fields})
    return filled(with_file(spec, where))


def build_student(spec: StudentSpec, seed: int, file: Path | None = None) -> Backbone:
    """The student as it comes: with the weights in `file`, or with random ones drawn from `seed`.

    `file` is its checkpoint, or what its training before has left; None: none, or not trained yet. Raises
    `UserError` at `student` for a file that cannot be read or whose backbone does not load to the last
    weight. A projection head or classifier in the file is left aside.
    """
    return build_backbone(spec, seed) if file is None else _read(spec, seed, file)[0]


def verify_student(spec: StudentSpec) -> CheckpointFacts:
    """The facts of the student's checkpoint. Raises `UserError` where `build_student` would."""
    assert spec.checkpoint is not None
    return _read(spec, 0, spec.checkpoint)[1]


def _read(spec: StudentSpec, seed: int, file: Path) -> tuple[Backbone, CheckpointFacts]:
    read = read_checkpoint(file, f"{spec.section}.checkpoint")
    backbone = build_backbone(spec, seed)
    fill_backbone(backbone, read)
    return backbone, read.facts
