"""RETRO: its losses by formula, paper against code, what is reused and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient
from small_methods import SIDE, STUDENT, TEACHER, context, make_batch, make_method, make_teacher, train_steps
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.core.numerics import unit
from trainables.methods.parts.losses import consistency, info_nce
from trainables.methods.parts.momentum_encoder import MomentumEncoder
from trainables.methods.retro import Retro
from trainables.networks.backbones import backbone_facts, build_backbone
from trainables.spec.trial import ModelSpec

# --- the distillation term ----------------------------------------------------------------------------------


def test_consistency_by_hand() -> None:
    q = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    t = torch.tensor([[0.0, 1.0], [0.8, 0.6]])
    # sums over dimensions: 1 + 1 and .04 + .04; mean over the batch
    assert consistency(q, t).item() == pytest.approx((2.0 + 0.08) / 2)
    assert consistency(q, q).item() == 0.0
    assert consistency(q, -q).item() == pytest.approx(4.0)


@given(st.integers(1, 8), st.integers(1, 20), st.integers(0, 1000))
def test_consistency_is_two_minus_two_cosines(batch: int, dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(batch, dim, generator=generator) for _ in range(2))
    expected = (2 - 2 * F.cosine_similarity(x, y)).mean()
    torch.testing.assert_close(consistency(unit(x), unit(y)), expected, rtol=1e-4, atol=1e-5)


def test_consistency_sends_no_gradient_to_the_teacher() -> None:
    q, t = torch.randn(2, 4, 3)
    (gradient,) = check_gradient(consistency, [q], [t])
    torch.testing.assert_close(gradient, 2 * (q - t).double() / 4)


def test_distillation_is_zero_for_the_teacher_itself_and_an_identity_adapter() -> None:
    teacher = make_teacher("batch")
    student = build_backbone(TEACHER, 0)
    student.load_state_dict(
        teacher.backbone.state_dict(), strict=False
    )  # the teacher keeps no running statistics
    method = Retro(Retro.Config(queue_size=16, adapter="linear"), student, teacher, context()).train()
    with torch.no_grad():
        method.adapter.layers.weight.copy_(torch.eye(teacher.feature_dim))  # type: ignore[union-attr,operator]
        method.adapter.layers.bias.zero_()  # type: ignore[union-attr,operator]
    assert method(make_batch(method)).terms["distillation"].item() == pytest.approx(0.0, abs=1e-8)


# --- the whole step -----------------------------------------------------------------------------------------


def parts_of(method: Any, views: list[Tensor]) -> dict[str, Tensor]:
    """q, t, k of both views by formula, from a copy, so that no statistics of `method` move."""
    again, teacher = copy.deepcopy(method), method.teacher
    mean = again.mean.parts
    adapter = again.adapter if method.config.fidelity == "code" else mean["adapter"]
    found = {}
    for number, view in enumerate(views, 1):
        found[f"q{number}"] = unit(teacher.head(again.adapter(again.student, view)))
        found[f"t{number}"] = unit(teacher.head(teacher.backbone(view)))
        found[f"k{number}"] = unit(teacher.head(adapter(mean["student"], view)))
    return {name: value.detach() for name, value in found.items()}


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_step_is_the_papers_formula(symmetric: bool) -> None:
    method = make_method("retro", gamma=0.7, temperature=0.3, symmetric=symmetric)
    train_steps(method, 1)
    batch = make_batch(method, seed=5)
    p = parts_of(method, batch.views)
    rows = method.queue.rows.clone()
    losses = method(batch)
    distillation = (p["q1"] - p["t1"]).square().sum(1).mean() + (p["q2"] - p["t2"]).square().sum(1).mean()
    contrastive = info_nce(p["q1"], p["k2"], rows, 0.3)
    if symmetric:
        contrastive = (contrastive + info_nce(p["q2"], p["k1"], rows, 0.3)) / 2
    torch.testing.assert_close(losses.terms["distillation"], distillation)
    torch.testing.assert_close(losses.terms["contrastive"], contrastive)
    torch.testing.assert_close(losses.total, distillation + 0.7 * contrastive)
    method.after_step(0.5)
    torch.testing.assert_close(method.queue.rows[8:16], p["k2"])  # one key an image


def test_the_published_codes_step() -> None:
    method = make_method("retro", fidelity="code", gamma=0.7, temperature=0.3)
    train_steps(method, 1)
    assert set(method.mean.parts) == {"student"}  # the adapter is shared, not averaged
    batch = make_batch(method, seed=5)
    p = parts_of(method, batch.views)
    rows = method.queue.rows.clone()
    losses = method(batch)
    # View 1 of the student against both views of the teacher; no gamma, one contrastive term.
    distillation = (p["q1"] - p["t1"]).square().sum(1).mean() + (p["q1"] - p["t2"]).square().sum(1).mean()
    contrastive = info_nce(p["q1"], p["k2"], rows, 0.3)
    torch.testing.assert_close(losses.total, distillation + contrastive)


@pytest.mark.parametrize("share", [8, 3])
def test_the_published_total_is_reached_by_a_weight_of_the_batch(share: int) -> None:
    """The code adds `MSELoss(reduction="sum")` of both pairs to the cross-entropy, over a GPU's batch."""
    method = make_method("retro", fidelity="code", consistency_weight=float(share), temperature=0.3)
    train_steps(method, 1)
    batch = make_batch(method, size=share, seed=5)
    p, rows = parts_of(method, batch.views), method.queue.rows.clone()
    summed = sum(F.mse_loss(p["q1"], p[t], reduction="sum") for t in ("t1", "t2"))
    published = info_nce(p["q1"], p["k2"], rows, 0.3) + summed
    torch.testing.assert_close(method(batch).total, published)
    assert published > 2 * make_method("retro", fidelity="code", temperature=0.3)(batch).total


