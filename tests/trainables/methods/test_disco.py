"""DisCo: its terms by hand, the step by formula, the wide head, and what is refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from loss_checks import check_gradient
from small_methods import make_batch, make_method, make_teacher, train_steps
from torch import nn

from trainables.core.numerics import unit
from trainables.methods.disco import disco_terms
from trainables.methods.parts.losses import consistency


def test_terms_by_hand() -> None:
    q1, q2, k2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.6, 0.8]])
    t1, t2 = torch.tensor([[0.8, 0.6]]), torch.tensor([[0.6, 0.8]])
    terms = disco_terms(q1, q2, k2, t1, t2, torch.tensor([[-0.8, 0.6], [0.28, 0.96]]), 0.2)
    # q.k = .6 against q.Q = -.8 and .28, over .2
    contrastive = -3 + math.log(math.exp(3) + math.exp(-4) + math.exp(1.4))
    assert terms["contrastive"].item() == pytest.approx(contrastive, rel=1e-6)
    # (.2^2 + .6^2) + (.6^2 + .2^2)
    assert terms["distillation"].item() == pytest.approx(0.8)


def test_distillation_is_the_sum_over_views_of_two_minus_two_cosines() -> None:
    q1, q2, t1, t2, k, queue = (unit(torch.randn(6, 9)) for _ in range(6))
    expected = sum((2 - 2 * F.cosine_similarity(q, t)).mean() for q, t in ((q1, t1), (q2, t2)))
    torch.testing.assert_close(disco_terms(q1, q2, k, t1, t2, queue, 0.2)["distillation"], expected)
    assert disco_terms(q1, q2, k, q1, q2, queue, 0.2)["distillation"].item() == 0.0
    assert disco_terms(q1, q2, k, -q1, -q2, queue, 0.2)["distillation"].item() == pytest.approx(8.0)


def test_gradient_reaches_both_queries_and_nothing_else() -> None:
    q1, q2, k, t1, t2, queue = torch.randn(6, 4, 3)
    _, gradient = check_gradient(
        lambda *x: sum(disco_terms(*x, 0.2).values(), torch.zeros(())), [q1, q2], [k, t1, t2, queue]
    )
    torch.testing.assert_close(gradient, 2 * (q2 - t2).double() / 4)


def test_a_step_is_the_papers_formula() -> None:
    method = make_method("disco", consistency_weight=2.5, temperature=0.3)
    train_steps(method, 1)  # so that student and momentum encoder differ
    batch = make_batch(method, seed=5)
    again, teacher, rows = copy.deepcopy(method), method.teacher, method.queue.rows.clone()
    losses = method(batch)
    q1, q2 = (F.normalize(again.head(again.student(view)), dim=1) for view in batch.views)
    t1, t2 = (F.normalize(teacher.head(teacher.backbone(view)), dim=1) for view in batch.views)
    k2 = F.normalize(again.mean.parts["head"](again.mean.parts["student"](batch.views[1])), dim=1)
    logits = torch.cat([(q1 * k2).sum(1, keepdim=True), q1 @ rows.T], 1) / 0.3
    contrastive = (logits.logsumexp(1) - logits[:, 0]).mean()
    distillation = (q1 - t1).square().sum(1).mean() + (q2 - t2).square().sum(1).mean()
    torch.testing.assert_close(losses.terms["contrastive"], contrastive)
    torch.testing.assert_close(losses.terms["distillation"], distillation)
    torch.testing.assert_close(losses.total, contrastive + 2.5 * distillation)

    weight, mean = method.head[0].weight.clone(), method.mean.parts["head"][0].weight.clone()
    method.after_step(0.5)
    torch.testing.assert_close(method.queue.rows[8:16], k2.detach())  # keys, not the teacher's embeddings
    torch.testing.assert_close(method.mean.parts["head"][0].weight, (weight + mean) / 2)  # momentum .5


def test_fidelity_code_sums_over_the_32_images_of_a_gpu() -> None:
    """Published: cross-entropy + 1.0 `MSELoss(reduction="sum")` for each view, 256 images on 8 GPUs."""
    published, mean = make_method("disco", fidelity="code"), make_method("disco")
    batch = make_batch(published)
    ours, plain = published(batch), mean(batch)
    summed = plain.terms["distillation"] * 256 / 8
    torch.testing.assert_close(ours.total, plain.terms["contrastive"] + summed)
    assert torch.equal(ours.terms["distillation"], plain.terms["distillation"])  # the log's is unweighted
    # On 32 images it is that sum, whatever their number is elsewhere.
    q, t = (unit(torch.randn(32, 9)) for _ in range(2))
    torch.testing.assert_close(32 * consistency(q, t), F.mse_loss(q, t, reduction="sum"))


def test_without_consistency_it_is_moco() -> None:
    """From the same start, weight 0 gives MoCo's loss and gradients."""
    disco = make_method("disco", consistency_weight=0.0, hidden=64)
    moco = make_method("moco", head_ratio=1.0)
    moco.load_state_dict(disco.state_dict())
    assert disco.student.feature_dim == 64
    batch = make_batch(disco)
    ours, theirs = disco(batch).total, moco(batch).total
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(disco.head[0].weight.grad, moco.head[0].weight.grad)


def test_head_is_as_wide_as_asked_and_ends_where_the_teachers_does() -> None:
    def shape(method: nn.Module) -> list[tuple[int, int]]:
        assert isinstance(method.head, nn.Sequential)
        return [(m.in_features, m.out_features) for m in method.head if isinstance(m, nn.Linear)]

    assert shape(make_method("disco")) == [(64, 2048), (2048, 12)]
    assert shape(make_method("disco", hidden=512)) == [(64, 512), (512, 12)]
    assert shape(make_method("disco", teacher=make_teacher(head_dim=20))) == [(64, 2048), (2048, 20)]
