"""Ray's daemons, started apart from the terminal, and what their logs say when all has gone wrong."""

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
_LINES = 20  # of each of Ray's logs that are kept where it went wrong
_SERIOUS = re.compile(r" [ECF] \d| (?:ERROR|CRITICAL) |Traceback|Error: ")


@contextlib.contextmanager
def detached_daemons(temporary: Path) -> Iterator[list[Any]]:
    """Ray's daemons that are started inside have sessions of their own, and temporary files in `temporary`.

    Ctrl-C, a terminal that closes, or `timeout` signal a whole process group: without daemons and workers
    the driver could put nothing away. They end with it all the same, by the kernel's parent-death signal.
    What `multiprocessing` makes in the dashboard (`pymp-…`) would stay, because a signal ends that. Yields
    the daemons' `Popen`s, a list that grows.
    """
    from ray._private import services

    popen: Any = services.ConsolePopen
    started: list[Any] = []

    def start(*arguments: Any, preexec_fn: Callable[[], None] | None = None, **more: Any) -> Any:
        def before() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)  # blocked while Ray starts
            if preexec_fn is not None:
                preexec_fn()

        env = {**(more.pop("env", None) or os.environ), "TMPDIR": str(temporary)}
        started.append(popen(*arguments, env=env, preexec_fn=before, start_new_session=True, **more))
        return started[-1]

    with mock.patch.object(services, "ConsolePopen", start):
        yield started


@contextlib.contextmanager
def errors_kept(folder: Path) -> Iterator[None]:
    """Where the block raises, the last errors in the logs of Ray's `folder`, which goes, go to ours."""
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
