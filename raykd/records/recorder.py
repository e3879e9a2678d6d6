"""The one way anything is written down: into the ledger, then into the history, then to whoever listens."""

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
    """Keeps the ledger and the history of a live sweep in step, and tells the views of them.

    A listener (TensorBoard, the dashboard's study, the console) is a view: when one fails, that is logged
    and the sweep goes on, because the ledger has the record and views are rebuilt from it.
    """

    def __init__(self, ledger: Ledger, history: History, listeners: Iterable[Listener] = ()) -> None:
        self.ledger = ledger
        self.history = history
        self.listeners = list(listeners)
        self._lock = threading.RLock()
        self._behind: list[Listener] = []  # views that have missed a record

    def __call__(self, kind: str, **fields: Any) -> Record:
        """Append a record; it is on the disk when this returns. A signal waits for the views as well."""
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
        """Bring the views that missed a record up to date, where that can be done now."""
        with self._lock:
            for listener in list(self._behind):
                try:
                    self._rebuild(listener)
                except Exception:
                    log.exception("a view of the sweep could not be brought up to date")

    def _rebuild(self, listener: Any) -> None:
        # What failed half-way (a full disk) has left half an event behind, and the rest must not follow that.
        listener.rebuild(self.history)
        self._behind.remove(listener)
