"""Starting Ray's daemons apart from the terminal, and keeping their errors when Ray does not start."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from raykd.process import signals

log = logging.getLogger("raykd.lanes.detached")
_LINES = 20  # lines of each of Ray's logs that are kept after an error
_SERIOUS = re.compile(r" [ECF] \d| (?:ERROR|CRITICAL) |Traceback|Error: ")


@contextlib.contextmanager
def detached_daemons(temporary: Path, started: list[Any]) -> Iterator[None]:
    """While the block runs, Ray's daemons start in sessions of their own; their TMPDIR is `temporary`.

    Ctrl-C, a closed terminal and `timeout` send their signal to a whole process group. If it ended the
    daemons, the driver could not end the sweep in good order. The daemons still end with the driver, by the
    kernel's parent-death signal. `temporary` is there because a signal ends the dashboard, which then leaves
    the folders of `multiprocessing` (`pymp-…`). Their sockets' paths may have 107 letters too: with a long
    TMPDIR the dashboard would not start, and Ray would wait a minute for it. Each daemon's `Popen` is added
    to `started`.
    """
    from ray._private import services

    popen: Any = services.ConsolePopen

    def start(*arguments: Any, preexec_fn: Callable[[], None] | None = None, **more: Any) -> Any:
        def before() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)  # blocked while Ray starts
            if preexec_fn is not None:
                preexec_fn()

        env = {**(more.pop("env", None) or os.environ), "TMPDIR": str(temporary)}
        started.append(popen(*arguments, env=env, preexec_fn=before, start_new_session=True, **more))
        return started[-1]

    with mock.patch.object(services, "ConsolePopen", start):
        yield


@contextlib.contextmanager
def errors_logged(folder: Path) -> Iterator[None]:
    """If the block raises, copy the last errors in the logs of Ray's `folder` to our log: it is deleted."""
    try:
        yield
    except Exception:
        for path in sorted(folder.glob("session_2*/logs/*")):
            if path.suffix not in (".err", ".out") and not path.name.startswith("dashboard"):
                continue
            with contextlib.suppress(OSError):
                lines = path.read_text(errors="replace").splitlines()
                kept = [line for line in lines if path.suffix == ".err" or _SERIOUS.search(line)][-_LINES:]
                if kept:
                    log.info("Ray's %s:\n  %s", path.name, "\n  ".join(kept))
        raise
