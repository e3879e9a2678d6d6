"""What is known to be wrong with a trial before it starts. test_validate.py has the cases of whole sweeps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import trainables.methods.base
import trainables.planning.check
import trainables.training.memory
from trainables.core.errors import UserError
from trainables.data.data_sets import check_data
from trainables.methods import methods
from trainables.methods.base import Method
from trainables.methods.parts.classifier import Labelled, LabelledConfig
from trainables.networks.backbones import BackboneFacts, backbone_facts
from trainables.planning.check import TrialChecker
from trainables.spec.trial import DataSpec, ModelSpec
from trainables.training.resolve import resolve

torch.set_num_threads(1)


def raw(**change: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "method": "moco",
        "student": {"arch": "test_efficientnet"},
        "config": {"queue_size": 256},
        "epochs": 2,
    }
    return {**base, **change}


def refused(trial: dict[str, Any], workers: int = 1) -> UserError:
    with pytest.raises(UserError) as caught:
        TrialChecker(workers).check(resolve(trial))
    return caught.value


@pytest.fixture
def unlabelled(tmp_path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    for at in range(40):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(tmp_path / f"{at}.png")
    return {"name": "folder", "path": str(tmp_path)}


def test_a_trial_that_can_work() -> None:
    TrialChecker().check(resolve(raw()))
    TrialChecker(workers=4).check(resolve(raw()))


def test_workers_have_to_divide_the_batch() -> None:
    assert refused(raw(), workers=3).field == "optim.batch_size"


def test_unlabelled_images_need_a_score_without_labels(unlabelled: dict[str, Any]) -> None:
    small = raw(data=unlabelled, config={"queue_size": 16}, optim={"batch_size": 8})
    assert refused(small).field == "probe.score"
    TrialChecker().check(resolve({**small, "probe": {"score": "rankme", "record": []}}))


def test_a_method_that_needs_labels(unlabelled: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainables.methods.base, "registry", dict(methods()))

    class Taught(Method):
        name = "taught"
        summary = "learns from labels"
        needs = frozenset({"labels"})

    error = refused(raw(method="taught", config={}, data=unlabelled))
    assert error.field == "data.name" and "'taught' needs labels" in str(error)
    TrialChecker().check(resolve(raw(method="taught", config={})))

    class Sometimes(Labelled):
        name = "sometimes"
        summary = "learns from labels, if asked to"

        class Config(LabelledConfig):
            pass

    plain = {"probe": {"score": "rankme", "record": []}, "optim": {"batch_size": 8}, "data": unlabelled}
    TrialChecker().check(resolve(raw(method="sometimes", config={}, **plain)))
    error = refused(raw(method="sometimes", config={"ce_weight": 0.5}, **plain))
    assert error.field == "data.name" and "'sometimes' with ce_weight: 0.5 needs labels" in str(error)


def test_a_method_that_needs_feature_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainables.methods.base, "registry", dict(methods()))

    class Inside(Method):
        name = "inside"
        summary = "compares feature maps"
        needs = frozenset({"teacher", "feature_maps"})

    teacher = {"arch": "test_resnet", "train": {"method": "moco", "epochs": 1, "config": {"queue_size": 256}}}
    TrialChecker().check(resolve(raw(method="inside", config={}, teacher=teacher)))
    real = backbone_facts

    def flat(spec: ModelSpec, *rest: Any) -> BackboneFacts:
        facts = real(spec, *rest)
        return dataclasses.replace(facts, stages=()) if spec.arch == "test_resnet" else facts

    monkeypatch.setattr(trainables.training.memory, "backbone_facts", flat)
    error = refused(raw(method="inside", config={}, teacher=teacher))
    assert error.field == "teacher.arch" and "compares feature maps" in str(error)
    student = {"arch": "test_resnet"}
    assert refused(raw(method="inside", config={}, teacher=teacher, student=student)).field == "student.arch"


def test_more_anchors_of_a_class_than_it_has_images() -> None:
    teacher = {"arch": "test_resnet", "train": {"method": "moco", "epochs": 1, "config": {"queue_size": 256}}}
    most = min(check_data(DataSpec()).class_images)  # what no total tells: below the mean of the classes
    asked = {count: {"anchors": "per_class", "anchors_per_class": count} for count in (most, most + 1)}
    TrialChecker().check(resolve(raw(method="rrkd", config=asked[most], teacher=teacher)))
    error = refused(raw(method="rrkd", config=asked[most + 1], teacher=teacher))
    assert error.field == "config.anchors_per_class" and f"has {most} training images" in str(error)


def test_a_teachers_training_is_checked_too() -> None:
    training = {"method": "moco", "epochs": 1, "config": {"queue_size": 200}}
    trial = raw(method="retro", teacher={"arch": "test_resnet", "train": training})
    error = refused(trial)
    assert error.field == "teacher.train.config.queue_size" and "preset" not in str(error)


def test_a_teachers_default_that_the_data_refuse_is_mended_by_a_preset() -> None:
    trial = raw(method="compress", teacher={"arch": "test_resnet", "train": {"method": "moco", "epochs": 1}})
    error = refused(trial)
    assert error.field == "teacher.train.config.queue_size"
    assert "`train: {preset: digits}`" in str(error) and str(error).count("teacher.train.config") == 1
    trial["teacher"]["train"]["preset"] = "digits"
    TrialChecker().check(resolve(trial))


def test_a_teacher_has_to_take_the_images() -> None:
    trial = raw(method="retro", teacher={"arch": "test_convnext", "train": {"method": "moco", "epochs": 1}})
    assert refused(trial).field == "teacher.arch"


def test_what_is_slow_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        trainables.planning.check, "check_data", lambda spec: asked.append(spec) or check_data(spec)
    )
    checker = TrialChecker()
    for lr in (0.1, 0.2, 0.3):
        checker.check(resolve(raw(optim={"lr": lr})))
    assert len(asked) == 1
    checker.check(resolve(raw(data={"image_size": 32})))
    assert len(asked) == 2


def test_two_views_without_augmentation_are_one() -> None:
    for views, field in (({"recipe": "none"}, "views.recipe"), ({"strength": 0}, "views.strength")):
        assert refused(raw(views=views)).field == field
    teacher = {"arch": "test_resnet", "train": {"method": "moco", "epochs": 1, "config": {"queue_size": 256}}}
    # Against a teacher a view has something to learn from all the same.
    TrialChecker().check(resolve(raw(method="retro", teacher=teacher, views={"recipe": "none"})))
