"""A Ray of this process's own: apart from the terminal, and gone with what it has written when it ends.

Ray keeps a folder a session, of some megabytes, in its temporary folder, and removes none of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from raykd.process import signals
from raykd.storage.scratch import claim, remove_left, scratch_folder

log = logging.getLogger("raykd.lanes.session")
_GONE_S = 3.0  # how long workers that are ending may still write there
_LINES = 20  # of each of Ray's logs that are kept where it went wrong
_SERIOUS = re.compile(r" [ECF] \d| (?:ERROR|CRITICAL) |Traceback|Error: ")


@contextlib.contextmanager
def own_session() -> Iterator[None]:
    """For the whole life of a local Ray: its folder goes at the end; those that killed drivers left go first.

    Where the block raises, what Ray's logs hold of errors goes to our log, for the folder is gone then.
    """
    from ray._common.utils import get_default_ray_temp_dir

    folder = Path(get_default_ray_temp_dir())
    remove_left(folder, "session_*")
    before = set(_mine(folder))
    with (
        scratch_folder() as temporary,
        mock.patch("ray._private.services.ConsolePopen", _apart(folder, temporary)),
    ):
        try:
            yield
        except Exception:
            for session in set(_mine(folder)) - before:
                _keep_errors(session / "logs")
            raise
        finally:
            deadline = time.monotonic() + _GONE_S
            while left := set(_mine(folder)) - before:
                for session in left:
                    shutil.rmtree(session, ignore_errors=True)
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            latest = folder / "session_latest"
            with contextlib.suppress(OSError):
                if latest.is_symlink() and not latest.exists():
                    latest.unlink()


def _mine(folder: Path) -> list[Path]:
    """The sessions that this process has begun: Ray calls them after it."""
    return [path for path in folder.glob(f"session_*_{os.getpid()}") if path.lstat().st_uid == os.getuid()]


def _apart(folder: Path, temporary: Path) -> Callable[..., Any]:
    """How Ray's daemons are started: in sessions of their own, their temporary files in `temporary`.

    Ctrl-C, a terminal that closes, or `timeout` signal a whole process group. Without daemons and workers
    the driver could put nothing away. They end with it all the same, by the kernel's parent-death signal.
    What `multiprocessing` makes in the dashboard (`pymp-…`) would stay, because that is ended by a signal.
    """
    from ray._private.services import ConsolePopen

    def start(*arguments: Any, preexec_fn: Callable[[], None] | None = None, **more: Any) -> Any:
        def before() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)  # blocked while Ray starts
            if preexec_fn is not None:
                preexec_fn()

        for session in _mine(folder):
            with contextlib.suppress(OSError):
                claim(session)
        env = {**(more.pop("env", None) or os.environ), "TMPDIR": str(temporary)}
        return ConsolePopen(*arguments, env=env, preexec_fn=before, start_new_session=True, **more)

    return start


def _keep_errors(logs: Path) -> None:
    """The last errors in Ray's own logs, for whoever wants to know why it failed."""
    for path in sorted(logs.glob("*.err")) + sorted(logs.glob("*.out")) + sorted(logs.glob("dashboard*.log")):
        with contextlib.suppress(OSError):
            lines = path.read_text(errors="replace").splitlines()
            kept = [line for line in lines if path.suffix == ".err" or _SERIOUS.search(line)][-_LINES:]
            if kept:
                log.info("Ray's %s:\n  %s", path.name, "\n  ".join(kept))
