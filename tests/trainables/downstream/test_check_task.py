"""Tasks that cannot work are refused before they run, and their cost is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from tasks import DIGITS, network, outcome, task_of
from tiny_trials import tiny
from torch import nn

from trainables.core.errors import UserError
from trainables.downstream.check import check_task, task_cost
from trainables.evaluation import probes
from trainables.spec.trial import TrialSpec


def refusal(kind: str, trial: TrialSpec = DIGITS, workers: int = 1, **fields: Any) -> UserError:
    with pytest.raises(UserError) as found:
        check_task(task_of(kind, **fields), trial, workers)
    return found.value


@pytest.mark.parametrize(
    ("kind", "fields", "field", "word"),
    [
        ("frozen", {"probe": "rigde"}, "probe", "'ridge'"),
        ("frozen", {"probe": "rankme"}, "probe", "no percentage"),
        ("frozen", {"probe": "ridge_Kshot"}, "probe", "K has to be a number"),
        ("frozen", {"probe": "ridge_400shot"}, "probe", "at most 134 a class"),
        ("frozen", {"probe": "ridge_5shot", "labels": 0.1}, "labels", "draws some of each class itself"),
        ("frozen", {"labels": {"per_class": 200}}, "labels.per_class", "at most 134 a class"),
        ("frozen", {"labels": "al"}, "labels", "Did you mean 'all'"),
        ("frozen", {"labels": "/etc/hostname"}, "labels", "no files with names"),
        ("frozen", {"data": {"nam": "digits"}}, "data.nam", "'name'"),
        ("frozen", {"data": {"name": "mnist5k"}}, "data.name", "'mnist_5k'"),
        ("frozen", {"data": {"name": "cifar10", "path": "/nowhere"}}, "data.path", "CIFAR-10"),
        ("frozen", {"data": {"image_size": 4}}, "data.image_size", "greater than or equal to 8"),
        ("linear", {"views": {"recipe": "imagnet"}}, "views.recipe", "'imagenet'"),
        ("linear", {"views": {"recipe": "cifar"}, "data": {"fit": "whole"}}, "views.recipe", "border"),
        ("linear", {"optim": {"optimizer": "sdg", "schedule": "cosine"}}, "optim.optimizer", "'sgd'"),
        ("finetune", {"optim": {"accumulate": 5, "batch_size": 64}}, "optim.batch_size", "micro-batches"),
        ("finetune", {"optim": {"min_lr": 1.0}, "lr": 0.1}, "optim.min_lr", "above lr"),
    ],
)
def test_what_cannot_work_is_refused(kind: str, fields: dict[str, Any], field: str, word: str) -> None:
    error = refusal(kind, **fields)
    assert error.field == field and word in str(error), str(error)


def test_data_without_a_labelled_test_split_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("L", (16, 16), i).save(tmp_path / name / f"{i}.png")
    error = refusal("frozen", data={"name": "folder", "path": str(tmp_path)})
    assert error.field == "data.name" and "no labelled test split" in str(error)


def test_networks_that_cannot_do_it_are_refused() -> None:
    fixed = tiny("supervised", student={"arch": "raykd/mlp_32", "options": {"side": 16}})
    assert refusal("frozen", fixed, data={"image_size": 32}).field == "student.options.side"
    own = tiny("retro", student={"arch": "raykd/resnet9"})
    decays = task_of("finetune", layer_decay=[1, 0.7])
    assert refusal("finetune", own, layer_decay=[1, 0.7]).field == "layer_decay"
    check_task(decays, own, who="teacher")
    check_task(task_of("finetune"), own)


def test_few_labels_are_trained_on_by_one_worker_alone() -> None:
    """A batch of 20 images cannot be split over 16 workers."""
    check_task(task_of("linear", labels={"per_class": 2}), DIGITS, workers=16)
    assert refusal("linear", workers=7).field == "optim.batch_size"  # 64 images cannot, either


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("frozen", {}),
        ("frozen", {"probe": "ridge_5shot"}),
        ("frozen", {"probe": "logistic", "strengths": [0.1, 1]}),
        ("frozen", {"probe": "logistic", "strengths": [0.1, 1], "labels": {"per_class": 20}}),
        ("linear", {"lr": [1, 2], "epochs": 1}),
        ("linear", {"lr": 1, "labels": {"per_class": 8}}),
        ("finetune", {"lr": [0.01, 0.02], "labels": {"per_class": 8}}),
    ],
)
def test_the_cost_is_what_is_encoded_and_trained_on(
    tmp_path_factory: pytest.TempPathFactory, kind: str, fields: dict[str, Any]
) -> None:
    passed = {False: 0, True: 0}
    subject = network()

    def count(module: nn.Module, given: Any, answer: Any) -> None:
        passed[answer.requires_grad] += len(answer)

    subject.register_forward_hook(count)  # copies of the network count, too
    root = tmp_path_factory.getbasetemp() / "cost"
    outcome(root, kind, of=subject, **fields)
    cost = task_cost(task_of(kind, **fields), DIGITS)
    assert cost.trained == passed[True]
    assert cost.encoded == pytest.approx(passed[False], abs=60)  # validation images among few labels


def test_a_probe_that_says_nothing_of_images_is_no_mean_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    knn = probes.load_probe("knn")
    monkeypatch.setattr(type(knn), "hits", probes.Probe.hits)
    check_task(task_of("frozen", probe="knn"), DIGITS)
    monkeypatch.setattr(
        "trainables.downstream.check.find_source", lambda name: SimpleNamespace(metric="mean_per_class")
    )
    assert refusal("frozen", probe="knn").field == "probe"
