"""The task `detection`: a network is fine-tuned in a detector and scored on the validation images."""

from __future__ import annotations

import copy

import torch

from trainables.core.isolation import isolated
from trainables.core.workers import device, from_first, on_each, rank, world_size
from trainables.downstream.detection.detectors import build_detector
from trainables.downstream.detection.masks import check_pycocotools
from trainables.downstream.detection.reading import read_data
from trainables.downstream.detection.scoring import find, score
from trainables.downstream.detection.training import Training
from trainables.downstream.outcome import Outcome
from trainables.downstream.subject import network_digest
from trainables.networks.backbones import Backbone
from trainables.spec.suite_detection import DetectionTask
from trainables.spec.trial import TrialSpec
from trainables.training.checkpoints import Checkpoints
from trainables.training.workspace import Workspace

METRIC = "box_map"
_CHECKPOINTS = "detection"  # in the workspace's folder


def detection(
    task: DetectionTask, network: Backbone, trial: TrialSpec, seed: int, workspace: Workspace
) -> Outcome:
    """The outcome of a detector around a copy of `network`: mean average precision of boxes, in percent.

    With a process group every worker calls this and trains on a share of each batch. `fitted` counts the
    images that were trained on. Raises `UserError` for what `check_detection` refuses and for an image that
    cannot be decoded, `TrialFailed` for a loss that is not finite.
    """
    on_each(check_pycocotools)
    with isolated(seed):
        return _detection(task, copy.deepcopy(network), trial, seed, workspace)


def _detection(
    task: DetectionTask, network: Backbone, trial: TrialSpec, seed: int, workspace: Workspace
) -> Outcome:
    # A separate frame, which `isolated` can clear when a training fails.
    data = on_each(lambda: read_data(task))
    identity = f"{from_first(lambda: task.key(trial.data))} {seed} {network_digest(network)}"
    detector = build_detector(task, network, len(data.categories)).to(device())
    if world_size() > 1:  # new layers are the same on all; what each samples is not
        torch.manual_seed((seed + 1_000_003 * rank()) % 2**63)
    training = Training(task, detector, data.train, data.categories, seed, device())
    training.run(Checkpoints(workspace.folder / _CHECKPOINTS, workspace.transfer), identity)
    found = score(data.val, data.categories, find(detector, data.val, device()))
    return Outcome(found.pop(METRIC), METRIC, len(data.train), len(data.val), further=found)
