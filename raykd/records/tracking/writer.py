"""The process that writes to one tracker: runs come in as lines of JSON, and each is answered by a line.

Trackers' packages start threads and processes of their own, print, wait for networks, and hold Python's lock
while they are imported. None of that may happen to a driver.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from raykd.records.tracking.base import Off, Place, open_tracker
from raykd.records.tracking.run import Run
from trainables.core.errors import first_line

# What packages say about themselves to their makers is not the user's business; and outages shall show soon.
_QUIET = {
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
_LONGEST = 300  # characters of what an error says
# These describe a run of the user's own, or make wandb ignore which run it is told to write.
_FOREIGN = (
    "WANDB_RUN_ID",
    "WANDB_RUN_GROUP",
    "WANDB_SWEEP_ID",
    "WANDB_RESUME",
    "WANDB_NAME",
    "WANDB_JOB_TYPE",
)


def main() -> None:
    """Read what to connect to, then runs, until the driver closes its end or dies."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever packages print goes to the log
    for name in _FOREIGN:
        os.environ.pop(name, None)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    asked = json.loads(sys.stdin.readline())
    place = Place(Path(asked["folder"]), asked["sweep"], asked["key"])
    lock = (place.folder / f".{asked['tracker']}.lock").open("a")
    with contextlib.suppress(OSError):  # some network file systems have none
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # the writer of a driver that was killed may be in its last run still
    try:
        tracker = open_tracker(asked["tracker"], asked["options"], place)
    except Exception as error:
        _answer(answers, off=str(error)) if isinstance(error, Off) else _answer(answers, error=_said(error))
        return
    _answer(answers, live=tracker.live, where=tracker.where)
    for line in sys.stdin:
        try:
            tracker.write(Run.parsed(json.loads(line)))
        except Exception as error:
            _answer(answers, error=_said(error))
        else:
            _answer(answers)
    tracker.close()
    os._exit(
        0
    )  # what packages do at the exit of a process takes seconds, and is for loggers that nobody used


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"[:_LONGEST]


def _answer(answers: IO[str], **said: Any) -> None:
    answers.write(json.dumps(said) + "\n")
    answers.flush()
