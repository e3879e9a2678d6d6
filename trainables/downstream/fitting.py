"""One training of a task: the loop of every trial, on some of the labelled images, with a given network."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trainables.core.errors import TrialFailed
from trainables.core.file_transfer import FileTransfer
from trainables.core.precision import whole_float32
from trainables.core.workers import device, from_first
from trainables.data.data_sets import DataSet
from trainables.data.encode import encode_together
from trainables.data.splits import Ids, class_sizes
from trainables.data.store_images import Images
from trainables.downstream.classifier import LinearFit
from trainables.methods.base import Context
from trainables.methods.supervised import Supervised, SupervisedConfig
from trainables.spec.suite_trained import TrainedTask
from trainables.spec.trial import DataSpec, OptimSpec, ProbeSpec, StudentSpec, TrialSpec
from trainables.training.checkpoints import Checkpoints
from trainables.training.compilation import uncompiled
from trainables.training.run import Run, move
from trainables.training.taught import channels_last
from trainables.training.workspace import Workspace
from trainables.views.augmented import PlainView

_EVERY_S = 60.0  # between checkpoints: short trainings write none

Make = Callable[[Context], LinearFit]  # a new classifier on a new copy of the network


@dataclass(frozen=True)
class Fitted:
    """A classifier after its training."""

    method: LinearFit
    compiled: bool

    def right(self, images: Images, ids: Ids, labels: Ids, view: PlainView) -> np.ndarray:
        """(N,) float64: 1 for each image `ids` that is given its label, else 0; on every worker.

        In eval mode and float32. Every worker of a group calls this, and each classifies a part.
        """
        self.method.eval()

        def answer(shown: Tensor) -> Tensor:
            answers = self.method.logits(channels_last(shown)).argmax(1, keepdim=True)
            return answers.float()  # exact up to 2^24 classes

        with uncompiled() if self.compiled else contextlib.nullcontext(), whole_float32():
            answers = encode_together(answer, images, ids, view, device())
        found: np.ndarray = from_first(lambda: answers[:, 0].long().cpu().numpy())
        right: np.ndarray = (found == labels).astype(np.float64)
        return right


def fit(
    task: TrainedTask,
    optim: OptimSpec,
    make: Make,
    data: DataSet,
    spec: DataSpec,
    ids: Ids,
    seed: int,
    place: Workspace,
) -> Fitted:
    """Train the classifier that `make` makes on the images `ids` for the task's epochs.

    It goes on from a checkpoint in `place` that an interrupted process left, and removes it at its end. What
    is in `place` must be of the same network, images and settings: the checkpoint does not know all of them.
    Every worker of a group calls this. Raises `TrialFailed` for a loss that diverges, `UserError` for
    settings that cannot work.
    """
    none = np.zeros(0, np.int64)
    part = replace(data, train_ids=ids, probe_ids=ids, val_ids=none)
    made = make(
        Context(
            len(ids),
            optim.batch_size,
            data.classes,
            spec.image_size,
            seed,
            class_images=class_sizes(data.train.labels[ids], data.classes),
            accumulate=optim.accumulate,
        )
    )
    move(made, device())
    run = _Fit(fitting_trial(task, optim, made, spec, seed), place, part, made)
    try:
        while run.epoch < task.epochs:
            run.train_epoch()
    except TrialFailed:  # on every worker alike; another process would fail, too
        from_first(lambda: _clean(run))
        raise
    from_first(lambda: _clean(run))
    return Fitted(made, run.compiled)


def fitting_trial(
    task: TrainedTask, optim: OptimSpec, made: LinearFit, spec: DataSpec, seed: int
) -> TrialSpec:
    """The training as a trial."""
    return TrialSpec(
        method=Supervised.name,
        config=SupervisedConfig().model_dump(),
        student=StudentSpec(arch=made.student.arch, options=made.student.options),
        data=spec,
        views=task.views,
        optim=optim,
        probe=ProbeSpec(score="ridge", record=(), every=task.epochs),
        epochs=task.epochs,
        seed=seed,
    )


def cut_to(optim: OptimSpec, images: int, workers: int) -> OptimSpec:
    """`optim` with a batch of at most so many images: of fewer than a batch, a step takes all of them."""
    share = workers * optim.accumulate
    most = max(2 * share, images // share * share)
    return optim if optim.batch_size <= most else optim.model_copy(update={"batch_size": most})


class _Fit(Run):
    """A run without probes, which writes checkpoints seldom."""

    def __init__(self, trial: TrialSpec, workspace: Workspace, data: DataSet, method: LinearFit) -> None:
        super().__init__(trial, workspace, data, method)
        self.checkpoints = _Seldom(self.checkpoints.folder, workspace.transfer)

    def _evaluate(self) -> dict[str, float]:
        return {}


class _Seldom(Checkpoints):
    """Checkpoints of which one is written at most every so many seconds."""

    def __init__(self, folder: Path, transfer: FileTransfer) -> None:
        super().__init__(folder, transfer)
        self._last = time.monotonic()

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write the state if the last time was long enough ago. See `Checkpoints.save`."""
        if time.monotonic() - self._last >= _EVERY_S:
            super().save(epoch, state)
            self._last = time.monotonic()


def _clean(run: Run) -> None:
    """Remove the checkpoints of a training that has ended, and its folder."""
    run.checkpoints.discard()
    with contextlib.suppress(OSError):  # it was never made
        run.workspace.folder.rmdir()
