"""Trainables for tests of the engine, which runs any: they count instead of training, and keep what they did.

Imported by lane workers, so this folder must be on their PYTHONPATH.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.distributed as dist

from trainables.core.errors import UserError
from trainables.core.heartbeat import heartbeat
from trainables.data.store_images import StoreDamaged
from trainables.spec.trial import TrialSpec
from trainables.training import loop
from trainables.training.workspace import EpochReport, Report, Workspace


def count(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """One epoch after another, going on from the last one written down; `pause` seconds each."""
    workspace.folder.mkdir(parents=True, exist_ok=True)
    state = workspace.folder / "epoch"
    (workspace.folder / "pid").write_text(str(os.getpid()))
    done = int(state.read_text()) if state.exists() else 0
    with (workspace.folder / "starts").open("a") as starts:
        starts.write(f"{done}\n")
    if dist.is_initialized():
        dist.barrier()  # no rank may find what another one of this start has written
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


def fail_on(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """As `count`, but a sick GPU, as CUDA tells of it, in epoch 3 on those whose numbers are in a file."""
    mine = os.environ["CUDA_VISIBLE_DEVICES"]

    def failing(said: EpochReport) -> bool:
        with (workspace.folder / "gpus").open("a") as gpus:
            gpus.write(f"{mine}\n")
        if said.epoch == 3 and mine in Path(trial.config["sick"]).read_text().split():
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nand torch's advice")
        return report(said)

    count(trial, failing, workspace)


def crowd(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """As `count`, but epoch 2 needs more of a GPU's memory than a share, or than there is (`hopeless`)."""

    def growing(said: EpochReport) -> bool:
        alone = int(os.environ.get("RAYKD_TEST_ALONE", "0"))
        if said.epoch == 2 and (not alone or "hopeless" in trial.config):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 44.00 GiB. GPU 0 has no more")
        return report(said)

    count(trial, growing, workspace)


def spoil(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """As `count_together`, but on its first try the last rank meets a damaged image in the third epoch."""
    first = not (workspace.folder / "starts").exists()

    def damaged(said: EpochReport) -> bool:
        if first and said.epoch == 3 and dist.get_rank() == dist.get_world_size() - 1:
            raise StoreDamaged("image 17 of train.arrow is not what was written; it will be decoded again")
        dist.barrier()
        return report(said)

    dist.barrier()
    count(trial, damaged, workspace)


def refuse(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """A setting that the data cannot serve."""
    raise UserError(
        "config.anchors_per_class", "too many: class 2 has 5 images", value=9, expected="at most 5"
    )


def hang(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """As `count_together`, but for the third epoch: there the last rank stops answering on its first try, and
    runs round in circles on every later one, while the others wait for it in a collective."""
    before = workspace.folder / "starts"
    tries = len(before.read_text().split()) if before.exists() else 0

    def stuck(said: EpochReport) -> bool:
        heartbeat(f"epoch {said.epoch}")
        if said.epoch == 3 and dist.get_rank() == dist.get_world_size() - 1:
            if not tries:
                (workspace.folder / "stopped").write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGSTOP)
            while True:
                pass
        dist.barrier()
        return report(said)

    dist.barrier()
    count(trial, stuck, workspace)


def ask_for(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Asks for memory as `what` says: of torch, of NumPy, or slowly, until somebody ends it."""
    match trial.config["what"]:
        case "torch":
            torch.empty(2**50)
        case "numpy":
            np.empty(2**50)
        case "slowly":
            held = []
            for _ in range(int(trial.config["mib"])):
                held.append(bytearray(os.urandom(1)) * 2**20)
                time.sleep(0.001)
            time.sleep(30)


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
