"""What a trial's method asks its teacher in training, shared with all trials that ask the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.core.workers import rank, world_size
from trainables.data.data_sets import DataSet
from trainables.data.encode import Encode, EncodeImages, encode_images
from trainables.data.loader import images_on, order
from trainables.data.store_images import Images
from trainables.methods.base import Method
from trainables.spec.inputs import Inputs, Interpolation
from trainables.spec.trial import OptimSpec, TrialSpec
from trainables.targets.plain import PlainTargets
from trainables.targets.room import FOLDER
from trainables.targets.series import augmented, can_be_shared
from trainables.targets.sharing import Answers, SharedTargets
from trainables.targets.store import TargetStore
from trainables.teachers.teacher import Ask, Teacher
from trainables.training.workspace import Workspace
from trainables.views.augmented import EpochViews, PlainView


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
    """What encodes images without augmentation: what a teacher says of them is read where it is known.

    A teacher that sees another size is shown the same part of the stored images at its own size.
    """
    encoder: EncodeImages = encode_images
    if workspace.targets != "off":
        encoder = PlainTargets(TargetStore(workspace.cache / FOLDER, workspace.targets))

    def at_own_size(
        encode: Encode, images: Images, ids: np.ndarray, view: PlainView | int, device: torch.device
    ) -> Tensor:
        teacher = getattr(encode, "__self__", None)
        size = teacher.backbone.inputs.image_size if isinstance(teacher, Teacher) else None
        if isinstance(teacher, Teacher) and size is not None:
            kept = view if isinstance(view, int) else view.kept
            view = PlainView(size, kept, teacher.backbone.inputs.interpolation)
        return encoder(encode, images, ids, view, device)

    return at_own_size


class BatchViews:
    """The views of stored images `images` (B, 3, S, S) uint8 with these ids, each made when it is asked for.

    A teacher whose answers are known is not asked, so nothing is made for it.
    """

    def __init__(self, views: EpochViews, images: Tensor, ids: np.ndarray) -> None:
        self._views, self._images, self._ids = views, images, ids
        self._made: dict[tuple[int, Interpolation], list[Tensor]] = {}

    @functools.cached_property
    def own(self) -> list[Tensor]:
        """As the student sees them."""
        return [channels_last(view) for view in self._views.apply_all(self._images, self._ids)]

    def of(self, inputs: Inputs) -> list[Tensor]:
        """As a network that takes `inputs` sees them; it resizes those that exist at one size alone."""
        size = inputs.image_size or self._views.size_out
        if size == self._views.size_out:
            return self.own
        key = size, inputs.interpolation
        if key not in self._made:
            with torch.autocast(self._images.device.type, enabled=False):
                larger = self._views.at(self._images, self._ids, *key)
                self._made[key] = [
                    channels_last(view) if view is not None else self.own[number]
                    for number, view in enumerate(larger)
                ]
        return self._made[key]


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
        seen = BatchViews(views(epoch), images, ids)  # as in a step
        shown = {at: seen.of(teachers[at].backbone.inputs) for at in {ask.teacher for ask in wanted}}
        with autocast(trial.optim, device):
            return {
                ask: teachers[ask.teacher].answer(ask.what, shown[ask.teacher][ask.view]) for ask in wanted
            }

    half = in_bfloat16(trial.optim, device)
    series = {
        ask: augmented(
            trial, data, teachers[ask.teacher], ask.what, ask.view, device, half, compiled, workers
        )
        for ask in asks
    }
    store = TargetStore(workspace.cache / FOLDER, workspace.targets)
    return SharedTargets(store, series, ids_of, answers_to, trial.epochs, device)
