"""Global and patch features: distances by hand, a step by formula, and a ViT that teaches others."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from by_numpy import units
from loss_checks import check_gradient, check_half_precision
from small_methods import STUDENT, context, make_batch, make_method

from trainables.methods import load_method
from trainables.methods.global_patch import cosine_distance, value_distance
from trainables.networks.backbones import build_backbone
from trainables.spec.trial import ModelSpec
from trainables.teachers.teacher import Teacher

VIT = ModelSpec(arch="test_vit", options={"img_size": 48, "patch_size": 8})  # 6x6 patches
COARSE_VIT = ModelSpec(arch="test_vit", options={"img_size": 48, "patch_size": 16})  # 3x3 patches


def test_losses_by_hand() -> None:
    s, t = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.5, 2.0]])
    assert cosine_distance(s, t).item() == pytest.approx(1 - (0.8 + 0.6) / 2)
    # Differences 3, 2, -.5, -2.
    assert value_distance(s, t).item() == pytest.approx((2.5 + 1.5 + 0.125 + 1.5) / 4)
    for loss in (cosine_distance, value_distance):
        assert loss(t, t).item() == pytest.approx(0.0, abs=1e-6)
        check_gradient(loss, [s], [t])
        check_half_precision(loss, s, t)


def test_a_step_is_the_formula() -> None:
    weights = {"global_weight": 2.0, "patch_weight": 3.0, "cosine_weight": 0.7, "smooth_l1_weight": 0.2}
    method = make_method("global_patch", projection_layers=1, **weights)
    again, batch = copy.deepcopy(method), make_batch(method)
    (view,) = batch.views
    t, t_map = method.teacher.backbone(view), method.teacher.backbone.map(view)
    s = again.projection(again.student(view))
    again = copy.deepcopy(method)
    layer = again.patch_projection.layers[0]
    patches = (again.student.map(view).flatten(2).mT @ layer.weight.T + layer.bias).detach().numpy()
    targets = t_map.flatten(2).mT.numpy()
    whole = 1 - (units(s) * units(t)).sum(1).mean()
    cosine = 1 - (units(torch.tensor(patches)) * units(torch.tensor(targets))).sum(2).mean()
    d = np.abs(patches - targets)
    values = np.where(d < 1, d**2 / 2, d - 0.5).mean()
    losses = method(batch)
    found = {name: term.item() for name, term in losses.terms.items()}
    want = {"global": whole, "patch_cosine": cosine, "patch_smooth_l1": values}
    assert found == pytest.approx(want, rel=1e-4)
    total = 2 * whole + 3 * (0.7 * cosine + 0.2 * values)
    assert losses.total.item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("name", ["patch_regression", "global_local", "global_patch"])
@pytest.mark.parametrize("grid", ["teacher", "smaller"])
@pytest.mark.parametrize(("student", "side"), [(STUDENT, 2), (COARSE_VIT, 3)], ids=["to a CNN", "to a ViT"])
def test_a_vit_teaches_a_cnn_and_a_vit(
    name: str, grid: str, student: ModelSpec, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    module: Any = __import__(load_method(name).__module__, fromlist=["_"])
    real = module.on_one_grid

    def looked_at(*given: Any) -> Any:
        found = real(*given)
        seen.extend(tuple(one.shape[:2]) for one in found)
        return found

    monkeypatch.setattr(module, "on_one_grid", looked_at)
    kind = load_method(name)
    small = {"queue_size": 16} if "queue_size" in kind.Config.model_fields else {}
    config = kind.Config(grid=grid, **small, **kind.small)
    teacher = Teacher(build_backbone(VIT, 1), None)
    method = kind(config, build_backbone(student, 0), teacher, context()).train()
    batch = make_batch(method)
    losses = method(batch)
    losses.total.backward()
    assert seen == [(8, 36 if grid == "teacher" else side**2)] * 2
    assert torch.isfinite(losses.total)
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_student_that_is_the_teacher_matches_perfectly_on_either_grid() -> None:
    for grid in ("teacher", "smaller"):
        kind = load_method("global_patch")
        teacher, student = Teacher(build_backbone(VIT, 1), None), build_backbone(VIT, 1)
        method = kind(kind.Config(projection_layers=1, grid=grid), student, teacher, context()).eval()
        with torch.no_grad():
            for head in (method.projection, method.patch_projection):
                head.layers[0].weight.copy_(torch.eye(64))
            assert method(make_batch(method)).total.item() == pytest.approx(0.0, abs=1e-5)
