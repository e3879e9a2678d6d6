"""Supervised: its loss by hand, images without a label, and the teacher that it trains."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_methods import adam_steps, make_batch, make_method, train_steps
from tiny_trials import final, run, tiny, workspace

import trainables.planning.check
from trainables.core.errors import UserError
from trainables.data.data_sets import DataFacts, open_data
from trainables.data.encode import TrainingImages
from trainables.methods.parts.classifier import cross_entropy
from trainables.planning.check import TrialChecker
from trainables.teachers.teacher import load_teacher
from trainables.training.resolve import resolve
from trainables.training.teacher_file import teacher_path, teacher_trial
from trainables.training.workspace import Workspace


def test_smoothed_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0], [0.0, 0.0, 0.0]])
    # p = (1/2, 1/4, 1/4); a share of .3 over three classes leaves .8 for the right one and .1 for each other.
    expected = 0.8 * math.log(2) + 0.2 * math.log(4)
    assert cross_entropy(logits[:1], torch.tensor([0]), 0.3).item() == pytest.approx(expected)
    # The second sample, undecided, costs log 3 whatever the target; without a label it has no say.
    both = cross_entropy(logits, torch.tensor([0, 2]), 0.3)
    assert both.item() == pytest.approx((expected + math.log(3)) / 2)
    assert cross_entropy(logits, torch.tensor([0, -1]), 0.3).item() == pytest.approx(expected)


@given(st.floats(0, 0.99), st.integers(2, 6), st.integers(0, 1000))
def test_smoothing_mixes_with_the_mean_over_classes(smoothing: float, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, classes, generator=generator)
    labels = torch.randint(classes, (5,), generator=generator)
    log_p = logits.log_softmax(1)
    expected = (1 - smoothing) * -log_p[range(5), labels].mean() - smoothing * log_p.mean()
    torch.testing.assert_close(cross_entropy(logits, labels, smoothing), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_step_is_the_formula(smoothing: float) -> None:
    method = make_method("supervised", label_smoothing=smoothing)
    train_steps(method, 1)
    assert method.views == 1 and method.teacher is None
    batch = make_batch(method, seed=5)
    batch = batch._replace(labels=torch.tensor([0, 1, -1, 3, 0, -1, 2, 3]))
    again, known = copy.deepcopy(method), batch.labels >= 0
    log_p = (again.student(batch.views[0]) @ again.classifier.weight.T + again.classifier.bias).log_softmax(1)
    right = -log_p[range(8), batch.labels.clamp(min=0)][known].mean()
    losses = method(batch)
    torch.testing.assert_close(losses.total, (1 - smoothing) * right - smoothing * log_p[known].mean())
    assert torch.equal(losses.total, losses.terms["cross_entropy"])


def test_a_batch_without_labels_moves_nothing() -> None:
    method = make_method("supervised")
    batch = make_batch(method)
    method(batch._replace(labels=torch.full((8,), -1))).total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in method.parameters())


def test_loss_falls_and_the_classifier_is_its_own() -> None:
    method = make_method("supervised")
    batch = make_batch(method)
    *_, last = adam_steps(method, 20, batch=batch)
    assert last["total"] < math.log(4) / 2  # of four classes
    right = method.own_classifier()(method.student(batch.views[0])).argmax(1) == batch.labels
    assert right.float().mean() > 0.8


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(smoothing: float) -> None:
    with pytest.raises(UserError, match=r"config\.label_smoothing"):
        resolve(
            {
                "method": "supervised",
                "student": {"arch": "test_resnet"},
                "epochs": 1,
                "config": {"label_smoothing": smoothing},
            }
        )


def test_it_trains_a_teacher_with_a_classifier(tmp_path: Path) -> None:
    """Through `prepare`, the file on the disk and `load_teacher` into a method that listens to it."""
    train = {"method": "supervised", "preset": "digits", "epochs": 4}
    config = {"teacher_classifier": "own"}
    trial = tiny("kd", teacher={"arch": "test_resnet", "train": train}, config=config, epochs=1)
    TrialChecker().check(trial)
    place = workspace(tmp_path)
    assert run(trial, place).epochs == [1]
    training = teacher_trial(trial)
    assert training is not None and training.method == "supervised" and trial.teacher is not None
    left = final(Workspace(place.teachers / training.signature(), place.cache, place.teachers))
    taught = load_teacher(trial.teacher, teacher_path(trial, place.teachers))
    for name, value in taught.backbone.model.state_dict().items():
        assert torch.equal(value, left[f"/method/student.model.{name}"]), name
    assert taught.classifier is not None and taught.head is None
    for name, value in taught.classifier.state_dict().items():
        assert torch.equal(value, left[f"/method/classifier.{name}"]), name
        assert torch.equal(value, final(place)[f"/method/teacher_classifier.{name}"]), name
    data = open_data(trial.data, place.cache)
    images = TrainingImages(data, trial.data.image_size, torch.device("cpu"))
    said = images.encode(taught.logits, images.ids).argmax(1)
    assert (said == images.labels).float().mean() > 0.7


def test_a_teacher_cannot_learn_from_labels_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = DataFacts(train_images=1000, classes=0)
    monkeypatch.setattr(trainables.planning.check, "check_data", lambda spec: facts)
    trial = tiny(
        "compress",
        teacher={"arch": "test_resnet", "train": {"method": "supervised", "epochs": 1}},
        probe={"score": "rankme", "record": []},
    )
    with pytest.raises(UserError, match=r"'supervised' needs labels, and these images have none"):
        TrialChecker().check(trial)
