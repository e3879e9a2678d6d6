"""Small networks, batches and teachers, with which a method can be tried out in seconds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from trainables.data.data_sets import DataSet
from trainables.data.encode import TrainingImages
from trainables.methods import load_method
from trainables.methods.base import TAUGHT, Batch, Context, Method
from trainables.networks.backbones import build_backbone
from trainables.networks.heads import projection_head
from trainables.spec.trial import ModelSpec
from trainables.teachers.teacher import Teacher

SIDE = 48  # pixels; the last map of the test networks is 2x2 then
STUDENT = ModelSpec(arch="test_efficientnet", options={"channel_multiplier": 0.25})
# The narrowest ResNet of timm. It has batch norm, so workers and modes can make a difference.
TEACHER = ModelSpec(arch="test_resnet", options={"channels": [8, 12, 16, 24]})
# As wide as the student, for settings that ask for this.
WIDE_TEACHER = ModelSpec(arch="test_resnet", options={"channels": [8, 12, 16, 64]})
# Settings that make a method small, wherever it has fields of these names; `Method.small` adds its own.
SMALL: dict[str, Any] = {"queue_size": 16, "momentum": 0.5, "head_dim": 12}


def context(**changed: Any) -> Context:
    """A small run; `changed` are fields of `Context` with other values."""
    values: dict[str, Any] = {"train_size": 64, "batch_size": 8, "classes": 4, "image_size": SIDE, "seed": 3}
    return Context(**{**values, **changed})


def make_teacher(
    batch_norm: str = "eval", seed: int = 5, head_dim: int = 12, spec: ModelSpec = TEACHER, classes: int = 0
) -> Teacher:
    """A teacher with a head and, if `classes` is above 0, a classifier for so many classes."""
    backbone = build_backbone(spec, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = projection_head(backbone.feature_dim, 20, head_dim)
        # Running statistics other than 0 and 1, as after a training.
        backbone.train()
        for _ in range(3):
            backbone(torch.randn(8, 3, SIDE, SIDE))
        classifier = nn.Linear(backbone.feature_dim, classes) if classes else None
    return Teacher(backbone, head, batch_norm, classifier=classifier)


def make_method(
    name: str, around: Context | None = None, teacher: Teacher | None = None, **config: Any
) -> Method:
    """The method with its small settings, changed by `config`; begun, and in train mode."""
    kind = load_method(name)
    fields = {key: value for key, value in SMALL.items() if key in kind.Config.model_fields} | dict(
        kind.small
    )
    around = around or context()
    if teacher is None and kind.needs & TAUGHT:
        teacher = make_teacher(classes=around.classes)
    method = kind(kind.Config(**{**fields, **config}), build_backbone(STUDENT, around.seed), teacher, around)
    method.begin(training_images(around))
    return method.train()


def training_images(around: Context) -> TrainingImages:
    """`around.train_size` images of noise with the classes in turn; every ninth has no label."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (around.train_size, 3, SIDE, SIDE), dtype=np.uint8)
    labels = np.arange(around.train_size) % max(around.classes, 1)
    labels[::9] = -1
    train = SimpleNamespace(
        take=lambda ids: torch.from_numpy(pixels[ids]), advise=lambda ids: None, labels=labels, aspect=None
    )
    data = SimpleNamespace(
        train=train, train_ids=np.arange(around.train_size), classes=around.classes, fingerprint="noise"
    )
    return TrainingImages(cast(DataSet, data), SIDE, torch.device("cpu"))


def make_batch(method: Method | type[Method], size: int = 8, seed: int = 0, classes: int = 4) -> Batch:
    """A batch of noise with as many views as the method takes; the views of an image are similar."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, 3, SIDE, SIDE, generator=generator)
    views: list[Tensor] = [
        base + 0.3 * torch.randn(base.shape, generator=generator) for _ in range(method.views)
    ]
    return Batch(views, torch.arange(size) % classes, torch.arange(size))


def train_steps(method: Method, steps: int, first: int = 0, lr: float = 0.05) -> list[float]:
    """The total loss of each of some plain SGD steps, every one on a new batch."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr)
    totals = []
    for step in range(first, first + steps):
        losses = method(make_batch(method, seed=step))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        method.after_step((step + 1) / 100)
        totals.append(losses.total.item())
    return totals


def adam_steps(
    method: Method, steps: int = 15, lr: float = 3e-3, batch: Batch | None = None
) -> list[dict[str, float]]:
    """`total` and the terms of each of some Adam steps on one batch.

    `after_step` is not called: keys of the same batch must not join the queue.
    """
    batch = batch or make_batch(method)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr)
    found = []
    for _ in range(steps):
        losses = method(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        found.append({name: term.item() for name, term in {"total": losses.total, **losses.terms}.items()})
    return found
