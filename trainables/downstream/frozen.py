"""Tasks on frozen features: a probe is fitted on all labelled training images and read on the test split."""

from __future__ import annotations

from trainables.core.errors import UserError
from trainables.core.workers import device, on_each
from trainables.data.data_sets import open_data
from trainables.data.sources import find_source
from trainables.downstream.outcome import Outcome
from trainables.evaluation.evaluate import Examiner
from trainables.networks.backbones import Backbone
from trainables.spec.suite import FrozenTask
from trainables.spec.trial import ProbeSpec, TrialSpec
from trainables.training.workspace import Workspace
from trainables.views.augmented import evaluation_view


def frozen(task: FrozenTask, network: Backbone, trial: TrialSpec, seed: int, workspace: Workspace) -> Outcome:
    """The outcome of a probe. Raises `UserError` for data without a labelled test split."""
    spec = task.data_of(trial.data)
    data = on_each(lambda: open_data(spec, workspace.cache))
    if data.test is None or not data.classes:
        raise UserError("data.name", "has no labelled test split", value=spec.name)
    probe = ProbeSpec(score=task.probe, record=())
    view = evaluation_view(spec, network.inputs)
    examiner = Examiner(probe, data, view, device(), final=True)
    found = examiner.evaluate(network.to(device()))
    metric = find_source(spec.name).metric
    return Outcome(found["score"], metric, len(examiner.fit_ids), len(examiner.val_ids))
