"""A training by lightly-train with a given teacher and student, watched step by step; for `peer.py`.

pretrain("queue_pseudo_labels", student, teacher, Recipe(...), images, out, seed=0) -> when steps began

Not all of its methods take a teacher of another library. So for the time of a training `get_teacher` of the
method's module gives `PeerTeacher`, and `training_step_impl` of its class also notes the time. Nothing else
of the package is changed, but for `reseeded`.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import math
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

os.environ.setdefault("LIGHTLY_TRAIN_EVENTS_DISABLED", "1")

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from trainables.methods.base import Batch, Method
from trainables.teachers.teacher import Teacher

LOADERS = 2  # worker processes of its DataLoader
REFERENCE_BATCH = 1536  # the batch that its learning rates are for; it scales them by the root
METHODS = {  # raykd's method -> lightly-train's, and its class
    "queue_pseudo_labels": ("distillationv1", "distillation", "Distillation"),
    "patch_regression": ("distillationv2", "distillationv2", "DistillationV2"),
    "global_local": ("distillationv3", "distillationv3", "DistillationV3"),
}


class Recipe(NamedTuple):
    """What both sides train with."""

    epochs: int
    batch: int
    size: int  # pixels of a view
    lr: float
    weight_decay: float
    queue: int  # rows; unused by patch_regression
    device: torch.device
    reseeded: bool  # do its loaders draw views of their own


class Moment(NamedTuple):
    """The clock and the CPU time until now, of this process and its ended children; seconds."""

    clock: float
    cpu: float


def now() -> Moment:
    """This moment."""
    spent = os.times()
    cpu = spent.user + spent.system + spent.children_user + spent.children_system
    return Moment(time.perf_counter(), cpu)


class PeerTeacher(nn.Module):
    """raykd's teacher with the functions that lightly-train asks of its own."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher
        self.embed_dim = teacher.feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        return self.teacher.features(images)

    def get_intermediate_layers(self, images: Tensor, n: int, reshape: bool) -> list[Tensor]:
        """The maps (B, D, h, w) of the last `n` blocks."""
        return self.teacher.features_and_last_maps(images, n)[1]

    def feature_dim(self) -> int:
        """D."""
        return self.embed_dim

    def forward_features(self, images: Tensor) -> dict[str, Tensor]:
        """The map (B, D, h, w), and the features."""
        features, (last,) = self.teacher.features_and_last_maps(images)
        return {"features": last, "pooled": features}

    def forward_pool(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features (B, D, 1, 1)."""
        return {"pooled_features": found["pooled"][:, :, None, None]}


def pretrain(
    method: str, student: nn.Module, teacher: Teacher, recipe: Recipe, images: Path, out: Path, seed: int
) -> list[Moment]:
    """Train `student`, a timm model, on a folder of images; when each step began."""
    import lightly_train

    module, its_method = _of(method)
    step = its_method.training_step_impl
    steps: list[Moment] = []

    def timed(self: Any, batch: Any, batch_idx: int) -> Any:
        steps.append(now())
        return step(self, batch, batch_idx)

    on_gpu = recipe.device.type == "cuda"
    scale = math.sqrt(recipe.batch / REFERENCE_BATCH)
    with (
        patch.object(module, "get_teacher", lambda *_, **__: PeerTeacher(teacher)),
        patch.object(its_method, "training_step_impl", timed),
        reseeded() if recipe.reseeded else contextlib.nullcontext(),
    ):
        lightly_train.pretrain(
            out=str(out),
            overwrite=True,
            data=str(images),
            model=student,
            method=METHODS[method][0],
            method_args={} if method == "patch_regression" else {"queue_size": recipe.queue},
            epochs=recipe.epochs,
            batch_size=recipe.batch,
            num_workers=LOADERS,
            devices=1,
            accelerator="gpu" if on_gpu else "cpu",
            precision="bf16-mixed" if on_gpu else "32-true",
            transform_args={"image_size": (recipe.size, recipe.size)},
            optim="adamw",
            optim_args={"lr": recipe.lr / scale, "weight_decay": recipe.weight_decay},
            seed=seed,
        )
    return steps


def first_step(
    method: str, ours: Method[Any], teacher: Teacher, batch: Batch, queue: int
) -> tuple[float, float]:
    """How far apart both sides are in one step, relative to the peer: losses, and the student's gradients.

    Both sides start from the weights of `ours` and see the same views; of the gradient it is the norm of the
    difference. Nothing is mixed: `ours` must not mix, and the peer's mixtures are left out. Both compute with
    channels last.
    """
    from lightly_train._models.embedding_model import EmbeddingModel
    from lightly_train._models.timm.timm import TIMMModelWrapper
    from lightly_train._optim.adamw_args import AdamWArgs

    module, its_method = _of(method)
    student = EmbeddingModel(TIMMModelWrapper(copy.deepcopy(ours.student.model)))
    args = {} if method == "patch_regression" else {"queue_size": queue}
    with patch.object(module, "get_teacher", lambda *_, **__: PeerTeacher(teacher)):
        theirs = its_method(its_method.method_args_cls()(**args), AdamWArgs(), student, len(batch.ids), 3)
    theirs.to(memory_format=torch.channels_last).train()
    heads = [name for name, _ in theirs.named_children() if name.startswith("student_projection_head")]
    own = [name for name in ("projection", "patch_projection") if hasattr(ours, name)]
    for name, mine in zip(heads, own, strict=True):
        weights = list(getattr(ours, mine).parameters())
        for theirs_, ours_ in zip(getattr(theirs, name).parameters(), weights, strict=True):
            theirs_.data.copy_(ours_.data)
    with patch.object(its_method, "_mixup_data", staticmethod(lambda views: views)):
        its_loss = theirs.training_step_impl({"views": list(batch.views)}, 0).loss
    loss = ours(batch).total
    gradients = []
    for value, network in ((its_loss, student.wrapped_model.get_model()), (loss, ours.student.model)):
        value.backward()
        found = [weight.grad.flatten() for weight in network.parameters() if weight.grad is not None]
        gradients.append(torch.cat(found))
    its_gradient, gradient = gradients
    apart = float((gradient - its_gradient).norm() / its_gradient.norm())
    return abs(float(loss / its_loss) - 1), apart


def _of(method: str) -> tuple[Any, Any]:
    """lightly-train's module of a method, and its class."""
    _, place, kind = METHODS[method]
    module = importlib.import_module(f"lightly_train._methods.{place}.{place}")
    return module, getattr(module, kind)


@contextlib.contextmanager
def reseeded() -> Iterator[None]:
    """Each of its loaders draws random views of its own, other ones in each epoch.

    albumentations draws from generators that a loader inherits from the main process, where they stand still.
    So by itself every loader draws the numbers of the others, in every epoch those of the first.
    """
    module: Any = importlib.import_module("lightly_train._transforms.view_transform")
    call = module.ViewTransform.__call__

    def own(self: Any, images: Any) -> Any:
        info: Any = get_worker_info()
        if getattr(self, "seed_of_loader", None) != info.seed:
            self.seed_of_loader = info.seed
            _reseed(self.transform, random.Random(info.seed))
        return call(self, images)

    with patch.object(module.ViewTransform, "__call__", own):
        yield


def _reseed(transform: Any, seeds: random.Random) -> None:
    transform.random_generator = np.random.default_rng(seeds.getrandbits(64))
    transform.py_random = random.Random(seeds.getrandbits(64))
    for inner in getattr(transform, "transforms", ()):
        _reseed(inner, seeds)
