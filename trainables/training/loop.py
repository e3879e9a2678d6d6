"""The one training loop: `train(trial, report, workspace)`. Every method, every engine, one worker or many.

An epoch ends with probe -> checkpoint -> report, in this order: what was reported is on the disk, and what is
on the disk is reported again when the trial goes on. The report's answer says whether to go on.

    train(trial, lambda report: print(report) or True, Workspace(folder, cache, teachers))
"""

from __future__ import annotations

import contextlib
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
from trainables.training.teacher_file import save_teacher, teacher_file, teacher_trial
from trainables.training.workspace import EpochReport, Report, Workspace

_log = logging.getLogger(__name__)
_POLL_S = 0.2  # between looks at another process that is making a teacher


def train(trial: TrialSpec, report: Report, workspace: Workspace) -> None:
    """Train `trial` to its last epoch or until `report` answers False, from its checkpoint if there is one.

    A teacher that has to be trained has to be there: `prepare` first. With a process group every worker calls
    this with the same arguments, and the first worker's answer counts. Leaves `best.safetensors` (the student
    with the best score so far) and `checkpoints/` in the folder. Raises `UserError` for a trial that cannot
    work and `TrialFailed` when its numbers go bad, on every worker alike.
    """
    _train(trial, workspace, report)


def prepare(trial: TrialSpec, workspace: Workspace, report: Report | None = None) -> None:
    """Decode the data and train the teacher, where either is missing; `report` hears the teacher's epochs.

    Safe in several processes at once: one works, the others wait for it; if it dies, the next goes on from
    its checkpoint. With a process group every worker calls this, and all of them train the teacher. A
    `report` that answers False leaves the teacher unfinished.
    """
    data = on_each(lambda: open_data(trial.data, workspace.cache))
    training = teacher_trial(trial)
    if training is None:
        return
    check_with_data(trial, data)  # else the teacher would be trained for nothing
    file = teacher_file(training, workspace.teachers)
    transfer = workspace.transfer
    place = replace(workspace, folder=workspace.teachers / training.signature())
    with _turn(file) as missing:
        if missing:
            try:
                _train(training, place, report or (lambda _: True), lambda run: _make_teacher(run, file))
            except TrialFailed as error:
                raise TrialFailed(f"training the teacher {training.student.arch}: {error}") from None
        else:
            from_first(lambda: _share(file, transfer))


def _train(
    trial: TrialSpec, place: Workspace, report: Report, then: Callable[[Run], None] = lambda run: None
) -> None:
    """Train, and after damage to the decoded images once more from the last checkpoint, with new ones."""
    for last in (False, True):
        try:
            with isolated(trial.seed):
                return _run(trial, place, report, then)
        except StoreDamaged:
            # A group of workers is started again by its engine: the others may be waiting in a collective.
            if last or world_size() > 1:
                raise
            _log.warning("decoded images were damaged", exc_info=True)


def _run(trial: TrialSpec, place: Workspace, report: Report, then: Callable[[Run], None]) -> None:
    # In a frame of its own, which `isolated` can clear when a trial fails.
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
    """Report the last finished epoch, after a restart the checkpoint's: it may never have arrived."""
    answer = report(EpochReport(run.epoch, dict(run.metrics)))
    return from_first(lambda: answer) and run.epoch < run.trial.epochs


def _save_teacher(run: Run, file: Path) -> None:
    def write() -> None:
        with replacing(file) as temporary:
            save_teacher(run.method, temporary, run.trial)

    with_retry(write, f"{file} cannot be written")
    run.workspace.transfer.push(file)


def _share(file: Path, transfer: FileTransfer) -> None:
    """A teacher that is only on this node: its maker died before the others could have it."""
    if file.name not in transfer.names(file.parent):
        transfer.push(file)


@contextlib.contextmanager
def _turn(file: Path) -> Iterator[bool]:
    """Wait until `file` is there and whole (False) or it is this process's turn to make it (True).

    The workers of one group ask together, in short steps: none may sit in a collective while the first one
    waits for a process that has nothing to do with them.
    """

    locks: list[FileLock] = []  # one, on the first worker

    def open_lock() -> None:
        own_folder(file.parent)
        locks.append(FileLock(file.with_suffix(".lock")))

    from_first(lambda: with_retry(open_lock, f"{file.parent} cannot be written"))

    def look() -> bool | None:
        if is_whole(file):  # one that is damaged is made again
            return False
        if not locks[0].try_take():
            return None
        return not is_whole(file)  # it may have come between the two lines above

    try:
        while (mine := from_first(look)) is None:
            heartbeat("waiting for another process that trains the teacher")
            time.sleep(_POLL_S)
        yield mine
    finally:
        for lock in locks:
            lock.close()
