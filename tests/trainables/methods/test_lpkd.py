"""LPKD: its locality term by hand, what that term alone would do, and a step with its terms over classes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loss_checks import check_gradient
from small_methods import context, make_batch, make_method

from trainables.core.errors import UserError
from trainables.methods.lpkd import Lpkd, locality, locality_loss
from trainables.training.resolve import resolve

seeds = st.integers(0, 1000)


def features(seed: int, size: int = 9, width: int = 4) -> torch.Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed))


def test_loss_by_hand() -> None:
    # On a line at 0, 1 and 3: the nearest other of each is 1, 0 and 1, at distances 1, 1 and 2.
    t, s = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
    expected = (4 * math.exp(-1 / 4) + 4 * math.exp(-1 / 4) + 1 * math.exp(-4 / 4)) / 3
    assert locality_loss(s, t, 1, scale=2.0).item() == pytest.approx(expected, rel=1e-5)
    # The median of those distances is 1.
    expected = (4 * math.exp(-1) + 4 * math.exp(-1) + 1 * math.exp(-4)) / 3
    assert locality_loss(s, t, 1).item() == pytest.approx(expected, rel=1e-5)
    # With two neighbours the third pair counts, twice, and all are divided by 2.
    two = (2 * 4 * math.exp(-1 / 4) + 2 * 1 * math.exp(-4 / 4) + 2 * 5 * math.exp(-9 / 4)) / 2 / 3
    assert locality_loss(s, t, 2, scale=2.0).item() == pytest.approx(two, rel=1e-5)
    assert locality_loss(s, t, 5, scale=2.0).item() == pytest.approx(two, rel=1e-5)  # there are no more


def test_a_scale_of_1_makes_the_weights_vanish_at_ordinary_scales() -> None:
    # 64 standard normal features in 24 dimensions: a typical squared distance to a neighbour is 28 to 29.
    assert math.exp(-28.68) == pytest.approx(3.5e-13, rel=0.01)
    typical = []
    for seed in range(20):
        t = features(seed, 64, 24)
        weights, nearest = locality(t, 5, scale=1.0)
        squares = (t[:, None] - t[nearest]).square().sum(2)
        torch.testing.assert_close(weights, (-squares).exp(), rtol=1e-3, atol=0)
        typical.append(weights.median().item())
        by_median, _ = locality(t, 5)
        # An even number has two middles, and this takes the lower one of distances and of weights.
        assert by_median.median().item() == pytest.approx(math.exp(-1), rel=0.05)
    assert sorted(typical)[10] == pytest.approx(3.5e-13, rel=0.5)
    loss = locality_loss(features(0, 64, 24), features(0, 64, 24), 5, scale=1.0).item()
    assert loss < 1e-6 < 1 < locality_loss(features(0, 64, 24), features(0, 64, 24), 5).item()


@given(seeds)
def test_its_minimum_is_not_at_a_perfect_match_but_where_all_is_one(seed: int) -> None:
    t = features(seed)
    matched = locality_loss(t, t, 5).item()
    assert matched > 0
    # It scales with the square of the student's size, so that shrinking the perfect match lowers it ...
    assert locality_loss(t / 2, t, 5).item() == pytest.approx(matched / 4, rel=1e-4)
    # ... down to 0, at a student that tells nothing apart.
    assert locality_loss(torch.ones(9, 3), t, 5).item() == 0.0


@given(seeds)
def test_order_of_the_batch_and_a_shift_of_either_space_do_not_matter(seed: int) -> None:
    s, t = features(seed), features(seed + 1, width=3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    loss = locality_loss(s, t, 5)
    torch.testing.assert_close(locality_loss(s[order], t[order], 5), loss)
    torch.testing.assert_close(locality_loss(s + 3, t - 2, 5), loss, rtol=1e-4, atol=1e-6)


def test_copies_in_the_batch_give_numbers() -> None:
    t, s = torch.ones(4, 3), features(0, 4).requires_grad_()
    loss = locality_loss(s, t, 2)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(s.grad).all()


def test_gradient_reaches_the_student_alone() -> None:
    check_gradient(lambda s, t: locality_loss(s, t, 5), [features(0)], [features(1)])


def test_a_step_is_the_formula() -> None:
    method = make_method("lpkd", scale=7.0, neighbours=3, temperature=2.0, locality_weight=1.5)
    batch = make_batch(method)
    batch = batch._replace(labels=torch.tensor([0, 1, 2, 3, -1, 1, 2, 3]))  # one has no label
    again = copy.deepcopy(method)
    s, t = again.student(batch.views[0]), method.teacher.backbone(batch.views[0])
    local = torch.zeros(())
    for i in range(8):
        distances = {j: (t[i] - t[j]).square().sum() for j in range(8) if j != i}
        for j in sorted(distances, key=lambda j: distances[j].item())[:3]:
            local = local + (-distances[j] / 49).exp() * (s[i] - s[j]).square().sum() / 3 / 8
    logits = again.classifier(s)
    own = method.teacher_classifier
    target = F.softmax((t @ own.weight.T + own.bias) / 2, dim=1)
    soft = -(target * F.log_softmax(logits / 2, dim=1)).sum(1).mean()
    known = batch.labels >= 0
    losses = method(batch)
    torch.testing.assert_close(losses.terms["locality"], local, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses.terms["classes"], soft)
    hard = F.cross_entropy(logits[known], batch.labels[known])
    torch.testing.assert_close(losses.total, 1.5 * local + hard + 2 * soft, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [{"ce_weight": 0.0}, {"soft_ce_weight": 0.0}])
def test_either_term_over_classes_will_do(config: dict[str, float]) -> None:
    method = make_method("lpkd", **config)
    absent = "cross_entropy" if "ce_weight" in config else "classes"
    assert absent not in method(make_batch(method)).terms
    assert ("teacher_classifier.weight" in method.state_dict()) == (absent == "cross_entropy")


def test_a_teachers_own_classifier_is_needed_where_it_is_asked() -> None:
    own = {"teacher_classifier": "own"}
    assert "teacher_classifier" not in Lpkd.requires(Lpkd.Config())
    assert Lpkd.requires(Lpkd.Config(**own))["teacher_classifier"] == "teacher_classifier: own"
    assert "teacher_classifier" not in Lpkd.requires(Lpkd.Config(**own, soft_ce_weight=0))


def test_what_would_collapse_is_refused() -> None:
    config = Lpkd.Config(ce_weight=0, soft_ce_weight=0)
    with pytest.raises(UserError, match=r"config\.ce_weight: .*all the same.*soft_ce_weight above 0"):
        Lpkd.check(config, context())
    with pytest.raises(UserError, match=r"config\.neighbours: a batch of 8 has no more than 7"):
        Lpkd.check(Lpkd.Config(neighbours=8), context())
    Lpkd.check(Lpkd.Config(neighbours=3), context(accumulate=2))
    with pytest.raises(UserError, match=r"config\.neighbours: a micro-batch of 4 has no more than 3"):
        Lpkd.check(Lpkd.Config(neighbours=4), context(accumulate=2))


def test_scale_is_a_number_or_the_median() -> None:
    raw = {
        "method": "lpkd",
        "student": {"arch": "test_resnet"},
        "teacher": {"arch": "test_resnet", "train": {"method": "moco", "epochs": 1}},
        "epochs": 1,
    }
    assert resolve({**raw, "config": {"scale": 2}}).config["scale"] == 2.0
    with pytest.raises(UserError, match=r"config\.scale: .*Did you mean 'median'"):
        resolve({**raw, "config": {"scale": "medain"}})
    with pytest.raises(UserError, match=r"config\.scale: "):
        resolve({**raw, "config": {"scale": 0}})


def test_fidelity_says_which_temperature_counts() -> None:
    """The notebook's `F.cross_entropy(student_logits, teacher_logits.softmax(dim=1))`, whatever is stored."""
    cold, one, code = (
        make_method("lpkd", **config)
        for config in (
            {"temperature": 0.5},
            {"temperature": 1.0},
            {"temperature": 0.5, "fidelity": "code"},
        )
    )
    batch = make_batch(cold)
    found = {name: m(batch).terms["classes"] for name, m in (("cold", cold), ("one", one), ("code", code))}
    assert torch.equal(found["code"], found["one"]) and not torch.equal(found["cold"], found["one"])
