"""What benchmarks of the engine train: nothing, a small real trial, or one whose teacher is watched."""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from trainables.spec.trial import TrialSpec
from trainables.teachers.teacher import Teacher
from trainables.training import loop
from trainables.training.workspace import EpochReport, Report, Workspace


def nothing(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Epochs without computation."""
    began = time.time()
    for epoch in range(1, trial.epochs + 1):
        if not report(EpochReport(epoch, {"score": float(epoch), "began": began})):
            return


def real(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Real training."""
    began = time.time()

    def stamped(said: EpochReport) -> bool:
        return report(EpochReport(said.epoch, {**said.metrics, "began": began}))

    loop.train(trial, stamped, workspace)


def prepare(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Only the data; the trials need no teacher."""
    loop.prepare(trial, workspace)


def counted(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Real training that writes down each pass through the teacher: what was asked, about which views."""
    log = workspace.folder / "passes.txt"
    answer = Teacher.answer

    def watched(teacher: Teacher, what: Any, images: Tensor) -> Tensor:
        with log.open("a") as file:
            file.write(f"{what} {images[:, :, ::7, ::7].double().sum().item()!r}\n")
        return answer(teacher, what, images)

    workspace.folder.mkdir(parents=True, exist_ok=True)
    log.touch()
    with mock.patch.object(Teacher, "answer", watched):
        real(trial, report, workspace)


def random_answers(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Real training without a pass through the teacher: its answers are random numbers that are there."""
    ready: dict[tuple[str, int], Tensor] = {}

    def given(teacher: Teacher, what: Any, images: Tensor) -> Tensor:
        key = what, len(images)
        if key not in ready:
            drawn = torch.randn(len(images), teacher.width(what), generator=torch.Generator().manual_seed(0))
            ready[key] = drawn.to(images.device)
        return ready[key].clone()

    with mock.patch.object(Teacher, "answer", given):
        real(trial, report, workspace)
