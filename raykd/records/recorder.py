"""Records an event of a live sweep: in the ledger, then in the history, then in the views."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from raykd.process import signals
from raykd.records.history import History
from raykd.records.ledger import Ledger, Record

Listener = Callable[[Record, History], None]

log = logging.getLogger("raykd.records.recorder")


class Recorder:
    """Appends records to the ledger of a live sweep, and keeps its history and its views up to date.

    A listener (TensorBoard, the dashboard's study, the console) is a view. If one fails, that is logged and
    the sweep goes on: the ledger has the record, and views are rebuilt from it.
    """

    def __init__(self, ledger: Ledger, history: History, listeners: Iterable[Listener] = ()) -> None:
        """`history` is that of the ledger's records."""
        self.ledger = ledger
        self.history = history
        self.listeners = list(listeners)
        self._lock = threading.RLock()
        self._behind: list[Listener] = []  # views that have missed a record

    def __call__(self, kind: str, **fields: Any) -> Record:
        """Append a record; it is on the disk when this returns. Signals wait until the views have it."""
        with signals.held(), self._lock:
            record = self.ledger.append(kind, **fields)
            self.history.add(record)
            for listener in self.listeners:
                try:
                    if listener in self._behind:
                        self._rebuild(listener)
                    else:
                        listener(record, self.history)
                except Exception:
                    log.exception("a view of the sweep could not be brought up to date")
                    if hasattr(listener, "rebuild") and listener not in self._behind:
                        self._behind.append(listener)
            return record

    def catch_up(self) -> None:
        """Rebuild the views that missed a record, if that can be done now."""
        with self._lock:
            for listener in list(self._behind):
                try:
                    self._rebuild(listener)
                except Exception:
                    log.exception("a view of the sweep could not be brought up to date")

    def _rebuild(self, listener: Any) -> None:
        # A view that failed (a full disk) may end in half an event, to which nothing may be appended.
        listener.rebuild(self.history)
        self._behind.remove(listener)
