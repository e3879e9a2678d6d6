"""OSS-style: MoCo of the teacher beside SEED of the student, nothing between them but the embeddings."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from small_methods import SIDE, STUDENT, TEACHER, adam_steps, context, make_batch, make_method, train_steps
from torch import nn

from trainables.core.errors import UserError
from trainables.methods.base import Context
from trainables.methods.oss_style import OssStyle
from trainables.methods.parts.losses import info_nce
from trainables.training.resolve import resolve


def test_a_step_is_the_formula() -> None:
    method = make_method("oss_style", contrast_temperature=0.3, temperature=0.4, teacher_temperature=0.5)
    train_steps(method, 1)  # so that teacher and its average differ
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    losses = method(batch)
    q = F.normalize(again.growing(batch.views[0]), dim=1)
    k = F.normalize(again.mean.parts["growing"](batch.views[1]), dim=1)
    rows = again.queue.rows
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ rows.T], 1) / 0.3
    contrastive = (logits.logsumexp(1) - logits[:, 0]).mean()
    s = F.normalize(again.head(again.student(batch.views[0])), dim=1)
    past = again.embeddings.rows
    p_s = F.softmax(torch.cat([(s * q).sum(1, keepdim=True), s @ past.T], 1) / 0.4, 1)
    p_t = F.softmax(torch.cat([(q * q).sum(1, keepdim=True), q @ past.T], 1) / 0.5, 1)
    distillation = -(p_t * p_s.log()).sum() / 8
    torch.testing.assert_close(losses.terms["contrastive"], contrastive)
    torch.testing.assert_close(losses.terms["distillation"], distillation)
    torch.testing.assert_close(losses.total, contrastive + distillation)

    method.after_step(0.5)
    torch.testing.assert_close(method.queue.rows[8:16], k)  # after the 8 of the first step
    torch.testing.assert_close(method.embeddings.rows[8:16], q)
    assert not torch.allclose(k, q, atol=0.1)


@pytest.mark.parametrize(("term", "trained"), [("contrastive", "growing"), ("distillation", "student")])
def test_each_term_trains_its_own_network(term: str, trained: str) -> None:
    method = make_method("oss_style")
    method(make_batch(method)).terms[term].backward()
    reached = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert reached == ({"growing"} if trained == "growing" else {"student", "head"})


def test_the_teacher_learns_as_if_there_were_no_student() -> None:
    """Its losses are MoCo's, step by step."""
    method = make_method("oss_style")
    alone = copy.deepcopy(method)
    for step in range(3):
        batch = make_batch(method, seed=step)
        parameters = list(method.growing.parameters())
        contrastive = method(batch).terms["contrastive"]
        total = method(batch).total
        gradients = torch.autograd.grad(total, parameters)
        q, k = (
            F.normalize(net(view), dim=1)
            for net, view in zip((alone.growing, alone.mean.parts["growing"]), batch.views, strict=True)
        )
        expected = info_nce(q, k, alone.queue.rows, 0.2)
        torch.testing.assert_close(contrastive, expected)
        own = list(alone.growing.parameters())
        for parameter, gradient, other, wanted in zip(
            parameters, gradients, own, torch.autograd.grad(expected, own), strict=True
        ):
            torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)
            with torch.no_grad():
                parameter -= 0.05 * gradient
                other -= 0.05 * wanted
        alone.queue.hold(k)
        alone.queue.advance()
        alone.mean.follow(0.5, growing=alone.growing)
        method.queue._held.pop()  # looked at twice above
        method.embeddings._held.pop()
        method.after_step(0.1)


def test_a_teacher_of_the_students_kind_starts_elsewhere() -> None:
    method = make_method("oss_style", teacher_arch=STUDENT.arch, teacher_options=STUDENT.options)
    pairs = zip(method.student.parameters(), method.growing[0].parameters(), strict=True)
    assert any(not torch.allclose(mine, other) for mine, other in pairs)


def test_heads() -> None:
    method = make_method("oss_style", head_dim=20)
    shapes = [
        [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)]
        for head in (method.own_head(), method.growing[1])
    ]
    assert shapes == [[(64, 64), (64, 20)], [(24, 24), (24, 20)]]


def test_what_timm_leaves_undecayed_is_named_for_both_networks() -> None:
    method = make_method("oss_style", teacher_arch="test_vit", teacher_options={"img_size": SIDE})
    assert "growing.0.model.pos_embed" in method.no_weight_decay() & dict(method.named_parameters()).keys()


def test_it_takes_no_teacher_from_a_trial() -> None:
    raw = {"method": "oss_style", "student": {"arch": "test_resnet"}, "epochs": 1}
    assert resolve({**raw, "preset": "digits"}).config["teacher_arch"] == "test_resnet"
    assert resolve({**raw, "teacher": {"arch": "test_resnet"}}).teacher is None


def test_a_teacher_that_cannot_be_built_is_refused_by_its_field() -> None:
    def refused(arch: str, around: Context | None = None, **options: object) -> str:
        config = OssStyle.Config(queue_size=16, teacher_arch=arch, teacher_options=options)
        with pytest.raises(UserError) as caught:
            OssStyle.check(config, around or context())
        return str(caught.value)

    assert refused("test_resnett").startswith("config.teacher_arch: no such architecture")
    assert "test_resnet" in refused("test_resnett")
    assert refused(TEACHER.arch, num_classes=3).startswith("config.teacher_options.num_classes: is")
    assert refused(TEACHER.arch, depth=3).startswith("config.teacher_options: ")
    small = refused("test_convnext", context(image_size=16))
    assert small.startswith("config.teacher_arch: cannot take images of 16 px")


def test_loss_falls() -> None:
    method = make_method("oss_style", momentum=0.9)
    first, *_, last = adam_steps(method)
    assert all(last[name] < first[name] * 0.7 for name in first)
