"""What the lane benchmark trains: nothing, or a small real trial; both say when they began."""

from __future__ import annotations

import time

from trainables.spec.trial import TrialSpec
from trainables.training import loop
from trainables.training.workspace import EpochReport, Report, Workspace


def nothing(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Epochs without computation."""
    began = time.time()
    for epoch in range(1, trial.epochs + 1):
        if not report(EpochReport(epoch, {"score": float(epoch), "began": began})):
            return


def real(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Real training."""
    began = time.time()

    def stamped(said: EpochReport) -> bool:
        return report(EpochReport(said.epoch, {**said.metrics, "began": began}))

    loop.train(trial, stamped, workspace)


def prepare(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Only the data; the trials need no teacher."""
    loop.prepare(trial, workspace)
