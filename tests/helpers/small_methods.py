"""What the tests of methods are made of: small networks, small batches, and teachers of every kind."""

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

torch.set_num_threads(1)  # the networks are too small for more to pay

SIDE = 48  # pixels: enough for the test networks to end in a 2x2 map
STUDENT = ModelSpec(arch="test_efficientnet", options={"channel_multiplier": 0.25})
# As narrow as timm's ResNet goes; batch norm, so that workers and modes can matter.
TEACHER = ModelSpec(arch="test_resnet", options={"channels": [8, 12, 16, 24]})
# Fields that make a method small enough for tests, by their names, and of one method.
SMALL: dict[str, Any] = {"queue_size": 16, "momentum": 0.5, "head_dim": 12}
SMALL_OF: dict[str, dict[str, Any]] = {
    # Dropout draws from the process's generator, which a method's own state does not hold.
    "autoencoder": {"dropout": 0.0},
    "oss_style": {"teacher_arch": TEACHER.arch, "teacher_options": TEACHER.options},
    **{name: {"hidden": 24} for name in ("barlow", "xd", "sacl")},
    "byol": {"hidden": 64},  # a narrower predictor has gradients so steep that a rounding shows in them
    "projector": {"groups": 4},
    "rekd_style": {"clusters": 4},
    "rrkd": {"anchor_count": 9, "anchors_per_class": 2},
    # Published weights are for their own learning rates: here a plain step of .05 would leap, and a rounding
    # of the loss be as much larger as the loss.
    "at": {"weight": 1.0},
    "fitnets": {"weight": 1.0},
    "lpkd": {"locality_weight": 0.1},
    "nst": {"weight": 1.0},
    "pkt": {"weight": 1.0},
    "rkd": {"distance_weight": 1.0, "angle_weight": 2.0},
    "spkd": {"weight": 10.0},
}
# Teachers of methods with a choice that only some can serve: as wide as the student.
TEACHER_OF = {"projector": ModelSpec(arch="test_resnet", options={"channels": [8, 12, 16, 64]})}


def context(**changed: Any) -> Context:
    values: dict[str, Any] = {"train_size": 64, "batch_size": 8, "classes": 4, "image_size": SIDE, "seed": 3}
    return Context(**{**values, **changed})


def make_teacher(
    batch_norm: str = "eval", seed: int = 5, head_dim: int = 12, spec: ModelSpec = TEACHER, classes: int = 0
) -> Teacher:
    """A teacher with a head and, where there are `classes`, a classifier for so many."""
    backbone = build_backbone(spec, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = projection_head(backbone.feature_dim, 20, head_dim)
        # Running statistics as after a training: not 0 and 1.
        backbone.train()
        for _ in range(3):
            backbone(torch.randn(8, 3, SIDE, SIDE))
        classifier = nn.Linear(backbone.feature_dim, classes) if classes else None
    return Teacher(backbone, head, batch_norm, classifier=classifier)


def make_method(
    name: str, around: Context | None = None, teacher: Teacher | None = None, **config: Any
) -> Method:
    """The method with a small queue and a fast mean student, where it has them; begun, in train mode."""
    kind = load_method(name)
    small = {**SMALL, **SMALL_OF.get(name, {})}
    fields = {key: value for key, value in small.items() if key in kind.Config.model_fields}
    around = around or context()
    if teacher is None and kind.needs & TAUGHT:
        teacher = make_teacher(spec=TEACHER_OF.get(name, TEACHER), classes=around.classes)
    method = kind(kind.Config(**{**fields, **config}), build_backbone(STUDENT, around.seed), teacher, around)
    method.begin(training_images(around))
    return method.train()


def training_images(around: Context) -> TrainingImages:
    """Noise to begin on: as many images as `around` says, classes in turn, no label for every ninth."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (around.train_size, 3, SIDE, SIDE), dtype=np.uint8)
    labels = np.arange(around.train_size) % max(around.classes, 1)
    labels[::9] = -1
    train = SimpleNamespace(take=lambda ids: torch.from_numpy(pixels[ids]), labels=labels, aspect=None)
    data = SimpleNamespace(
        train=train, train_ids=np.arange(around.train_size), classes=around.classes, fingerprint="noise"
    )
    return TrainingImages(cast(DataSet, data), SIDE, torch.device("cpu"))


def make_batch(method: Method | type[Method], size: int = 8, seed: int = 0, classes: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, 3, SIDE, SIDE, generator=generator)
    views: list[Tensor] = [
        base + 0.3 * torch.randn(base.shape, generator=generator) for _ in range(method.views)
    ]
    return Batch(views, torch.arange(size) % classes, torch.arange(size))


def train_steps(method: Method, steps: int, first: int = 0, lr: float = 0.05) -> list[float]:
    """Plain SGD steps; the total loss of each."""
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
    """Adam on one batch that comes again: `total` and the terms of each step.

    The queue stays, or the batch would be its own rival.
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
