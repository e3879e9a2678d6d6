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


class EndedTrials:
    """A listener of the recorder: a thread removes the checkpoints of each trial that ends.

    It does so after the ledger holds the end, and first for trials that ended under earlier drivers. The
    driver does not wait for the storage. `sweep` is as every node knows it.
    """

    def __init__(self, sweep: SweepFolder, history: History) -> None:
        self._sweep = sweep
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for trial in history.trials.values():
            if trial.status in ENDED_WELL:
                self._waiting.put(trial.trial)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ended trials", daemon=True)

    def __call__(self, record: Record, history: History) -> None:
        """Take in a record of the ledger."""
        if record["kind"] == "end" and record["status"] in ENDED_WELL:
            self._waiting.put(record["trial"])

    def __enter__(self) -> EndedTrials:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Wait for what is left; not when the sweep ends early, since the next driver removes it."""
        self._waiting.put(None)
        if error is None and not signals.received():
            self._thread.join()
        self._over.set()

    def _run(self) -> None:
        while (trial := self._waiting.get()) is not None and not self._over.is_set():
            try:
                with storage_retry.limited(_BRIEF_S):
                    self._remove(self._sweep.path / TRIALS / trial / "checkpoints")
            except (OSError, SweepFailed, UserError):
                log.warning("the checkpoints of trial %s were not removed", trial, exc_info=True)

    def _remove(self, folder: Path) -> None:
        from trainables.training.checkpoints import Checkpoints

        Checkpoints(folder, self._sweep.storage).discard()
