"""RRKD: which training images become anchors, and which settings of anchors are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_methods import SIDE, STUDENT, TEACHER, context, make_batch
from torch import nn

from trainables.core.errors import UserError
from trainables.data.data_sets import DataSet
from trainables.data.encode import TrainingImages
from trainables.methods.rrkd import Rrkd, best_per_class, draw_per_class
from trainables.networks.backbones import build_backbone, seeded
from trainables.teachers.teacher import Teacher


def images(train_ids: range, classes: int = 4) -> TrainingImages:
    """Noise, trained on where `train_ids` says; the label of image i is i % classes, of every tenth none."""
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (max(train_ids) + 1, 3, SIDE, SIDE), dtype=np.uint8)
    pixels //= generator.integers(1, 6, (len(pixels), 1, 1, 1), dtype=np.uint8)  # some darker than others
    labels = np.arange(len(pixels)) % classes
    labels[::10] = -1
    train = SimpleNamespace(
        take=lambda ids: torch.from_numpy(pixels[ids]), advise=lambda ids: None, labels=labels, aspect=None
    )
    data = SimpleNamespace(train=train, train_ids=np.array(train_ids), classes=classes, fingerprint="ids")
    return TrainingImages(cast(DataSet, data), SIDE, torch.device("cpu"))


def teacher_of_classes() -> Teacher:
    backbone = build_backbone(TEACHER, 5)
    with seeded(0):
        classifier = nn.Linear(backbone.feature_dim, 4)
        # Sharp and even, so that probabilities spread and every class is someone's guess.
        classifier.weight.data.mul_(100)
        features = backbone.eval()(torch.randn(64, 3, SIDE, SIDE))
        classifier.bias.data.copy_(-(classifier.weight @ features.detach().mean(0)))
    return Teacher(backbone, None, classifier=classifier)


def test_best_per_class_takes_the_images_that_the_teacher_is_right_and_sure_of() -> None:
    """Through the whole of `begin`, on training ids that are no positions: 7, 9, 11, ..."""
    teacher, given = teacher_of_classes(), images(range(7, 207, 2))
    config = Rrkd.Config(anchors="best_per_class", anchors_per_class=5)
    method = Rrkd(config, build_backbone(STUDENT, 0), teacher, context(train_size=len(given.ids)))
    # It is right about two in three, wrong about the others, and every tenth has no label.
    guesses = teacher.logits(given.plain(given.ids)).argmax(1)
    given.labels.copy_(guesses)
    given.labels[::3] = (guesses[::3] + 1) % 4
    given.labels[::10] = -1
    method.begin(given)

    certainty: dict[int, tuple[bool, float]] = {}  # by id, one image at a time
    label: dict[int, int] = dict(zip(given.ids.tolist(), given.labels.tolist(), strict=True))
    for i, true in label.items():
        p = teacher.logits(given.plain(torch.tensor([i])))[0].softmax(0)
        certainty[i] = (int(p.argmax()) == true, p[true].item())
    expected = []
    for c in range(4):
        own = [i for i, true in label.items() if true == c]
        expected += sorted(own, key=lambda i: certainty[i], reverse=True)[:5]
    assert method.anchor_ids.tolist() == expected
    # What is compared with is the image of that id, on both sides.
    torch.testing.assert_close(method.anchor_images, given.plain(torch.tensor(expected)))
    torch.testing.assert_close(method.teacher_anchors, teacher.features(given.plain(torch.tensor(expected))))


@given(st.integers(0, 1000), st.integers(1, 4))
def test_the_order_in_which_samples_were_ranked_changes_nothing(seed: int, count: int) -> None:
    """RRKD's notebook ranks a shuffled list and takes the images at those places of the unshuffled one."""
    generator = torch.Generator().manual_seed(seed)
    n = 40
    probabilities = (4 * torch.rand(n, 3, generator=generator)).round().add(0.1)
    probabilities /= probabilities.sum(1, keepdim=True)  # with many equals
    labels = torch.arange(n) % 3
    ids = torch.randperm(1000, generator=generator)[:n]
    chosen = best_per_class(probabilities, labels, ids, count)
    shuffle = torch.randperm(n, generator=generator)
    assert torch.equal(best_per_class(probabilities[shuffle], labels[shuffle], ids[shuffle], count), chosen)
    row = {int(i): n for n, i in enumerate(ids)}
    assert [int(labels[row[int(i)]]) for i in chosen] == [c for c in range(3) for _ in range(count)]


