"""What can be known to be wrong with a task before it runs, and what it costs. Nothing is decoded or trained.

check_task(task, trial, workers=1, who="student")      # raises UserError
task_cost(task, trial)                  # Cost(encoded=1797, trained=0), images
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from trainables.core.errors import UserError
from trainables.data.data_sets import DataFacts, check_data, check_pictures
from trainables.data.sources import find_source
from trainables.downstream.classifier import has_layers
from trainables.downstream.detection.check import check_detection, detection_cost
from trainables.downstream.fitting import cut_to
from trainables.downstream.frozen import usable_probe
from trainables.downstream.parts import check_list
from trainables.downstream.subject import Who
from trainables.downstream.trained import LEAST, candidates
from trainables.evaluation.probes.base import Probe
from trainables.networks.backbones import backbone_facts, build_backbone
from trainables.spec.suite import CHOOSES, FrozenTask, SuiteTask
from trainables.spec.suite_labels import ALL, PER_CLASS, LabelledTask
from trainables.spec.suite_trained import FineTuneTask, TrainedTask
from trainables.spec.trial import DataSpec, TrialSpec, WeightsSpec
from trainables.training.optimizer import check_optim
from trainables.views.recipes import check_views


class Cost(NamedTuple):
    """What a task does with images, each pass counted."""

    encoded: int  # forward passes
    trained: int  # forward and backward passes


class _Counts(NamedTuple):
    """The numbers of images of a task."""

    fit: int  # that a candidate learns from
    held: int  # that candidates are compared on
    final: int  # that the chosen one learns from
    test: int
    refitted: bool  # whether the chosen one is trained anew


def check_task(task: SuiteTask, trial: TrialSpec, workers: int = 1, who: Who = "student") -> None:
    """Raise `UserError`, with the field's path in the task, for one that cannot work on a network of `trial`.

    `who` is the network, as of `open_subject`; `workers` is how many of them run the task together. A task is
    refused whose data are not there or have no labelled test split, that wants more labels than there are or
    names that no image has, with a probe that is unknown or gives no percentage, with settings that cannot
    train on so many images and workers, or with images that the network cannot take.
    """
    KINDS[task.task].check(task, trial, workers, who)


def task_cost(task: SuiteTask, trial: TrialSpec) -> Cost:
    """The images that a task encodes and trains on, from what is known of the data before decoding.

    Shares are rounded class by class, so a few labels more or less are possible. Raises `UserError` for data
    that are not there.
    """
    return Cost(*KINDS[task.task].cost(task, trial))


class Kind(NamedTuple):
    """How tasks of a kind are checked, and what they cost."""

    check: Callable[[Any, TrialSpec, int, Who], None]
    cost: Callable[[Any, TrialSpec], tuple[int, int]]


def _check_frozen(task: FrozenTask, trial: TrialSpec, workers: int, who: Who) -> None:
    probe = usable_probe(task.probe)
    spec, facts = _check_labels(task, trial, who)
    if type(probe).hits is Probe.hits and find_source(spec.name).metric != "top1":
        problem = f"says nothing about single images, and {spec.name} is scored by the mean over its classes"
        raise UserError("probe", problem, value=task.probe, expected="ridge, ridge_Kshot, knn or logistic")
    if probe.shots is None:
        return
    if task.labels != ALL:
        problem = (
            "goes with a probe that takes all labels it is given: this one draws some of each class itself"
        )
        raise UserError("labels", problem, value=task.labels, expected="all, or `probe: ridge`")
    images = min(facts.probe_images + facts.validation_images, task.max_images)
    if probe.shots * facts.classes > images:
        problem = f"{probe.shots} labels for each of {facts.classes} classes are more than there are images"
        raise UserError(
            "probe", problem, value=task.probe, expected=f"at most {images // facts.classes} a class"
        )


def _check_trained(task: TrainedTask, trial: TrialSpec, workers: int, who: Who) -> None:
    spec, facts = _check_labels(task, trial, who)
    recipe = check_views(task.views)
    if recipe.pad and spec.fit == "whole":
        problem = "crops from a border, which `data.fit: whole` does not allow"
        raise UserError("views.recipe", problem, value=task.views.recipe, expected="resized crops: imagenet")
    counts = _counts(task, spec, facts)
    workers = workers if counts.fit >= LEAST * workers else 1
    for images in {counts.fit, counts.final}:
        for lr in task.lr:
            check_optim(cut_to(task.optim_spec(lr), images, workers), task.epochs, images, workers)
    decays = isinstance(task, FineTuneTask) and any(decay < 1 for decay in task.layer_decay)
    network = _network(trial, who).model
    if decays and not has_layers(build_backbone(network, 0).model):
        problem = "needs an order of layers, and timm knows none of this network"
        raise UserError("layer_decay", problem, value=network.arch, expected="[1], or a network of timm")


def _network(trial: TrialSpec, who: Who) -> WeightsSpec:
    if who != "teacher":
        return trial.student
    assert trial.teacher is not None
    return trial.teacher


def _check_labels(task: LabelledTask, trial: TrialSpec, who: Who) -> tuple[DataSpec, DataFacts]:
    """Data and labels of a task, and that the network can take the images."""
    spec = task.data_of(trial.data)
    facts = check_data(spec)
    if spec != trial.data:
        check_pictures(spec)
    if not facts.classes or not facts.test_images:
        raise UserError("data.name", "has no labelled test split", value=spec.name)
    pool = facts.probe_images + facts.validation_images
    if isinstance(task.labels, Mapping) and task.labels[PER_CLASS] * facts.classes > pool:
        wanted = f"{task.labels[PER_CLASS]} labels for each of {facts.classes} classes"
        problem = f"{wanted} are more than the {pool} labelled images"
        expected = f"at most {pool // facts.classes} a class"
        raise UserError("labels.per_class", problem, value=task.labels[PER_CLASS], expected=expected)
    if task.label_file is not None:
        check_list(task.label_file, spec)
    network = _network(trial, who)
    if network.side(spec) != network.side(trial.data):
        backbone_facts(network.model, spec.image_size, network.section)
    return spec, facts


def _counts(task: LabelledTask, spec: DataSpec, facts: DataFacts) -> _Counts:
    pool = facts.probe_images + facts.validation_images
    if task.labels == ALL:
        return _Counts(facts.probe_images, facts.validation_images, pool, facts.test_images, True)
    if isinstance(task.labels, Mapping):
        few = min(pool, task.labels[PER_CLASS] * facts.classes)
    elif isinstance(task.labels, float):
        few = max(facts.classes, round(task.labels * pool))
    else:
        assert task.label_file is not None
        few = check_list(task.label_file, spec)
    held = round(facts.validation_images * (1 - few / pool))
    return _Counts(few, held, few, facts.test_images, False)


def _frozen_cost(task: FrozenTask, trial: TrialSpec) -> Cost:
    spec = task.data_of(trial.data)
    counts = _counts(task, spec, check_data(spec))
    encoded = min(counts.final, task.max_images)
    if task.probe == CHOOSES and len(task.strengths) > 1 and not counts.refitted:
        encoded += min(counts.held, task.max_images)
    return Cost(encoded + counts.test, 0)


def _trained_cost(task: TrainedTask, trial: TrialSpec) -> Cost:
    spec = task.data_of(trial.data)
    counts = _counts(task, spec, check_data(spec))
    compared = len(candidates(task)) if len(candidates(task)) > 1 else 0
    last = _of_an_epoch(task, counts.final) if counts.refitted or not compared else 0
    learned = task.epochs * (compared * _of_an_epoch(task, counts.fit) + last)
    read = compared * counts.held + counts.test
    return Cost(read, learned) if isinstance(task, FineTuneTask) else Cost(read + learned, 0)


def _of_an_epoch(task: TrainedTask, images: int) -> int:
    """The images of an epoch's whole batches."""
    batch = cut_to(task.optim_spec(task.lr[0]), images, 1).batch_size
    return images // batch * batch


# Kind of task -> how it is checked, and what it costs.
KINDS: Mapping[str, Kind] = {
    "frozen": Kind(_check_frozen, _frozen_cost),
    "linear": Kind(_check_trained, _trained_cost),
    "finetune": Kind(_check_trained, _trained_cost),
    "detection": Kind(check_detection, lambda task, trial: Cost(*detection_cost(task, trial))),
}
