"""Trainables for tests of the engine, which runs any: they count instead of training, and keep what they did.

Imported by lane workers, so this folder must be on their PYTHONPATH.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import torch.distributed as dist

from trainables import loop
from trainables.loop import EpochReport, Report, Workspace
from trainables.trial import TrialSpec


def count(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """One epoch after another, going on from the last one written down; `pause` seconds each."""
    workspace.folder.mkdir(parents=True, exist_ok=True)
    state = workspace.folder / "epoch"
    (workspace.folder / "pid").write_text(str(os.getpid()))
    done = int(state.read_text()) if state.exists() else 0
    with (workspace.folder / "starts").open("a") as starts:
        starts.write(f"{done}\n")
    for epoch in range(max(done, 1), trial.epochs + 1):
        if epoch > done:  # the last one written down may not have been heard: it is said again
            time.sleep(float(trial.config.get("pause", 0.0)))
            if not dist.is_initialized() or dist.get_rank() == 0:
                _write(state, str(epoch))
        said = EpochReport(epoch, {"score": trial.config["gamma"] + epoch, "at": time.time()})
        if not report(said):
            return


def count_together(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """As `count`, with a collective in every epoch, as DDP has them in every step."""

    def together(said: EpochReport) -> bool:
        dist.barrier()
        return report(said)

    dist.barrier()
    count(trial, together, workspace)


def nothing(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """No work at all."""


def die(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Takes its process with it."""
    os._exit(1)


def stumble(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """A bug."""
    raise ZeroDivisionError("a bug in a trainable")


def train_and_weigh(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Real training that also reports the worker's resident memory, MiB."""

    def weighed(said: EpochReport) -> bool:
        rss = psutil.Process().memory_info().rss / 2**20
        return report(EpochReport(said.epoch, {**said.metrics, "rss_mib": rss}))

    loop.train(trial, weighed, workspace)


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
