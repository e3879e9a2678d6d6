"""Runs one task on one network, as an action of a lane.

evaluate(trial, report=report, workspace=workspace, who="student", weights=FILE, task={...}, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from trainables.core.workers import from_first, on_each
from trainables.downstream.detection.run import detection
from trainables.downstream.frozen import frozen
from trainables.downstream.outcome import Outcome
from trainables.downstream.subject import Who, open_subject
from trainables.downstream.trained import trained
from trainables.networks.backbones import Backbone
from trainables.spec.parse import build
from trainables.spec.suite import TASKS
from trainables.spec.trial import TrialSpec
from trainables.training.workspace import EpochReport, Report, Workspace

# Kind of task -> the function that runs it on a network that was trained on the trial's data, with a seed.
# Every worker of a group calls it, and all get the same outcome.
RUNNERS: Mapping[str, Callable[[Any, Backbone, TrialSpec, int, Workspace], Outcome]] = {
    "frozen": frozen,
    "linear": trained,
    "finetune": trained,
    "detection": detection,
}


def evaluate(
    trial: TrialSpec,
    *,
    report: Report,
    workspace: Workspace,
    who: str,
    weights: str | None,
    task: Mapping[str, Any],
    seed: int,
) -> None:
    """Run `task` (a `SuiteTask` as plain types) on a network of `trial`; report its metrics once, as epoch 1.

    `who` and `weights` are those of `open_subject`. What became of each test image is written to the
    workspace's folder. Raises `UserError` for data or settings that cannot work, on every worker of a group
    even if only one of them cannot read a file.
    """
    spec = build(TASKS[task["task"]], task)
    path = None if weights is None else Path(weights)

    def opened() -> Backbone:
        if path is not None:
            workspace.transfer.pull_missing(path)  # another node has trained it
        return open_subject(trial, cast(Who, who), path, workspace.teachers)

    network = on_each(opened)
    outcome = RUNNERS[spec.task](spec, network, trial, seed, workspace)
    from_first(lambda: outcome.write(workspace.folder, workspace.transfer))
    report(EpochReport(1, outcome.metrics()))