def test_best_per_class_by_hand() -> None:
    probabilities = torch.tensor(
        [[0.9, 0.1], [0.6, 0.4], [0.45, 0.55], [0.2, 0.8], [0.52, 0.48], [0.6, 0.4], [0.9, 0.1]]
    )
    labels, ids = torch.tensor([0, 0, 0, 1, 1, 0, 1]), torch.tensor([50, 41, 12, 3, 24, 15, 6])
    # Class 0: 50 (.9), then 15 and 41 (.6 both, the lower id first), then 12, which is taken for a 1.
    # Class 1: 3 alone is right; then the wrong ones, 24 (.48) before 6 (.1).
    assert best_per_class(probabilities, labels, ids, 2).tolist() == [50, 15, 3, 24]
    assert best_per_class(probabilities, labels, ids, 4).tolist() == [50, 15, 41, 12, 3, 24, 6]
    # Right with .4 comes before wrong with .45.
    three = torch.tensor([[0.45, 0.5, 0.05], [0.4, 0.3, 0.3]])
    assert best_per_class(three, torch.tensor([0, 0]), torch.tensor([1, 2]), 2).tolist() == [2, 1]


def begun(given: TrainingImages, **config: Any) -> Rrkd:
    teacher = Teacher(build_backbone(TEACHER, 0), None)
    method = Rrkd(
        Rrkd.Config(**config), build_backbone(STUDENT, 0), teacher, context(train_size=len(given.ids))
    )
    method.begin(given)
    return method


def test_drawn_anchors_are_training_images_of_their_class() -> None:
    given = images(range(7, 207, 3))
    method = begun(given, anchors="per_class", anchors_per_class=3)
    label = dict(zip(given.ids.tolist(), given.labels.tolist(), strict=True))
    chosen = method.anchor_ids.tolist()
    assert [label[i] for i in chosen] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3] and len(set(chosen)) == 12
    drawn = {
        tuple(draw_per_class(torch.zeros(9).long(), torch.arange(9), 1, 3, seed).tolist())
        for seed in range(9)
    }
    assert len(drawn) > 4  # by the seed, not the first ones

    random = begun(given, anchors="random", anchor_count=50)
    assert set(random.anchor_ids.tolist()) < set(label) and len(set(random.anchor_ids.tolist())) == 50


def test_a_class_with_too_few_images_is_refused() -> None:
    sizes = context(class_images=(13, 11, 12, 28))
    Rrkd.check(Rrkd.Config(anchors="per_class", anchors_per_class=11), sizes)
    config = Rrkd.Config(anchors="best_per_class", anchors_per_class=12)
    with pytest.raises(UserError, match=r"config\.anchors_per_class: class 1 has 11 .*got 12.*at most 11"):
        Rrkd.check(config, sizes)
    with pytest.raises(UserError, match=r"class 2 has 0 training images .*Expected `anchors: random`"):
        Rrkd.check(config, context(class_images=(32, 32, 0, 0)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"anchors": "random", "anchor_count": 65},
            r"config\.anchor_count: is more than .*at most 64",
        ),
        (
            {"anchors": "best_per_class", "anchors_per_class": 17},
            r"config\.anchors_per_class: for each of 4 classes .*at most 16",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Rrkd.check(Rrkd.Config(**config), context())


def test_anchors_that_are_not_used_are_not_checked() -> None:
    Rrkd.check(Rrkd.Config(anchor_count=1000, anchors_per_class=1000, queue_size=7), context())
    Rrkd.check(Rrkd.Config(anchors="random", anchor_count=64, queue_size=7), context(classes=0))
    Rrkd.check(Rrkd.Config(anchors="per_class", anchors_per_class=16), context())


def test_labels_are_asked_for_where_classes_matter() -> None:
    def reason(**config: Any) -> str | None:
        return dict(Rrkd.requires(Rrkd.Config(**config))).get("labels")

    assert reason() is reason(anchors="random") is reason(anchors="queue") is None
    assert reason(anchors="per_class") == "anchors: per_class"
    assert reason(anchors="best_per_class", ce_weight=1) == "anchors: best_per_class"
    assert reason(ce_weight=1) == "ce_weight: 1"


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("anchors", ["in_batch", "random", "per_class", "best_per_class"])
def test_a_student_that_is_the_teacher_matches_perfectly(anchors: str, centre: bool) -> None:
    teacher = Teacher(build_backbone(TEACHER, 0), None)
    small = {"anchor_count": 9, "anchors_per_class": 2}
    config = Rrkd.Config.model_validate({"anchors": anchors, "centre": centre, **small})
    method = Rrkd(config, build_backbone(TEACHER, 0), teacher, context())
    method.begin(images(range(64)))
    with torch.no_grad():
        assert method.eval()(make_batch(method)).total.item() == pytest.approx(0.0, abs=1e-5)
