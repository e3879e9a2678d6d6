"""A trial in training: its objects, one epoch, and its state on the disk. `loop.train` drives it."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.core.checksums import is_whole, save_with_checksum
from trainables.core.distributed import convert_sync_batch_norm
from trainables.core.errors import UserError
from trainables.core.files import replacing
from trainables.core.heartbeat import heartbeat
from trainables.core.isolation import rng_state, set_rng_state, tuned_kernels
from trainables.core.storage_retry import with_retry
from trainables.core.workers import device, from_each, from_first, on_each, rank, sent, world_size
from trainables.data.data_sets import DataSet, open_data
from trainables.data.encode import TrainingImages
from trainables.data.loader import fetch, order
from trainables.data.splits import class_sizes
from trainables.evaluation.evaluate import Examiner
from trainables.methods import load_method
from trainables.methods.base import Batch, Context, Losses, Method, MethodConfig
from trainables.methods.moco import MocoConfig
from trainables.spec.trial import TrialSpec
from trainables.targets.sharing import EpochTargets
from trainables.teachers.student import build_student
from trainables.teachers.teacher import Teacher, load_teacher
from trainables.training.checkpoints import Checkpoints
from trainables.training.compilation import compile_networks, uncompiled
from trainables.training.head_fit import HeadFit
from trainables.training.loss_watch import LossWatch
from trainables.training.memory import check_on_device
from trainables.training.optimizer import Schedule, check_optim, load_optimizer, make_optimizer
from trainables.training.parallel import broadcast_buffers, data_parallel
from trainables.training.taught import BatchViews, autocast, channels_last, plain_encoder, shared_targets
from trainables.training.teacher_file import fits_head, start_path, teacher_path
from trainables.training.workspace import Workspace
from trainables.views.augmented import EpochViews, Views, evaluation_view

BEST = "best.safetensors"  # the student with the best score so far, beside the checkpoints
_log = logging.getLogger(__name__)
_STATE = {  # keys of a checkpoint
    "trial", "data", "method", "optimizer", "schedule", "generators", "metrics", "best", "first_loss",
    "train_s",
}  # fmt: skip


def check_with_data(trial: TrialSpec, data: DataSet) -> tuple[type[Method], MethodConfig, Context]:
    """(method, config, context) for the data. `UserError` if the method cannot work with these images."""
    kind = load_method(trial.method)
    context = Context(
        len(data.train_ids),
        trial.optim.batch_size,
        data.classes,
        trial.data.image_size,
        trial.seed,
        class_images=class_sizes(data.train.labels[data.probe_ids], data.classes),
        accumulate=trial.optim.accumulate,
        student_has_learned=trial.student.has_learned,
    )
    config = kind.Config(**trial.config)
    kind.check(config, context)
    return kind, config, context


def build_method(
    trial: TrialSpec,
    data: DataSet,
    workspace: Workspace,
    where: torch.device,
    begin: bool = True,
) -> Method:
    """The trial's method with its student as it comes, on device `where`, and its teacher.

    `begin=False` skips `Method.begin`, which reads training images: a checkpoint contains its results.
    Raises `UserError` for settings or a teacher that do not fit.
    """
    kind, config, context = check_with_data(trial, data)
    check_on_device(trial, kind, context, world_size(), where)
    teachers = [
        load_teacher(spec, teacher_path(one, workspace.teachers))
        for spec, one in zip(trial.teachers, trial.of_each_teacher, strict=True)
    ]
    start = start_path(trial.student, workspace.teachers)
    method = make_method(trial, config, teachers, context, start)
    move(method, where)
    if begin:
        view = evaluation_view(trial.data)
        method.begin(TrainingImages(data, view, where, plain_encoder(workspace)))
    return method


def make_method(
    trial: TrialSpec,
    config: MethodConfig,
    teachers: Sequence[Teacher],
    context: Context,
    start: Path | None = None,
) -> Method:
    """The trial's method, its student with the weights in `start`; or what fits a head to its teacher."""
    if fits_head(trial):
        assert isinstance(config, MocoConfig)
        return HeadFit(config, teachers[0], context)
    student = build_student(trial.student, trial.seed, start)
    return load_method(trial.method)(config, student, teachers, context)


def move(method: Method, where: torch.device) -> None:
    """Move a method and its teachers to a device."""
    # Channels last on CPUs too: small and depthwise convolutions take half the time.
    for module in (method, *method.teachers):
        module.to(where).to(memory_format=torch.channels_last)


