"""Removes the checkpoints of trials that have ended, so that a sweep's storage does not grow with them.

A checkpoint holds the student, the method's other networks and queues, and the optimizer: some 240 MB for
RETRO, and a trial has two. After its end a trial needs `best.safetensors` alone: results come from the
ledger, and `export` reads the student. `--repair`, which may train such a trial again, then begins at its
first epoch. A failed trial keeps its checkpoints: it may be tried again.
"""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path
from types import TracebackType

from raykd.process import signals
from raykd.records.history import ENDED_WELL, History
from raykd.records.ledger import TRIALS, Record
from raykd.storage.base import SweepFolder
from trainables.core import storage_retry
from trainables.core.errors import SweepFailed, UserError

log = logging.getLogger("raykd.runs.ended")
_BRIEF_S = 5.0  # for the files of one trial; what cannot be removed now the next driver removes
_AT_END_S = 10.0  # for what is left when a sweep has ended
_NOW, _BEFORE, _OVER = range(3)  # in this order: trials of this driver, those of earlier ones, the end


class EndedTrials:
    """A listener of the recorder: a thread removes the checkpoints of each trial that ends.

    It does so after the ledger holds the end. Trials that ended under earlier drivers, of which it does not
    know whether anything is left, come last: looking costs a request a trial on an object store. The driver
    waits for the storage only at its end, and briefly. `sweep` is as every node knows it.
    """

    def __init__(self, sweep: SweepFolder, history: History) -> None:
        self._sweep = sweep
        self._waiting: queue.PriorityQueue[tuple[int, str]] = queue.PriorityQueue()
        for trial in history.trials.values():
            if trial.status in ENDED_WELL:
                self._waiting.put((_BEFORE, trial.trial))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ended trials", daemon=True)

    def __call__(self, record: Record, history: History) -> None:
        """Take in a record of the ledger."""
        if record["kind"] == "end" and record["status"] in ENDED_WELL:
            self._waiting.put((_NOW, record["trial"]))

    def __enter__(self) -> EndedTrials:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Wait a little for what is left; not when the sweep ends early. The next driver removes the rest."""
        self._waiting.put((_OVER, ""))
        if error is None and not signals.received():
            self._thread.join(_AT_END_S)
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            turn, trial = self._waiting.get()
            if turn == _OVER:
                return
            try:
                with storage_retry.limited(_BRIEF_S):
                    self._remove(self._sweep.path / TRIALS / trial / "checkpoints")
            except (OSError, SweepFailed, UserError):
                log.warning("the checkpoints of trial %s were not removed", trial, exc_info=True)

    def _remove(self, folder: Path) -> None:
        from trainables.training.checkpoints import Checkpoints

        Checkpoints(folder, self._sweep.storage).discard()
