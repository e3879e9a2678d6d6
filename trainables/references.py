"""Reference rows of a comparison, measured by the same probes on the same split as every trial.

Each function takes the arguments of `loop.train` and reports once, as epoch 1: an engine runs it as a
trial.
"""

from __future__ import annotations

import functools
import math
import socket
import time
from collections.abc import Callable

from torch import nn

from trainables.core.workers import device, from_first, on_each, rank
from trainables.data.data_sets import DataSet, open_data
from trainables.data.encode import Encode
from trainables.evaluation import evaluate
from trainables.evaluation.evaluate import Examiner
from trainables.planning.compute import equal_epochs
from trainables.planning.latency import measure_latency
from trainables.spec.inputs import USUAL, Inputs
from trainables.spec.trial import TrialSpec
from trainables.teachers.student import build_student
from trainables.teachers.teacher import load_teacher
from trainables.training import loop
from trainables.training.taught import plain_encoder
from trainables.training.teacher_file import start_path, teacher_path
from trainables.training.workspace import EpochReport, Report, Workspace
from trainables.views.augmented import evaluation_view

_SAY_EVERY_S = 5.0


def raw_pixels(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """The probes on raw pixels."""
    _evaluate(trial, report, workspace, lambda: evaluate.raw_pixels)


def untrained(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """The probes on the trial's student before training."""
    start = start_path(trial.student, workspace.teachers)
    encoder = functools.partial(build_student, trial.student, trial.seed, start)
    _evaluate(trial, report, workspace, lambda: _still(encoder()), trial.student.inputs)


def teacher(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """The probes on the features of the teacher's backbone, of images cut and resized as in its training."""
    assert trial.teacher is not None
    spec = trial.teacher.model_copy(update={"batch_norm": "eval"})

    def features() -> Encode:
        found = load_teacher(spec, teacher_path(trial, workspace.teachers))
        _still(found)
        return found.features

    _evaluate(trial, report, workspace, features, trial.teacher.inputs)


def equal_compute(trial: TrialSpec, baseline: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Report `epochs`: the epochs of `baseline` that cost as much as `trial`."""
    epochs = from_first(lambda: equal_epochs(trial, baseline))
    report(EpochReport(1, {"epochs": float(epochs)}))


def latency(
    trial: TrialSpec, report: Report, workspace: Workspace, *, batch: int, threads: int, device: str
) -> None:
    """The time of the student's forward pass, on the first worker while the others wait.

    Reports the numbers of `Latency`, and the node and the device in words.
    """
    if rank() != 0:
        return
    found = measure_latency(trial.student.model, trial.data.image_size, batch, threads, device)
    metrics = {name: float(value) for name, value in found._asdict().items() if name != "device"}
    report(EpochReport(1, metrics, note=f"{socket.gethostname()}, {found.device}"))


def prepare(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """`loop.prepare` as an action that also reports on the data.

    Progress of decoding is reported as epochs below 0 (`decoded` of `images`), pictures left out as a note.
    """
    said = -math.inf

    def decoded(done: int, total: int) -> None:
        nonlocal said
        if done == total or time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            report(EpochReport(-done, {"decoded": float(done), "images": float(total)}))

    # Only the first worker reports: another one would wait for an answer that never comes.
    data = on_each(lambda: open_data(trial.data, workspace.cache, decoded if rank() == 0 else None))
    if data.left_out and rank() == 0:
        report(EpochReport(0, {}, note=f"left out: {data.left_out}"))
    loop.prepare(trial, workspace, report)


def _evaluate(
    trial: TrialSpec,
    report: Report,
    workspace: Workspace,
    encoder: Callable[[], Encode],
    inputs: Inputs = USUAL,
) -> None:
    def made() -> tuple[Examiner, Encode]:
        data: DataSet = open_data(trial.data, workspace.cache)
        shared = plain_encoder(workspace)
        examiner = Examiner(trial.probe, data, evaluation_view(trial.data, inputs), device(), encoder=shared)
        return examiner, encoder()

    examiner, encode = on_each(made)
    report(EpochReport(1, examiner.evaluate(encode)))


def _still(model: nn.Module) -> nn.Module:
    return model.to(device()).eval()