class Run:
    """A trial on this worker, resumed from its checkpoint if there is one, ready for its next epoch.

    Data and method are made from the trial unless they are given.
    """

    def __init__(
        self,
        trial: TrialSpec,
        workspace: Workspace,
        data: DataSet | None = None,
        method: Method | None = None,
    ) -> None:
        self.trial, self.workspace = trial, workspace
        self.device, self.workers = device(), world_size()
        self.data = data or on_each(lambda: open_data(trial.data, workspace.cache))
        check_optim(trial.optim, trial.epochs, len(self.data.train_ids), self.workers)
        self.checkpoints = Checkpoints(workspace.folder / "checkpoints", workspace.transfer)
        found = from_first(self._checkpoint)
        self.method = method or on_each(
            lambda: build_method(trial, self.data, workspace, self.device, begin=found is None)
        )
        synced = trial.optim.batch_norm == "sync" and self.workers > 1
        if synced:
            convert_sync_batch_norm(self.method)
            for teacher in self.method.teachers:
                convert_sync_batch_norm(teacher)
        self.local_buffers = self.workers > 1 and not synced
        self.views = Views(
            trial.views,
            self.data.train.size,
            trial.data.image_size,
            len(self.data.train),
            self.method.views,
            trial.seed,
            self.data.train.aspect,
        )
        self.steps = len(self.data.train_ids) // trial.optim.batch_size
        self.optimizer = make_optimizer(self.method, trial.optim)
        self.schedule = Schedule(self.optimizer, trial.optim, trial.epochs, self.steps)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.labels = torch.tensor(self.data.train.labels)
        self._views_of = functools.lru_cache(2)(self.views.epoch)  # of this epoch and the next
        self._lasts = [micro == trial.optim.accumulate - 1 for micro in range(trial.optim.accumulate)]
        shown = evaluation_view(trial.data, self.method.student.inputs)
        self.examiner = Examiner(trial.probe, self.data, shown, self.device)

        self.epoch = 0  # finished epochs
        self.metrics: dict[str, float] = {}  # of the last finished epoch
        self.best: list[float] | None = None  # [score, epoch]
        self.first_loss: float | None = None  # of the first step
        self.train_s = 0.0
        if found is not None:
            self._resume(*found)
        # After resuming. DDP copies the first worker's weights to all, but not its buffers. Buffers that a
        # method computed from the data may differ by rounding between machines.
        broadcast_buffers(self.method)
        self.compiled = compile_networks(self.method, trial.optim, self.device)
        self.targets = shared_targets(
            trial, workspace, self.data, self.method, self._views_of, self.device, self.compiled
        )
        self.parallel = data_parallel(self.method, trial.optim.accumulate)

    def train_epoch(self) -> None:
        """Train the next epoch, probe, and write the checkpoint. All workers get the same `metrics`.

        Raises `TrialFailed` if the loss diverges, `StorageLost` if the checkpoint cannot be written.
        """
        epoch = self.epoch + 1
        trained = self._train(epoch)
        if self.local_buffers:  # the first worker's buffers are probed and saved, so all continue with them
            broadcast_buffers(self.method)
        generators = from_each(rng_state())
        self.epoch = epoch
        due = epoch % self.trial.probe.every == 0 or epoch == self.trial.epochs
        probed = self._evaluate() if due else {}
        self.metrics, self.best = from_first(lambda: self._close(probed, trained, generators))
        set_rng_state(generators[rank()])  # so that the probe does not change the training

    def _close(
        self, probed: dict[str, float], trained: dict[str, float], generators: list[Any]
    ) -> tuple[dict[str, float], list[float] | None]:
        metrics, best = {**probed, **trained}, self.best
        if probed and (best is None or probed["score"] > best[0]):
            best = [probed["score"], self.epoch]
            self._save_student(probed["score"])
        self.checkpoints.save(
            self.epoch,
            {
                "trial": self.trial.signature(),
                "data": self.data.fingerprint,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "generators": generators,
                "metrics": metrics,
                "best": best,
                "first_loss": self.first_loss,
                "train_s": self.train_s,
            },
        )
        return metrics, best

    def _train(self, epoch: int) -> dict[str, float]:
        """Make the optimizer steps of an epoch; returns its losses, last learning rate and speed."""
        optim = self.trial.optim
        ids = order(self.data.train_ids, self.trial.seed, epoch, optim, rank(), self.workers)
        views = self._views_of(epoch)
        watch = LossWatch(epoch, self.steps, self.first_loss)
        done = (epoch - 1) * self.steps
        self.method.train()
        start = time.perf_counter()
        fetched = contextlib.closing(fetch(self.data.train, ids, self.device))
        shared = self.targets.epoch(epoch) if self.targets else contextlib.nullcontext()
        with tuned_kernels(self.device), fetched as batches, shared as targets:
            for update in range(done, done + self.steps):
                heartbeat(f"epoch {epoch}, step {update - done + 1}/{self.steps}")
                self.schedule.set(update)
                self.optimizer.zero_grad(set_to_none=True)
                watch.add([self.micro_batch(*next(batches), views, last, targets) for last in self._lasts])
                if optim.clip_grad is not None:
                    nn.utils.clip_grad_norm_(self.parameters, optim.clip_grad)
                self.optimizer.step()
                with torch.no_grad():
                    self.method.after_step((update + 1) / (self.steps * self.trial.epochs))
        losses = watch.means()  # waits for the device
        seconds = time.perf_counter() - start
        self.first_loss = watch.first_loss
        self.train_s += seconds
        speed = self.steps * optim.batch_size / seconds
        return {**losses, "lr": self.schedule.lr, "images_per_s": speed, "train_s": self.train_s}

    def micro_batch(
        self,
        images: Tensor,
        ids: np.ndarray,
        views: EpochViews,
        last: bool,
        targets: EpochTargets | None = None,
    ) -> Losses:
        """Forward and backward pass of a micro-batch. The `last` of a step averages gradients over workers.

        `images` are stored images (B, 3, S, S), uint8; `ids` (B,) are their indices in the data set;
        `targets` are at the same micro-batch.
        """
        seen = BatchViews(views, images, ids)
        batch = Batch(
            seen.own,
            sent(self.labels[ids], self.device),
            sent(torch.from_numpy(ids), self.device),
            targets.take() if targets is not None else None,
            seen.of,
        )
        with self.parallel.no_sync() if self.parallel and not last else contextlib.nullcontext():
            with autocast(self.trial.optim, self.device):
                losses: Losses = (self.parallel or self.method)(batch)
            (losses.total / self.trial.optim.accumulate).backward()
        if targets is not None and batch.targets is not None:
            targets.give(batch.targets)
        return Losses(losses.total.detach(), {name: term.detach() for name, term in losses.terms.items()})

    def _evaluate(self) -> dict[str, float]:
        self.method.eval()

        def encode(images: Tensor) -> Tensor:
            # In float32 on every device, as for the references, to be comparable.
            return self.method.features(channels_last(images), self.trial.probe.point)

        with uncompiled() if self.compiled else contextlib.nullcontext():
            return self.examiner.evaluate(encode)

    def _save_student(self, score: float) -> None:
        student = {
            name: tensor.contiguous() for name, tensor in self.method.student.model.state_dict().items()
        }
        facts = {"epoch": str(self.epoch), "score": repr(score), "trial": self.trial.signature()}
        facts |= {"raykd": "student", **self.method.student.written}
        path = self.workspace.folder / BEST

        def write() -> None:
            with replacing(path) as temporary:
                save_with_checksum(student, temporary, facts)

        with_retry(write, f"{path} cannot be written")
        self.workspace.transfer.push(path)

    def _checkpoint(self) -> tuple[int, dict[str, Any]] | None:
        """The checkpoint to resume; None if there is none, or if it is of another version.

        None also if the best student's file is damaged: only a training from the beginning makes it again.
        """
        found = self.checkpoints.load()
        lacks = sorted(_STATE - found[1].keys()) if found is not None else []
        if lacks:
            where = self.checkpoints.folder
            _log.warning("%s is of another version (no %s): the trial is trained again", where, lacks)
            return None
        if found is not None and found[1]["best"] is not None and not self._has_best():
            best = self.workspace.folder / BEST
            _log.warning("%s is damaged or gone: the trial is trained again from its beginning", best)
            return None
        return found

    def _has_best(self) -> bool:
        best, transfer = self.workspace.folder / BEST, self.workspace.transfer
        return is_whole(best) or (transfer.pull(best) and is_whole(best))

    def _resume(self, epoch: int, state: dict[str, Any]) -> None:
        self.epoch = epoch
        for key, mine in (("trial", self.trial.signature()), ("data", self.data.fingerprint)):
            if state[key] != mine:
                raise UserError(
                    "checkpoint",
                    f"{self.checkpoints.folder} holds another {key}'s",
                    value=state[key],
                    expected=f"{mine}; move the folder away, or use another one",
                )
        self.method.load_state_dict(state["method"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.metrics, self.best = state["metrics"], state["best"]
        self.first_loss, self.train_s = state["first_loss"], state["train_s"]
        generators = state["generators"]
        set_rng_state(generators[rank() % len(generators)])
