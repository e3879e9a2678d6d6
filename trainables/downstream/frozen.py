"""Tasks on frozen features: a probe is fitted on the labelled training images and read on the test split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainables.core.errors import TrialFailed, UserError
from trainables.core.heartbeat import heartbeat_while
from trainables.core.precision import whole_float32
from trainables.core.workers import device, from_first, on_each
from trainables.data.data_sets import open_data
from trainables.data.encode import encode_together
from trainables.data.sources import find_source
from trainables.data.sources.base import Metric
from trainables.downstream.outcome import Outcome, score_of
from trainables.downstream.parts import parts_of, tested
from trainables.evaluation.evaluate import spread
from trainables.evaluation.probes import load_probe, probes
from trainables.evaluation.probes.base import Features, Probe
from trainables.evaluation.probes.logistic import fitted_hits
from trainables.networks.backbones import Backbone
from trainables.spec.suite import CHOOSES, FrozenTask
from trainables.spec.trial import TrialSpec
from trainables.training.workspace import Workspace
from trainables.views.augmented import evaluation_view


def usable_probe(name: str) -> Probe:
    """The probe called `name`. Raises `UserError` for one whose number is no percentage of images."""
    found = load_probe(name)
    if not found.counts_images or not found.higher_is_better or not found.needs_labels:
        able = sorted(kind.label for kind in probes().values() if kind.counts_images and kind.needs_labels)
        problem = "gives no percentage of test images that are classified right"
        raise UserError("probe", problem, value=name, expected=" or ".join(able))
    return found


def frozen(task: FrozenTask, network: Backbone, trial: TrialSpec, seed: int, workspace: Workspace) -> Outcome:
    """The outcome of a probe, everything in float32.

    All workers of a group encode, the first one fits. A strength is chosen before the test split is read.
    Raises `UserError` for data without a labelled test split and for a probe that such data do not allow.
    """
    usable_probe(task.probe)
    spec = task.data_of(trial.data)
    data = on_each(lambda: open_data(spec, workspace.cache))
    test = on_each(lambda: tested(data, spec))
    parts = on_each(lambda: parts_of(task, data, spec, seed, workspace.cache))
    metric, labels = find_source(spec.name).metric, data.train.labels
    fit, held, final = (spread(ids, labels[ids], task.max_images) for ids in parts[:3])
    chooses = task.probe == CHOOSES and len(task.strengths) > 1
    if chooses:
        parts.check_choice("strengths")
    encode, view, where = network.to(device()).eval(), evaluation_view(spec, network.inputs), device()
    with whole_float32():
        every = np.unique(np.concatenate([fit, held, final])) if chooses else final
        encoded = encode_together(encode, data.train, every, view, where)

        def labelled(ids: np.ndarray) -> tuple[Tensor, Tensor]:
            rows = torch.from_numpy(np.searchsorted(every, ids)).to(where)
            return encoded[rows], torch.from_numpy(labels[ids]).to(where)

        further: dict[str, float] = {}
        chosen = {"strength": task.strengths[0]} if task.probe == CHOOSES else {}
        if chooses:
            further = from_first(lambda: _compared(task, Features(*labelled(fit), *labelled(held)), metric))
            chosen = {"strength": max(task.strengths, key=lambda strength: further[_named(strength)])}
        assert data.test is not None
        of_test = encode_together(encode, data.test, test.ids, view, where)
        test_labels = torch.from_numpy(test.labels).to(where)
        hits, score, said = from_first(
            lambda: _read(task, Features(*labelled(final), of_test, test_labels), chosen, seed, metric)
        )
    learned = final if parts.drawn else None
    return Outcome(
        score,
        metric,
        len(final),
        len(test.ids),
        hits,
        test.ids if hits is not None else None,
        test.labels if hits is not None else None,
        chosen,
        {**further, **said},
        learned,
    )


def _named(strength: float) -> str:
    return f"validation/strength={strength:g}"


def _compared(task: FrozenTask, features: Features, metric: Metric) -> dict[str, float]:
    """The scores of every strength on the validation part."""
    _check_finite(features)
    labels = features.val_labels.cpu().numpy()
    scores = {}
    for strength in task.strengths:
        with heartbeat_while(f"logistic regression at strength {strength:g}"):
            hits = fitted_hits(features, strength).numpy()
        scores[_named(strength)] = score_of(hits, labels, metric)
    return scores


def _read(
    task: FrozenTask, features: Features, chosen: dict[str, float], seed: int, metric: Metric
) -> tuple[np.ndarray | None, float, dict[str, float]]:
    """What became of each test image, the score, and what else the probe says."""
    _check_finite(features)
    labels = features.val_labels.cpu().numpy()
    found = load_probe(task.probe)
    with heartbeat_while(f"probe {task.probe} on {len(features.train)} images"):
        hits = fitted_hits(features, chosen["strength"]) if chosen else found.hits(features, task.draws, seed)
        said = found.score(features, task.draws, seed) if hits is None or found.shots is not None else None
    further = {"se": said.se} if said is not None and said.se is not None and metric == "top1" else {}
    if hits is not None:
        of_images = hits.cpu().numpy()
        return of_images, score_of(of_images, labels, metric), further
    if said is None or metric != "top1":
        problem = "says nothing about single images, and this data set is scored by the mean over its classes"
        raise UserError("probe", problem, value=task.probe, expected="ridge, ridge_Kshot, knn or logistic")
    return None, said.score, further


def _check_finite(features: Features) -> None:
    if not bool(torch.isfinite(features.train).all() and torch.isfinite(features.val).all()):
        raise TrialFailed("the network's features hold values that are not finite")