def test_the_papers_consistency_has_a_weight_too() -> None:
    weighted, plain = (make_method("retro", consistency_weight=w, gamma=0.7) for w in (2.5, 1.0))
    batch = make_batch(plain)
    ours, theirs = weighted(batch), plain(batch)
    torch.testing.assert_close(ours.total - theirs.total, 1.5 * theirs.terms["distillation"])
    assert Retro.Config().consistency_weight == 1.0


def test_paper_averages_the_adapter() -> None:
    method = make_method("retro")
    assert set(method.mean.parts) == {"student", "adapter"}
    start = method.adapter.layers.weight.clone()
    train_steps(method, 1)
    torch.testing.assert_close(
        method.mean.parts["adapter"].layers.weight, (start + method.adapter.layers.weight) / 2
    )


def test_without_a_momentum_encoder_the_student_gives_the_keys() -> None:
    method = make_method("retro", mean_student=False, gamma=1.0)
    assert not any(isinstance(module, MomentumEncoder) for module in method.modules())
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    q1, q2 = (unit(method.teacher.head(again.adapter(again.student, view))) for view in batch.views)
    rows = method.queue.rows.clone()
    temperature = method.config.temperature
    expected = (info_nce(q1, q2, rows, temperature) + info_nce(q2, q1, rows, temperature)) / 2
    torch.testing.assert_close(method(batch).terms["contrastive"], expected)
    method.after_step(0.5)
    torch.testing.assert_close(method.queue.rows[:8], q2.detach())


# --- what is reused -----------------------------------------------------------------------------------------


def test_gradient_passes_through_the_frozen_head_and_leaves_it() -> None:
    method = make_method("retro")
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    train_steps(method, 3)
    assert all(torch.equal(before[name], value) for name, value in method.teacher.state_dict().items())
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.adapter.parameters())
    assert not any(name.startswith(("teacher", "head")) for name in method.state_dict())


