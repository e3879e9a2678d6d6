"""What the tests of methods are made of: small networks, small batches, and teachers of every kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.backbones import build_backbone
from trainables.method import Batch, Context, Method, load_method
from trainables.parts.heads import projection_head
from trainables.teachers import Teacher
from trainables.trial import ModelSpec

torch.set_num_threads(1)  # the networks are too small for more to pay

SIDE = 48  # pixels: enough for the test networks to end in a 2x2 map
STUDENT = ModelSpec(arch="test_efficientnet", options={"channel_multiplier": 0.25})
# As narrow as timm's ResNet goes; batch norm, so that workers and modes can matter.
TEACHER = ModelSpec(arch="test_resnet", options={"channels": [8, 12, 16, 24]})


def context(**changed: Any) -> Context:
    values: dict[str, Any] = {"train_size": 64, "batch_size": 8, "classes": 4, "image_size": SIDE, "seed": 3}
    return Context(**{**values, **changed})


def make_teacher(batch_norm: str = "eval", seed: int = 5, head_dim: int = 12) -> Teacher:
    backbone = build_backbone(TEACHER, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = projection_head(backbone.feature_dim, 20, head_dim)
        # Running statistics as after a training: not 0 and 1.
        backbone.train()
        for _ in range(3):
            backbone(torch.randn(8, 3, SIDE, SIDE))
    return Teacher(backbone, head, batch_norm)


def make_method(
    name: str, around: Context | None = None, teacher: Teacher | None = None, **config: Any
) -> Method:
    """The method with a small queue and a fast mean student, where it has them."""
    kind = load_method(name)
    small = {"queue_size": 16, "momentum": 0.5, "head_dim": 12}
    fields = {key: value for key, value in small.items() if key in kind.Config.model_fields}
    around = around or context()
    if teacher is None and kind.needs & {"teacher", "teacher_head"}:
        teacher = make_teacher()
    method = kind(kind.Config(**{**fields, **config}), build_backbone(STUDENT, around.seed), teacher, around)
    return method.train()


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
