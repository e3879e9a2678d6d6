"""A listener of the recorder that has one tracker hold the runs of a sweep.

The recorder only notes which run has changed. A thread makes the run from the history and hands it to the
writer's process. So the memory is bounded by the number of trials, the driver waits for nobody, and a tracker
that is slow gets several epochs at once. One that is down is asked again, later and later; what it lacks is
written when it is back, when the driver ends, or by the next driver.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from raykd.records.history import ENDED, History
from raykd.records.ledger import Record
from raykd.records.tracking.base import Off, Place
from raykd.records.tracking.process import Down, WriterProcess
from raykd.records.tracking.run import INTERRUPTED, key_of, reference_run, trial_run
from raykd.records.tracking.written import Written

FOLDER = "tracking"  # in the sweep's folder
_SHARE = 0.05  # of the time of one processor that a driver spends on a tracker, at most
_FIRST_BACK_OFF_S, _BACK_OFF_S = 1.0, 300.0
_LAST_TRIES = 3  # in a row that may fail once the driver ends
_LAST_S = 5.0
_Key = tuple[str, str]  # trial | reference, and its name

log = logging.getLogger("raykd.records.tracking")


class TrackerFeed:
    """Keeps one tracker up to date with a sweep."""

    def __init__(
        self, tracker: str, options: dict[str, Any], folder: Path, tell: Callable[[str], object]
    ) -> None:
        """`folder` is the sweep's. `tell` is given a line for the user where the tracker is down."""
        self.tracker = tracker
        self._options = options
        self._folder = folder / FOLDER
        self._tell = tell
        self._changed = threading.Condition()
        # What has to be written, the oldest first -> up to which epoch it is on the disk; None: all of it.
        self._due: dict[_Key, int | None] = {}
        self._until: float | None = None  # monotonic seconds; set once no more records come
        self._off = False  # the user has switched the tracker off
        self._history: History | None = None
        self._thread: threading.Thread | None = None
        # Of the thread alone:
        self._writer: WriterProcess | None = None
        self._written: Written | None = None
        self._given: dict[str, int] = {}  # run that has not ended -> how many epochs the writer was given
        self._told = False

    # --- called by the recorder and the driver ------------------------------------------------------------

    def __call__(self, record: Record, history: History) -> None:
        """A record was written; `history` holds it already, and perhaps later ones."""
        kind = record["kind"]
        if kind == "start":
            self._note(history, ("trial", record["trial"]), history.trials[record["trial"]].epoch)
        elif kind == "report":
            self._note(history, ("trial", record["trial"]), int(record["epoch"]))
        elif kind == "end":
            self._note(history, ("trial", record["trial"]), None)
        elif kind == "reference":
            self._note(history, ("reference", record["name"]), None)

    def rebuild(self, history: History) -> None:
        """Have everything looked at that `history` holds. Returns at once."""
        for name, trial in history.trials.items():
            if trial.status in ENDED:
                self._note(history, ("trial", name), None)
            elif trial.started is not None:
                self._note(history, ("trial", name), trial.epoch)
        for name in history.references:
            self._note(history, ("reference", name), None)

    def close(self, within: float) -> None:
        """No more records come. Write what is due, for at most so many seconds, and end the process.

        A trial that has not ended is due once more, as interrupted.
        """
        if self._history is None or self._thread is None:
            return
        with self._changed:
            for name, trial in self._history.trials.items():
                if trial.started is not None and trial.status not in ENDED:
                    self._due[("trial", name)] = None
            self._until = time.monotonic() + within
            self._changed.notify_all()
        self._thread.join(within)
        if self._thread.is_alive() and (writer := self._writer) is not None:
            writer.kill()  # what the thread waits for
            self._thread.join(_LAST_S)
        if self._due and not self._off:
            runs = f"{len(self._due)} run{'s' if len(self._due) > 1 else ''}"
            self._tell(f"{self.tracker} lacks {runs} of this sweep; `raykd resume` adds what is missing")

    def _note(self, history: History, key: _Key, until: int | None) -> None:
        with self._changed:
            if self._off:
                return
            self._history = history
            before = self._due.get(key, 0)
            self._due[key] = None if before is None or until is None else max(before, until)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self.tracker, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    # --- the thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        back_off, failures = _FIRST_BACK_OFF_S, 0  # failures: in a row, since the driver ends
        while (next_one := self._next(failures)) is not None:
            began = time.thread_time()
            try:
                self._write(*next_one)
            except Off as off:
                self._tell(f"{self.tracker} is told nothing: {off}")
                with self._changed:
                    self._off = True
                    self._due.clear()
            except Exception as error:
                self._failed(error, *next_one)
                failures = failures + 1 if self._until is not None else 0
                self._pause(back_off)
                back_off = min(2 * back_off, _BACK_OFF_S)
            else:
                back_off, failures = _FIRST_BACK_OFF_S, 0
                self._pause((time.thread_time() - began) / _SHARE)
        if self._writer is not None:
            self._writer.close(max(_LAST_S, (self._until or 0.0) - time.monotonic()))

    def _next(self, failures: int) -> tuple[_Key, int | None] | None:
        """What to write next; waits for it. None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._due or self._until is not None or self._off)
            ends = self._until is not None and (time.monotonic() > self._until or failures >= _LAST_TRIES)
            if self._off or ends or not self._due:
                return None
            key = next(iter(self._due))
            return key, self._due.pop(key)

    def _pause(self, seconds: float) -> None:
        """Wait, unless the end has come."""
        with self._changed:
            self._changed.wait_for(lambda: self._until is not None, seconds)

    def _failed(self, error: Exception, key: _Key, until: int | None) -> None:
        """Say it once, and put the run behind the others."""
        if not isinstance(error, Down):
            log.exception("a run of %s could not be made", self.tracker)
        if self._writer is not None and self._writer.dead:
            self._writer = None
            self._given.clear()
        with self._changed:
            before = self._due.get(key, 0)
            self._due[key] = None if before is None or until is None else max(before, until)
        if not self._told and (self._until is None or time.monotonic() < self._until):
            self._told = True
            log_file = self._folder / f"{self.tracker}.log"
            self._tell(
                f"{self.tracker} cannot be written: {error}; the sweep goes on, and this is tried again "
                f"({log_file})"
            )
        log.info("%s cannot be written: %s", self.tracker, error)

    def _write(self, key: _Key, until: int | None) -> None:
        """Have one run written, if the tracker does not hold it already."""
        history = self._history
        assert history is not None
        if self._writer is None:
            place = Place(self._folder.absolute(), history.spec["name"], key_of(history))
            self._writer = WriterProcess(self.tracker, self._options, place)
            self._writer.connect()
        if self._written is None:
            self._written = Written(self._folder / f"{self.tracker}.written")
        kind, name = key
        if kind == "reference":
            run = reference_run(history, history.references[name])
        else:
            run = trial_run(history, history.trials[name], until)
        if run.status == "running" and self._until is not None:
            run = replace(run, status=INTERRUPTED)
        given = self._given.get(run.id)
        if run.status == "running":
            if self._writer.live and (given is None or given < len(run.epochs)):
                self._given.pop(run.id, None)
                self._writer.write(run.without(given or 0))
                self._given[run.id] = len(run.epochs)
            return
        digest = run.digest(self._writer.where)
        if (run.id, digest) not in self._written:
            self._given.pop(run.id, None)
            self._writer.write(run.without(given or 0))
            if run.status != INTERRUPTED:
                self._written.add(run.id, digest)
