"""ReKD-style: the loss over several positives by hand, the clustering's moves, and the step by formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient, check_half_precision
from small_methods import (
    context,
    make_batch,
    make_method,
    make_teacher,
    train_steps,
    training_images,
)

from trainables.core.errors import UserError
from trainables.core.numerics import unit
from trainables.methods.parts.losses import info_nce
from trainables.methods.rekd_style import OnlineClusters, RekdStyle, relation_nce


def test_loss_by_hand() -> None:
    q, k = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    queue = torch.tensor([[0.28, 0.96], [-0.8, 0.6]])
    same = torch.tensor([[True, False], [True, True]])
    # Over .5: 1.2, .56, -1.6 for the first image, the first two positives; 2, 1.92, 1.2 for the other.
    first = (1.2 + 0.56) / 2 - math.log(math.exp(1.2) + math.exp(0.56) + math.exp(-1.6))
    second = (2.0 + 1.92 + 1.2) / 3 - math.log(math.exp(2.0) + math.exp(1.92) + math.exp(1.2))
    assert relation_nce(q, k, queue, same, 0.5).item() == pytest.approx(-(first + second) / 2, rel=1e-5)


@given(st.integers(1, 20), st.integers(1, 6), st.floats(0.05, 2), st.integers(0, 1000))
def test_without_relatives_it_is_info_nce(size: int, batch: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, queue = (unit(torch.randn(n, 8, generator=generator)) for n in (batch, batch, size))
    none = torch.zeros(batch, size, dtype=torch.bool)
    torch.testing.assert_close(
        relation_nce(q, k, queue, none, temperature), info_nce(q, k, queue, temperature)
    )
    # Where all are relatives, nothing beats a student that finds all alike.
    assert relation_nce(q, k, queue, ~none, temperature) >= math.log(size + 1) - 1e-5


def test_gradient_reaches_the_query_alone_and_draws_it_to_its_relatives() -> None:
    q, k, queue = (unit(torch.randn(n, 3)).double() for n in (4, 4, 6))
    same = torch.zeros(4, 6, dtype=torch.bool)
    same[:, 2] = True
    (gradient,) = check_gradient(lambda q, k, queue: relation_nce(q, k, queue, same, 0.2), [q], [k, queue])
    # d L / d logits is p minus 1/2 for each of the two positives.
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.2
    slope = F.softmax(logits, 1) - 0.5 * F.pad(same, (1, 0), value=True)
    expected = (slope[:, :1] * k + slope[:, 1:] @ queue) / 0.2 / 4
    torch.testing.assert_close(gradient, expected)


def test_prototypes_follow_the_mean_of_what_is_assigned_to_them() -> None:
    clusters = OnlineClusters(3, 2)
    clusters.prototypes.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    t = torch.tensor([[0.8, 0.6], [0.8, -0.6], [0.6, 0.8]])
    assert clusters.assign(t).tolist() == [0, 0, 1]
    clusters.hold(t[:2])
    clusters.hold(t[2:])  # a second micro-batch
    clusters.advance(0.75)
    first, second = torch.tensor([0.75 + 0.25 * 0.8, 0.0]), torch.tensor([0.25 * 0.6, 0.75 + 0.25 * 0.8])
    expected = torch.stack([first / first.norm(), second / second.norm(), torch.tensor([-1.0, 0.0])])
    torch.testing.assert_close(clusters.prototypes, expected)
    clusters.advance(0.75)  # nothing new
    torch.testing.assert_close(clusters.prototypes, expected)


def test_half_precision_around_them_changes_no_assignment() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 16, generator=generator)
    clusters = OnlineClusters(32, 16)  # close together, as an untrained teacher's embeddings are
    clusters.prototypes.copy_(unit(base + 0.1 * torch.randn(32, 16, generator=generator)))
    t = unit(base + 0.1 * torch.randn(64, 16, generator=generator))
    check_half_precision(clusters.assign, t)


def test_they_find_groups_that_are_there() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = unit(torch.randn(4, 16, generator=generator))
    clusters = OnlineClusters(4, 16)
    clusters.prototypes.copy_(unit(centres + 0.2 * torch.randn(4, 16, generator=generator)))
    for _ in range(60):
        members = torch.randint(4, (32,), generator=generator)
        clusters.hold(unit(centres[members] + 0.05 * torch.randn(32, 16, generator=generator)))
        clusters.advance(0.9)
    assert (clusters.prototypes * centres).sum(1).min() > 0.99


def test_a_step_is_the_formula() -> None:
    method = make_method("rekd_style", temperature=0.3, cluster_momentum=0.5, clusters=2)
    train_steps(method, 1)  # 8 of the 16 rows are keys, 8 still random
    batch = make_batch(method, seed=5)
    # Two images of the batch, since the untrained teacher's embeddings lie close together.
    method.clusters.prototypes.copy_(unit(method.teacher.embed(batch.views[0]))[:2])
    again, teacher = copy.deepcopy(method), method.teacher
    losses = method(batch)
    q = F.normalize(again.head(again.student(batch.views[0])), dim=1)
    k = F.normalize(again.mean.parts["head"](again.mean.parts["student"](batch.views[1])), dim=1)
    t = F.normalize(teacher.head(teacher.backbone(batch.views[0])), dim=1)
    prototypes, past = again.clusters.prototypes, again.teacher_queue.rows
    mine, theirs = (t @ prototypes.T).argmax(1).tolist(), (past @ prototypes.T).argmax(1).tolist()
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ again.queue.rows.T], 1) / 0.3
    log_p = logits.log_softmax(1)
    rows, related = [], 0
    for i in range(8):
        relatives = [j for j in range(8) if theirs[j] == mine[i]]  # of the filled rows alone
        related += len(relatives)
        rows.append(torch.stack([log_p[i, 0], *(log_p[i, 1 + j] for j in relatives)]).mean())
    assert 0 < related < 64
    torch.testing.assert_close(losses.total, -torch.stack(rows).mean())
    assert torch.equal(losses.total, losses.terms["relation"])

    method.after_step(0.5)
    torch.testing.assert_close(method.queue.rows[8:16], k)
    torch.testing.assert_close(method.teacher_queue.rows[8:16], t)  # the same images in the same rows
    for c in range(2):
        got = [t[i] for i in range(8) if mine[i] == c]
        assert got
        moved = F.normalize((prototypes[c] + torch.stack(got).mean(0)) / 2, dim=0)
        torch.testing.assert_close(method.clusters.prototypes[c], moved)


def test_rows_that_are_still_random_are_no_relatives() -> None:
    """Before the first step there is none: InfoNCE."""
    method = make_method("rekd_style", clusters=2)
    batch = make_batch(method)
    again = copy.deepcopy(method)
    q = F.normalize(again.head(again.student(batch.views[0])), dim=1)
    k = F.normalize(again.mean.parts["head"](again.mean.parts["student"](batch.views[1])), dim=1)
    torch.testing.assert_close(method(batch).total, info_nce(q, k, again.queue.rows, 0.2))


def test_prototypes_begin_at_training_images() -> None:
    around = context()
    method, images = make_method("rekd_style", around, clusters=64), training_images(around)
    embedded = unit(images.encode(method.teacher.embed, images.ids))
    nearest = (method.clusters.prototypes @ embedded.T).max(1)
    torch.testing.assert_close(nearest.values, torch.ones(64))
    again = make_method("rekd_style", around, clusters=64)
    other = make_method("rekd_style", context(seed=4), clusters=64)
    assert torch.equal(again.clusters.prototypes, method.clusters.prototypes)
    assert not torch.equal(other.clusters.prototypes, method.clusters.prototypes)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(UserError, match=r"config\.clusters: .*at most 64"):
        RekdStyle.check(RekdStyle.Config(queue_size=16, clusters=65), context())


def test_the_head_ends_where_the_teachers_does() -> None:
    assert make_method("rekd_style", teacher=make_teacher(head_dim=20)).own_head()[2].out_features == 20
