"""The training loop of all methods and engines, for one worker or many: `train(trial, report, workspace)`.

An epoch ends with probe -> checkpoint -> report, in this order. So a reported epoch is always on the disk; a
resumed trial reports the checkpoint's epoch again. The report returns whether to continue.

    train(trial, lambda report: print(report) or True, Workspace(folder, cache, teachers))
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from trainables.core.checksums import is_whole
from trainables.core.errors import TrialFailed
from trainables.core.file_lock import FileLock
from trainables.core.file_transfer import FileTransfer
from trainables.core.files import own_folder, replacing
from trainables.core.heartbeat import heartbeat
from trainables.core.isolation import isolated
from trainables.core.storage_retry import with_retry
from trainables.core.workers import from_first, on_each, world_size
from trainables.data.data_sets import open_data
from trainables.data.store_images import StoreDamaged
from trainables.spec.trial import TrialSpec
from trainables.training.run import Run, check_with_data
from trainables.training.teacher_file import fits_head, save_teacher, teacher_file, trainings
from trainables.training.workspace import EpochReport, Report, Workspace

_log = logging.getLogger(__name__)
_POLL_S = 0.2  # interval of checks whether another process has finished the teacher


def train(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Train `trial` to its last epoch or until `report` returns False, from its checkpoint if there is one.

    A trained teacher must exist: call `prepare` first. With a process group every worker calls this with the
    same arguments, and the first worker's answer counts. Writes `best.safetensors` (the student with the best
    score so far) and `checkpoints/` into the workspace's folder. Raises, on every worker alike, `UserError`
    for a trial that cannot work and `TrialFailed` if a loss is not finite or explodes.
    """
    _train(trial, workspace, report)


def prepare(trial: TrialSpec, workspace: Workspace, report: Report | None = None) -> None:
    """Decode the data and train what is missing: teachers, their heads, and what the student starts from.

    `report` gets the epochs of these trainings, counted through; the metric `head` is 1 where a head is
    fitted. Several processes may call this at once: one
    works and the others wait. If it dies, the next process continues from its checkpoint. With a process
    group every worker calls this, and all of them train. A `report` that returns False leaves a training
    unfinished. Raises the errors of `train`.
    """
    data = on_each(lambda: open_data(trial.data, workspace.cache))
    needed = from_first(lambda: trainings(trial, lambda one: teacher_file(one, workspace.teachers).exists()))
    if needed:
        check_with_data(trial, data)  # before the trainings, which would be wasted
    done = 0
    for training in needed:
        on_each(functools.partial(open_data, training.data, workspace.cache))
        counted = functools.partial(_counted_from, done, report or (lambda _: True), fits_head(training))
        _make(training, workspace, counted)
        file = teacher_file(training, workspace.teachers)
        if not from_first(file.exists):
            return  # `report` has stopped it
        on_each(functools.partial(workspace.transfer.pull_missing, file))  # the next one may start from it
        done += training.epochs


def _counted_from(done: int, report: Report, head: bool, said: EpochReport) -> bool:
    return report(replace(said, epoch=done + said.epoch, metrics={**said.metrics, "head": float(head)}))


def _make(training: TrialSpec, workspace: Workspace, report: Report) -> None:
    """Train the network of `training`, unless its file is there."""
    file = teacher_file(training, workspace.teachers)
    transfer = workspace.transfer
    place = replace(workspace, folder=workspace.teachers / training.signature())
    with _turn(file) as missing:
        if missing:
            try:
                _train(training, place, report, lambda run: _make_teacher(run, file))
            except TrialFailed as error:
                what = "fitting a head to" if fits_head(training) else "training"
                raise TrialFailed(f"{what} {training.student.arch}, which the trials need: {error}") from None
        else:
            from_first(lambda: _share(file, transfer))


def _train(
    trial: TrialSpec, place: Workspace, report: Report, then: Callable[[Run], None] = lambda run: None
) -> None:
    """Train. If the decoded images prove damaged, decode them again and continue from the last checkpoint."""
    for last in (False, True):
        try:
            with isolated(trial.seed):
                return _run(trial, place, report, then)
        except StoreDamaged:
            # The other workers of a group may wait in a collective, so its engine starts the group again.
            if last or world_size() > 1:
                raise
            _log.warning("decoded images were damaged", exc_info=True)


def _run(trial: TrialSpec, place: Workspace, report: Report, then: Callable[[Run], None]) -> None:
    # A separate frame, which `isolated` can clear when a trial fails.
    run = Run(trial, place)
    _go(run, report)
    then(run)


def _make_teacher(run: Run, file: Path) -> None:
    if run.epoch == run.trial.epochs:
        from_first(lambda: _save_teacher(run, file))


def _go(run: Run, report: Report) -> None:
    while not run.epoch or _goes_on(run, report):
        run.train_epoch()


def _goes_on(run: Run, report: Report) -> bool:
    """Report the last finished epoch and return whether to continue.

    After a restart it is the checkpoint's epoch, whose report may have been lost.
    """
    answer = report(EpochReport(run.epoch, dict(run.metrics)))
    return from_first(lambda: answer) and run.epoch < run.trial.epochs


def _save_teacher(run: Run, file: Path) -> None:
    def write() -> None:
        with replacing(file) as temporary:
            save_teacher(run.method, temporary, run.trial)

    with_retry(write, f"{file} cannot be written")
    run.workspace.transfer.push(file)


def _share(file: Path, transfer: FileTransfer) -> None:
    """Push the teacher to the storage if it is only on this node: its process died before the push."""
    if file.name not in transfer.names(file.parent):
        transfer.push(file)


@contextlib.contextmanager
def _turn(file: Path) -> Iterator[bool]:
    """Wait until `file` exists and is intact (yields False) or this process may make it (yields True).

    The workers of one group poll together. So no worker waits long in a collective while the first one waits
    for a process outside the group.
    """

    locks: list[FileLock] = []  # one, on the first worker

    def open_lock() -> None:
        own_folder(file.parent)
        locks.append(FileLock(file.with_suffix(".lock")))

    from_first(lambda: with_retry(open_lock, f"{file.parent} cannot be written"))

    def look() -> bool | None:
        if is_whole(file):  # a damaged file is made again
            return False
        if not locks[0].try_take():
            return None
        return not is_whole(file)  # another process may have finished it before the lock was taken

    try:
        while (mine := from_first(look)) is None:
            heartbeat("waiting for another process that trains the teacher")
            time.sleep(_POLL_S)
        yield mine
    finally:
        for lock in locks:
            lock.close()
