"""What a trial's method asks its teacher in training, shared with all trials that ask the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.core.workers import rank, world_size
from trainables.data.data_sets import DataSet
from trainables.data.encode import EncodeImages, encode_images
from trainables.data.loader import images_on, order
from trainables.methods.base import Method
from trainables.spec.trial import OptimSpec, TrialSpec
from trainables.targets.plain import PlainTargets
from trainables.targets.room import FOLDER
from trainables.targets.series import augmented, can_be_shared
from trainables.targets.sharing import Answers, SharedTargets
from trainables.targets.store import TargetStore
from trainables.teachers.teacher import Ask
from trainables.training.workspace import Workspace
from trainables.views.augmented import EpochViews


def channels_last(images: Tensor) -> Tensor:
    """The same images with channels last in memory, which makes convolutions faster."""
    return images.contiguous(memory_format=torch.channels_last)


def in_bfloat16(optim: OptimSpec, device: torch.device) -> bool:
    """Whether a trial computes in bfloat16 under autocast on this device."""
    return optim.precision == "bfloat16" or (optim.precision == "auto" and device.type == "cuda")


def autocast(optim: OptimSpec, device: torch.device) -> torch.autocast:
    """What a trial's method, and its teacher, are called under."""
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16(optim, device))


def plain_encoder(workspace: Workspace) -> EncodeImages:
    """What encodes images without augmentation: what a teacher says of them is read where it is known."""
    if workspace.targets == "off":
        return encode_images
    return PlainTargets(TargetStore(workspace.cache / FOLDER, workspace.targets))


def shared_targets(
    trial: TrialSpec,
    workspace: Workspace,
    data: DataSet,
    method: Method,
    views: Callable[[int], EpochViews],
    device: torch.device,
    compiled: bool = False,
) -> SharedTargets | None:
    """The shared answers of a trial; None where they are off, or where nothing can be shared.

    `views(epoch)` gives the views of an epoch. `compiled`: whether the teachers are.
    """
    teachers = method.teachers
    asks = [
        Ask(what, view, at)
        for what, view in method.asks(method.config)
        for at in range(len(teachers))
        if can_be_shared(teachers[at])
    ]
    if workspace.targets == "off" or not asks:
        return None

    mine, workers = rank(), world_size()  # not when it is asked: inside `from_first` there seems to be one

    def ids_of(epoch: int) -> Sequence[np.ndarray]:
        return order(data.train_ids, trial.seed, epoch, trial.optim, mine, workers)

    def answers_to(epoch: int, ids: np.ndarray, wanted: frozenset[Ask]) -> Answers:
        images = images_on(data.train, ids, device)
        seen = [channels_last(view) for view in views(epoch).apply_all(images, ids)]  # as in a step
        with autocast(trial.optim, device):
            return {ask: teachers[ask.teacher].answer(ask.what, seen[ask.view]) for ask in wanted}

    half = in_bfloat16(trial.optim, device)
    series = {
        ask: augmented(
            trial, data, teachers[ask.teacher], ask.what, ask.view, device, half, compiled, workers
        )
        for ask in asks
    }
    store = TargetStore(workspace.cache / FOLDER, workspace.targets)
    return SharedTargets(store, series, ids_of, answers_to, trial.epochs, device)
