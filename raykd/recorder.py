"""The one way anything is written down: into the ledger, then into the history, then to whoever listens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from raykd.history import History
from raykd.ledger import Ledger, Record

Listener = Callable[[Record, History], None]

log = logging.getLogger("raykd.recorder")


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

    def __call__(self, kind: str, **fields: Any) -> Record:
        """Append a record; it is on the disk when this returns."""
        with self._lock:
            record = self.ledger.append(kind, **fields)
            self.history.add(record)
            for listener in self.listeners:
                try:
                    listener(record, self.history)
                except Exception:
                    log.exception("a view of the sweep could not be brought up to date")
            return record
