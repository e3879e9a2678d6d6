"""The processes of a Ray of this process's own: apart from the terminal; their errors are kept."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from raykd.process import signals
from raykd.storage.scratch import remove_left

log = logging.getLogger("raykd.lanes.session")
_LINES = 20  # of each of Ray's logs that are kept where it went wrong
_SERIOUS = re.compile(r" [ECF] \d| (?:ERROR|CRITICAL) |Traceback|Error: ")


@contextlib.contextmanager
def own_session(folder: Path) -> Iterator[None]:
    """For the whole life of a local Ray, whose temporary folder is `folder`.

    Where the block raises, what Ray's logs hold of errors goes to our log, for the folder is gone then.
    """
    with mock.patch("ray._private.services.ConsolePopen", _apart()):
        try:
            yield
        except Exception:
            for session in folder.glob("session_2*"):
                _keep_errors(session / "logs")
            raise
        finally:
            remove_left()  # of the workers, which are all dead


def _apart() -> Callable[..., Any]:
    """How Ray's daemons are started: in sessions of their own.

    Ctrl-C, a terminal that closes, or `timeout` signal a whole process group. Without daemons and workers
    the driver could put nothing away. They end with it all the same, by the kernel's parent-death signal.
    """
    from ray._private import services

    console_popen: Any = services.ConsolePopen

    def start(*arguments: Any, preexec_fn: Callable[[], None] | None = None, **more: Any) -> Any:
        def before() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)  # blocked while Ray starts
            if preexec_fn is not None:
                preexec_fn()

        return console_popen(*arguments, preexec_fn=before, start_new_session=True, **more)

    return start


def _keep_errors(logs: Path) -> None:
    """The last errors in Ray's own logs, for whoever wants to know why it failed."""
    for path in sorted(logs.glob("*.err")) + sorted(logs.glob("*.out")) + sorted(logs.glob("dashboard*.log")):
        with contextlib.suppress(OSError):
            lines = path.read_text(errors="replace").splitlines()
            kept = [line for line in lines if path.suffix == ".err" or _SERIOUS.search(line)][-_LINES:]
            if kept:
                log.info("Ray's %s:\n  %s", path.name, "\n  ".join(kept))
