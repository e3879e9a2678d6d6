"""Records an event of a live sweep: in the ledger, then in the history, then in the views."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from raykd.process import signals
from raykd.records.history import History
from raykd.records.ledger import Ledger, Record
from trainables.core import storage_retry
from trainables.core.errors import SweepFailed, UserError

Listener = Callable[[Record, History], None]

log = logging.getLogger("raykd.records.recorder")
_POLL_S = 0.2  # between looks at whether the thread has failed


class Recorder:
    """Appends records to the ledger of a live sweep, and keeps its history and its views up to date.

    A call waits for the disk. On an object store that takes tens of milliseconds, too long for each report of
    many lanes. So `soon` does not wait, and `after` names what must not happen before the disk has
    everything: a thread of the recorder writes what has gathered meanwhile, all at once.

    A listener (TensorBoard, the dashboard's study, the console) is a view. It is told of records that are on
    the disk, while the history may hold later ones already. If a listener fails, that is logged and the sweep
    goes on: the ledger has the record, and views are rebuilt from it.
    """

    def __init__(self, ledger: Ledger, history: History, listeners: Iterable[Listener] = ()) -> None:
        """`history` is that of the ledger's records."""
        self.ledger = ledger
        self.history = history
        self.listeners = list(listeners)
        self._lock = threading.RLock()
        self._behind: list[Listener] = []  # views that have missed a record
        self._ahead: dict[int, int] = {}  # id of a view that was rebuilt -> how many records it knows
        self._count = 0  # records so far
        self._unseen: deque[tuple[int, Record]] = deque()  # those that the views were not told of
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()  # what waits for so many records
        self._wanted = threading.Event()  # something waits
        self._ends = False
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __call__(self, kind: str, **fields: Any) -> Record:
        """Append a record; it is on the disk when this returns. Signals wait until the views have it."""
        with signals.held():
            record = self.soon(kind, **fields)
            self.sync()
            return record

    def soon(self, kind: str, **fields: Any) -> Record:
        """Append a record without waiting for the disk. Whoever acts on it does so by `after`."""
        with self._lock:
            record = self.ledger.write(kind, **fields)
            self.history.add(record)
            self._count += 1
            self._unseen.append((self._count, record))
            return record

    def after(self, act: Callable[[], object]) -> None:
        """Call `act` once everything recorded so far is on the disk, in any thread. Returns at once."""
        with self._lock:
            self._waiting.append((self._count, act))
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
                self._thread.start()
            self._wanted.set()

    def sync(self) -> None:
        """Return when everything recorded so far is on the disk and in the views."""
        with self._lock:
            count = self._count
        try:
            self.ledger.sync()
        except SweepFailed as error:  # in whichever thread it is noticed
            self._failure = self._failure or error
            raise
        with self._lock:
            while self._waiting and self._waiting[0][0] <= count:
                self._waiting.popleft()[1]()
            while self._unseen and self._unseen[0][0] <= count:
                self._show(*self._unseen.popleft())

    def settle(self) -> None:
        """As `sync`, by the recorder's thread: a signal may interrupt the wait and breaks no record."""
        written = threading.Event()
        self.after(written.set)
        while not written.wait(_POLL_S):
            self.check()

    def check(self) -> None:
        """Raise why nothing can be recorded any more, if that is so."""
        if self._failure is not None:
            raise self._failure

    def catch_up(self) -> None:
        """Rebuild the views that missed a record, if that can be done now."""
        with self._lock:
            for listener in list(self._behind):
                try:
                    self._rebuild(listener)
                except Exception:
                    log.exception("a view of the sweep could not be brought up to date")

    def close(self) -> None:
        """End the thread. What waits by `after` and is not on the disk yet never happens.

        A write that is being tried again is waited for as long as `storage_retry` allows.
        """
        self._ends = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(storage_retry.limit())

    def _write(self) -> None:
        """What the thread does."""
        while not self._ends:
            self._wanted.wait()
            self._wanted.clear()
            try:
                self.sync()
            except BaseException as error:
                if not isinstance(error, SweepFailed | UserError):
                    log.exception("nothing can be recorded any more")
                self._failure = error
                return

    def _show(self, number: int, record: Record) -> None:
        for listener in self.listeners:
            if number <= self._ahead.get(id(listener), 0):
                continue
            try:
                if listener in self._behind:
                    self._rebuild(listener)
                else:
                    listener(record, self.history)
            except Exception:
                log.exception("a view of the sweep could not be brought up to date")
                if hasattr(listener, "rebuild") and listener not in self._behind:
                    self._behind.append(listener)

    def _rebuild(self, listener: Any) -> None:
        # A view that failed (a full disk) may end in half an event, to which nothing may be appended.
        listener.rebuild(self.history)
        self._behind.remove(listener)
        self._ahead[id(listener)] = self._count
