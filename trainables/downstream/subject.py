"""Whom a task is about: a trial's student, that student as it came, or its teacher."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch

from trainables.core.checksums import UNREADABLE, read_with_checksum
from trainables.core.errors import UserError, first_line
from trainables.networks.backbones import Backbone, build_backbone
from trainables.spec.trial import TrialSpec, digest
from trainables.teachers.student import build_student
from trainables.teachers.teacher import load_teacher
from trainables.training.teacher_file import start_path, teacher_path

Who = Literal["student", "start", "teacher"]


def open_subject(trial: TrialSpec, who: Who, weights: Path | None, teachers: Path) -> Backbone:
    """The network, on the CPU, in eval mode; `inputs` says what it is to be shown.

    `student`: with the tensors in the file `weights`, such as a trial's `best.safetensors`. `start`: the
    student before training. `teacher`: the trial's first teacher, with running statistics. `teachers` is the
    folder of networks that raykd trained. Raises `UserError` for a file that cannot be read or does not fit.
    """
    if who == "teacher":
        assert trial.teacher is not None
        spec = trial.teacher.model_copy(update={"batch_norm": "eval"})
        return load_teacher(spec, teacher_path(trial, teachers)).backbone.eval()
    if who == "start":
        return build_student(trial.student, trial.seed, start_path(trial.student, teachers)).eval()
    assert weights is not None
    backbone = build_backbone(trial.student, 0)
    try:
        tensors, _ = read_with_checksum(weights)
        backbone.model.load_state_dict(tensors)
    except (*UNREADABLE, RuntimeError) as error:
        problem = f"its student {weights} cannot be used: {first_line(error)}"
        raise UserError("trial", problem, value=trial.signature()) from None
    return backbone.eval()


def network_digest(network: Backbone) -> str:
    """SHA-256 of all that a network is: architecture, options, what it is shown, and its weights."""
    of = {"arch": network.arch, "options": network.options, "inputs": network.inputs}
    summed = hashlib.sha256(digest(of).encode())
    for name, tensor in sorted(network.state_dict().items()):
        summed.update(name.encode())
        summed.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return summed.hexdigest()
