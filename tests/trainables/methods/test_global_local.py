"""Global and local similarities: the local loss by numpy, a step by formula, and images of one patch."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from by_numpy import softmax, units
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient, check_half_precision
from small_methods import STUDENT, TEACHER, context, make_batch, make_method

from trainables.core.errors import UserError
from trainables.methods.global_local import GlobalLocal, local_loss
from trainables.networks.backbones import backbone_facts, build_backbone
from trainables.spec.trial import ModelSpec
from trainables.teachers.teacher import Teacher


def by_numpy(s: torch.Tensor, t: torch.Tensor, temperature: float) -> float:
    """Image by image and patch by patch."""
    found = []
    for student, teacher in zip(units(s), units(t), strict=True):
        p_s, p_t = (softmax(x @ x.T / temperature) for x in (student, teacher))
        found += [(p_t[i] * np.log(p_t[i] / p_s[i])).sum() for i in range(len(p_t))]
    return float(np.mean(found))


def test_loss_by_hand() -> None:
    """Two patches: alike for the student (cosine 1), at right angles for the teacher."""
    s, t = torch.tensor([[[1.0, 0.0], [2.0, 0.0]]]), torch.tensor([[[0.0, 3.0], [1.0, 0.0]]])
    p = 1 / (1 + math.exp(-1 / 0.5))
    want = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert local_loss(s, t, 0.5).item() == pytest.approx(want, rel=1e-5)


@given(st.integers(1, 4), st.integers(1, 9), st.floats(0.05, 2), st.integers(0, 1000))
def test_zero_for_a_turned_space_and_else_the_formula(
    size: int, patches: int, temperature: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    s, t = (torch.randn(size, patches, dim, generator=generator) for dim in (5, 4))
    assert local_loss(s, t, temperature).item() == pytest.approx(
        by_numpy(s, t, temperature), rel=1e-3, abs=1e-5
    )
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    assert local_loss(3 * t @ turn, t, temperature).item() == pytest.approx(0.0, abs=1e-4)


def test_gradient_and_precision() -> None:
    s, t = torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    check_gradient(lambda *x: local_loss(*x, 0.5), [s], [t])
    check_half_precision(lambda *x: local_loss(*x, 0.07), s, t)


def test_a_step_is_the_formula() -> None:
    method = make_method(
        "global_local", mixup_alpha=0.0, local_weight=3.0, local_temperature=0.2, temperature=0.1
    )
    again, batch = copy.deepcopy(method), make_batch(method)
    (view,) = batch.views
    features, t_map = method.teacher.backbone(view), method.teacher.backbone.map(view)
    student = again.student
    s = units(again.projection(student(view)))
    t = units(features)
    rows = np.concatenate([t, np.zeros_like(t)])  # of a queue of 16 that is empty
    p_t, p_s = (softmax(x @ rows.T / 0.1) for x in (t, s))
    whole = (p_t * np.log(p_t / p_s)).sum() / 8
    again = copy.deepcopy(method)
    layer = again.patch_projection.layers[0]
    patches = again.student.map(view).flatten(2).mT @ layer.weight.T + layer.bias
    local = by_numpy(patches, t_map.flatten(2).mT, 0.2)
    losses = method(batch)
    assert losses.terms["global"].item() == pytest.approx(whole, rel=1e-4)
    assert losses.terms["local"].item() == pytest.approx(local, rel=1e-3)
    assert losses.total.item() == pytest.approx(whole + 3 * local, rel=1e-3)


def test_an_image_of_one_patch_is_refused() -> None:
    facts = {"student": backbone_facts(STUDENT, 16), "teacher": backbone_facts(TEACHER, 48)}
    with pytest.raises(UserError, match=r"data\.image_size: .*the student has one patch.*stem: small"):
        GlobalLocal.check(GlobalLocal.Config(queue_size=16), context(image_size=16, **facts))
    # A trial that nobody checked beforehand.
    with pytest.raises(UserError, match="the student has one patch"):
        make_method("global_local", context(image_size=16))
    vit = ModelSpec(arch="test_vit", options={"img_size": 48, "patch_size": 48})
    with pytest.raises(UserError, match="the teacher has one patch"):
        make_method("global_local", teacher=Teacher(build_backbone(vit, 0), None))


def test_memory_grows_with_the_square_of_the_patches() -> None:
    def asked(side: int, grid: str) -> int:
        facts = {"student": backbone_facts(STUDENT, 48), "teacher": backbone_facts(TEACHER, side)}
        config = GlobalLocal.Config(queue_size=16, grid=grid)
        return GlobalLocal.memory(config, context(**facts))[1].step

    assert asked(128, "teacher") == 16 * asked(64, "teacher") == 6 * 4 * 8 * 4**4
    assert asked(128, "smaller") == 6 * 4 * 8 * 2**4
