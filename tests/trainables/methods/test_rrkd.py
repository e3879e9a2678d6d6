"""RRKD: its losses by hand, invariances, and each kind of anchors by formula."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient, check_half_precision
from small_methods import TEACHER, adam_steps, context, make_batch, make_method, train_steps
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.core.numerics import unit
from trainables.methods.parts.queue import Queue
from trainables.methods.rrkd import Matching, Rrkd, matching_loss, relative
from trainables.networks.backbones import build_backbone
from trainables.teachers.teacher import Teacher

ANCHORS = ("in_batch", "random", "per_class", "best_per_class", "queue")


def test_relative_representations_by_hand() -> None:
    z, anchors = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(relative(z, anchors), torch.tensor([[0.6, 0.8]]))
    # Unit anchors (1, 0) and (0, 1) have the mean (.5, .5): z becomes (.1, .3), the anchors (±.5, ∓.5).
    expected = (0.1 * 0.5 - 0.3 * 0.5) / (math.sqrt(0.1) * math.sqrt(0.5))
    torch.testing.assert_close(relative(z, anchors, centre=True), torch.tensor([[expected, -expected]]))


def test_losses_by_hand() -> None:
    s, t = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    # Cosines of the rows are .6 and 0.
    cosine_log = -(math.log(0.8) + math.log(0.5)) / 2
    assert matching_loss(s, t, "cosine_log", 2.0).item() == pytest.approx(cosine_log, rel=1e-5)
    mse = (1.4**2 + 0.8**2 + 1 + 1) / 4
    assert matching_loss(s, t, "mse", 2.0).item() == pytest.approx(mse, rel=1e-5)
    soft_ce = 0.0
    for student, teacher in ((s[0], t[0]), (s[1], t[1])):
        p_t = [math.exp(x / 0.5) for x in teacher.tolist()]
        p_s = [math.exp(x / 0.5) for x in student.tolist()]
        soft_ce -= sum(a / sum(p_t) * math.log(b / sum(p_s)) for a, b in zip(p_t, p_s, strict=True)) / 2
    assert matching_loss(s, t, "soft_ce", 0.5).item() == pytest.approx(soft_ce, rel=1e-5)


def test_opposite_rows_cost_much_but_not_infinitely() -> None:
    loss = matching_loss(torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), "cosine_log", 2.0)
    assert loss.item() == pytest.approx(-math.log(1e-8), rel=1e-5)


@given(st.integers(2, 12), st.integers(2, 8), st.integers(0, 1000), st.booleans())
def test_zero_at_a_perfect_match_however_a_space_is_turned_and_scaled(
    anchors: int, dim: int, seed: int, centre: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, a, s, b = (
        torch.randn(n, d, generator=generator, dtype=torch.float64)
        for n, d in ((5, dim), (anchors, dim), (5, 3), (anchors, 3))
    )
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q
    scale = torch.rand(5, 1, generator=generator, dtype=torch.float64) + 0.1
    # Of another width, too: what is compared are similarities.
    other = [F.pad(scale * z @ turn, (0, 3)), F.pad(7 * a @ turn, (0, 3))]
    rel, turned = relative(z, a, centre), relative(other[0], other[1], centre)
    torch.testing.assert_close(turned, rel)
    assert matching_loss(turned, rel, "cosine_log", 2.0).item() == pytest.approx(-1e-8, abs=1e-10)
    assert matching_loss(turned, rel, "mse", 2.0).item() == pytest.approx(0.0, abs=1e-12)
    matchings: list[Matching] = ["cosine_log", "mse", "soft_ce"]
    for matching in matchings:
        ours = matching_loss(relative(s, b, centre), rel, matching, 0.5)
        torch.testing.assert_close(matching_loss(relative(s, b, centre), turned, matching, 0.5), ours)
        assert ours >= matching_loss(rel, rel, matching, 0.5) - 1e-9  # a match is the minimum


def test_centring_forgets_what_all_embeddings_share() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(64, 8, generator=generator)
    shifted = F.normalize(z, dim=1) + torch.tensor([20.0, *[0.0] * 7])
    assert relative(shifted, shifted).min() > 0.95  # all alike
    centred = relative(shifted, shifted, centre=True)
    assert centred.mean().abs() < 0.02 and centred.min() < -0.5


def test_gradient_reaches_the_student_and_its_anchors_alone() -> None:
    z, a, t, b = (torch.randn(n, 3) for n in (4, 6, 4, 6))
    matchings: list[Matching] = ["cosine_log", "mse", "soft_ce"]
    for matching in matchings:
        for centre in (False, True):

            def loss(
                z: Tensor, a: Tensor, t: Tensor, b: Tensor, m: Matching = matching, c: bool = centre
            ) -> Tensor:
                return matching_loss(relative(z, a, c), relative(t, b), m, 0.5)

            check_gradient(loss, [z, a], [t, b])


def test_half_precision_around_it_changes_no_bit() -> None:
    s, t = torch.randn(8, 16), torch.randn(8, 24)
    check_half_precision(lambda s, t: matching_loss(relative(s, s), relative(t, t), "soft_ce", 0.1), s, t)


def by_formula(method: Rrkd, view: Tensor, anchors: str) -> Tensor:
    """The distillation loss, written out again, with the gradient that the docstring promises."""
    teacher = cast(Teacher, method.teacher)
    z_s, z_t = method.student(view), teacher.backbone(view)
    if anchors == "in_batch":
        a_s, a_t = z_s, z_t
    elif anchors == "queue":
        seen = int(method.student_queue.seen)
        a_s, a_t = method.student_queue.rows[:seen], method.teacher_queue.rows[:seen]
    else:
        a_s, a_t = method.student(method.anchor_images), teacher.backbone(method.anchor_images)
    total = torch.zeros(())
    for s, t in zip(z_s, z_t, strict=True):
        v_s = torch.stack([s @ a / (s.norm() * a.norm()) for a in a_s])
        v_t = torch.stack([t @ a / (t.norm() * a.norm()) for a in a_t])
        total = total - (((v_s @ v_t) / (v_s.norm() * v_t.norm()) + 1) / 2 + 1e-8).log()
    return total / len(view)


@pytest.mark.parametrize("anchors", ANCHORS)
def test_a_step_is_the_formula(anchors: str) -> None:
    method = cast(Rrkd, make_method("rrkd", anchors=anchors))
    train_steps(method, 1)
    assert method.views == 1
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    expected = by_formula(again, batch.views[0], anchors)
    losses = method(batch)
    torch.testing.assert_close(losses.total, expected)
    assert torch.equal(losses.total, losses.terms["distillation"])
    for one, loss in ((again, expected), (method, losses.total)):
        one.zero_grad()
        loss.backward()
    grads = {name: p.grad for name, p in again.named_parameters()}
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-3, atol=1e-6)


def test_with_labels_a_classifiers_loss_is_added() -> None:
    method = cast(Rrkd, make_method("rrkd", ce_weight=0.5))
    batch = make_batch(method, seed=5)
    batch = batch._replace(labels=torch.tensor([0, 1, 2, -1, 0, 1, 2, 3]))
    again = copy.deepcopy(method)
    logits = cast(nn.Linear, again.classifier)(again.student(batch.views[0]))
    known = batch.labels >= 0
    expected = F.cross_entropy(logits[known], batch.labels[known])
    losses = method(batch)
    torch.testing.assert_close(losses.terms["cross_entropy"], expected)
    torch.testing.assert_close(losses.total, losses.terms["distillation"] + 0.5 * expected)
    assert make_method("rrkd").own_classifier() is None and method.own_classifier() is method.classifier


def test_the_distillation_has_a_weight() -> None:
    weighted, plain = (make_method("rrkd", distillation_weight=w, ce_weight=0.5) for w in (3.0, 1.0))
    batch = make_batch(plain)
    ours, theirs = weighted(batch), plain(batch)
    assert torch.equal(ours.terms["distillation"], theirs.terms["distillation"])
    torch.testing.assert_close(ours.total - theirs.total, 2 * theirs.terms["distillation"])
    with pytest.raises(UserError, match=r"config\.distillation_weight: no loss is left"):
        make_method("rrkd", distillation_weight=0)
    method = cast(Rrkd, make_method("rrkd", distillation_weight=0, ce_weight=1))
    torch.testing.assert_close(method(batch).total, method(batch).terms["cross_entropy"])


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("matching", ["cosine_log", "mse", "soft_ce"])
def test_a_copy_of_the_teacher_pays_nothing_whatever_the_queue_holds(matching: Any, centre: bool) -> None:
    """At every fill state, the empty queue included; of `soft_ce` the entropy of the target is left."""
    teacher = Teacher(build_backbone(TEACHER, 0), None)
    config = Rrkd.Config(anchors="queue", queue_size=32, matching=matching, centre=centre, temperature=0.3)
    method = Rrkd(config, build_backbone(TEACHER, 0), teacher, context())
    for step in range(6):  # 0, 8, .. 32 rows filled, and once round
        batch = make_batch(method, seed=step)
        with torch.no_grad():
            loss = method.eval()(batch).total
            least = 0.0
            if matching == "soft_ce" and step:
                held = method.teacher_queue.rows[: min(32, 8 * step)]
                target = relative(teacher.features(batch.views[0]), held, centre).div(0.3).softmax(1)
                least = torch.special.entr(target).sum(1).mean().item()
            assert loss.item() == pytest.approx(least, abs=1e-5)
            # The student's side moves with batch norm in train mode: hold the copy's embeddings.
            s = unit(method.student(batch.views[0]))
            for queue in (method.student_queue, method.teacher_queue):
                queue.train().hold(s)
                queue.advance()
    assert int(method.student_queue.seen) == 48


@given(st.integers(0, 1000), st.integers(0, 12), st.booleans())
def test_rows_that_were_never_filled_have_no_say(seed: int, filled: int, centre: bool) -> None:
    """As if the anchors were the filled rows alone, for the loss and its gradient."""
    generator = torch.Generator().manual_seed(seed)
    s, t = (torch.randn(5, d, generator=generator, dtype=torch.float64) for d in (4, 7))
    a, b = (torch.randn(12, d, generator=generator, dtype=torch.float64) for d in (4, 7))
    mask = torch.arange(12) < filled
    matchings: list[Matching] = ["cosine_log", "mse", "soft_ce"]
    for matching in matchings:
        masked, whole = (s.clone().requires_grad_() for _ in range(2))
        ours = matching_loss(
            relative(masked, a, centre, mask), relative(t, b, centre, mask), matching, 0.3, mask
        )
        ours.backward()
        if filled == 0:
            assert ours.item() == 0 and not masked.grad.any()  # type: ignore[union-attr]
            continue
        theirs = matching_loss(
            relative(whole, a[:filled], centre), relative(t, b[:filled], centre), matching, 0.3
        )
        theirs.backward()
        torch.testing.assert_close(ours, theirs)
        # Similarities are float32, whatever comes in: of the order of 1, so rounded to about 1e-7.
        torch.testing.assert_close(masked.grad, whole.grad, rtol=1e-5, atol=1e-6)


def test_queues_hold_both_sides_of_the_same_images() -> None:
    method = cast(Rrkd, make_method("rrkd", anchors="queue"))
    train_steps(method, 1)
    batch = make_batch(method, seed=5)
    again = copy.deepcopy(method)
    method(batch)
    method.after_step(0.5)
    assert len([m for m in method.modules() if isinstance(m, Queue)]) == 2
    with torch.no_grad():
        s, t = again.student(batch.views[0]), cast(Teacher, again.teacher).backbone(batch.views[0])
    torch.testing.assert_close(method.student_queue.rows[8:16], F.normalize(s, dim=1))
    torch.testing.assert_close(method.teacher_queue.rows[8:16], F.normalize(t, dim=1))


@pytest.mark.parametrize("anchors", ["random", "best_per_class"])
def test_fixed_anchors_come_from_the_checkpoint(anchors: str) -> None:
    method = make_method("rrkd", anchors=anchors)
    other = make_method("rrkd", context(seed=99), anchors=anchors)
    if anchors == "random":
        assert not torch.equal(other.anchor_ids, method.anchor_ids)  # drawn by the seed
    other.load_state_dict(method.state_dict())
    for name in ("anchor_ids", "anchor_images", "teacher_anchors"):
        assert torch.equal(getattr(other, name), getattr(method, name))


def test_loss_falls_with_anchors_that_the_student_encodes() -> None:
    first, *_, last = adam_steps(make_method("rrkd", anchors="random"))
    assert last["total"] < first["total"] / 2