@pytest.mark.parametrize("choice", ["tuned", "fresh"])
def test_a_head_of_its_own_is_trained_and_averaged(choice: str) -> None:
    teacher = make_teacher()
    method = make_method("retro", teacher=teacher, head=choice)
    assert isinstance(teacher.head, nn.Sequential)
    same = torch.equal(method.head[0].weight, teacher.head[0].weight)  # type: ignore[arg-type]
    assert same == (choice == "tuned")
    start, taught = method.head[0].weight.clone(), teacher.head[0].weight.clone()  # type: ignore[operator]
    train_steps(method, 1)
    assert not torch.equal(method.head[0].weight, start)
    assert torch.equal(teacher.head[0].weight, taught)  # type: ignore[arg-type]
    torch.testing.assert_close(method.mean.parts["head"][0].weight, (start + method.head[0].weight) / 2)


def test_probe_points() -> None:
    method = make_method("retro").eval()
    images = make_batch(method).views[0]
    backbone, adapter, head = (method.features(images, point) for point in Retro.points)
    assert torch.equal(backbone, method.student(images))
    torch.testing.assert_close(adapter, method.adapter.layers(backbone))
    torch.testing.assert_close(head, method.teacher.head(adapter))


# --- what is refused ----------------------------------------------------------------------------------------


def facts(arch: str, side: int) -> Any:
    return context(image_size=side, student=backbone_facts(ModelSpec(arch=arch), side))


@pytest.mark.parametrize("kind", ["bottleneck", "mbconv"])
def test_3x3_adapters_need_a_map_larger_than_one_position(kind: Any) -> None:
    config = Retro.Config(queue_size=16, adapter=kind)
    Retro.check(config, facts("test_efficientnet", SIDE))
    Retro.check(config, context())  # nothing known of the student yet
    for around in (facts("test_efficientnet", 16), facts("test_resnet", 32)):
        with pytest.raises(
            UserError, match=r"config\.adapter: has a 3x3 .* 1x1: .*padding .*'conv1x1_bn_act'"
        ):
            Retro.check(config, around)
    with pytest.raises(UserError, match="only padding"):  # also where nobody looked before
        make_method("retro", context(image_size=16), adapter=kind)


def test_same_functions_are_named() -> None:
    assert Retro.same(facts("test_efficientnet", SIDE)) == {"adapter": (("linear", "conv1x1"),)}
    assert Retro.same(facts("mobilenetv3_small_050", SIDE)) == {}
    assert Retro.same(context()) == {}


def test_adapters_on_the_map_need_all_of_the_student_before_it() -> None:
    for kind in ("conv1x1", "mbconv"):
        with pytest.raises(
            UserError, match=r"config\.adapter: .*untrained \(conv_head\.weight\).*'linear' or 'mlp'"
        ):
            Retro.check(Retro.Config(queue_size=16, adapter=kind), facts("mobilenetv3_small_050", SIDE))
    Retro.check(Retro.Config(queue_size=16, adapter="mlp"), facts("mobilenetv3_small_050", SIDE))
    nowhere = dataclasses.replace(backbone_facts(STUDENT, SIDE), map_size=0)
    with pytest.raises(UserError, match="this student has none"):
        Retro.check(Retro.Config(queue_size=16, adapter="conv1x1"), context(student=nowhere))


def test_a_norm_after_the_map_waits_for_no_gradient() -> None:
    student = build_backbone(ModelSpec(arch="test_convnext"), 0)
    config = Retro.Config(queue_size=16, adapter="conv1x1_bn_act")
    method = Retro(config, student, make_teacher(), context(image_size=64)).train()
    images = torch.randn(4, 3, 64, 64)
    method.adapter(method.student, images).sum().backward()
    waiting = [name for name, p in method.student.named_parameters() if p.requires_grad and p.grad is None]
    assert waiting == []
    assert not method.student.model.get_parameter("head.norm.weight").requires_grad
