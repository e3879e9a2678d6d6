"""Every method shows a teacher of another size the views that were made for it, and none of another side."""

from __future__ import annotations

import pytest
import torch
from small_methods import SIDE, make_batch, make_method, make_teacher
from torch import Tensor

from trainables.methods import load_method, methods
from trainables.methods.base import TAUGHT
from trainables.spec.inputs import Inputs

LARGE = Inputs(image_size=SIDE + 16)
NAMES = [name for name, method in methods().items() if method.needs & TAUGHT]


@pytest.mark.parametrize("name", NAMES)
def test_its_views_reach_a_larger_teacher(name: str) -> None:
    teacher = make_teacher(classes=4)
    teacher.backbone.feed(LARGE)
    method = make_method(name, teacher=teacher)
    seen: list[Tensor] = []
    hook = teacher.backbone.model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = make_batch(method)
    large = [torch.randn(len(view), 3, SIDE + 16, SIDE + 16) for view in batch.views]
    asked: list[Inputs] = []

    def views_for(inputs: Inputs) -> list[Tensor]:
        asked.append(inputs)
        return large

    losses = method(batch._replace(views_for=views_for))
    hook.remove()
    assert losses.total.isfinite() and seen and {view.shape[2] for view in seen} == {SIDE + 16}
    if load_method(name).mixes(method.config):
        return  # it shows its own mixtures of the student's views
    assert set(asked) == {LARGE}
    assert all(any(view.shape == one.shape and torch.equal(view, one) for one in large) for view in seen)
