"""A sweep that outlives the terminal it was started from, for `ray submit` over a connection that may break.

The driver runs in a session of its own and writes its output to a file. This process shows the file as it
grows. If the connection is lost, this process ends and the sweep goes on. Ctrl-C is passed on to the driver:
the first one stops the sweep in good order, a second one stops it at once. `raykd resume` goes on with it,
and `raykd attach NAME` shows a running sweep again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from raykd.process import streams
from raykd.storage.base import SweepFolder
from raykd.storage.owners import make_private
from trainables.core.errors import UserError

_POLL_S = 0.2


def outputs() -> Path:
    """The folder that holds the output of drivers, one file each."""
    return Path.home() / "raykd-output"


def launch(arguments: Sequence[str]) -> int:
    """Run `raykd ARGUMENTS` in a session of its own, show its output, and return its exit code."""
    streams.settle()
    try:
        folder = outputs()
        make_private(folder)
        started = folder / f"starting-{os.getpid()}"
        out = started.open("wb")
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        reason = getattr(error, "strerror", None) or error
        streams.say(f"HOME: what a sweep says cannot be kept in ~/raykd-output: {reason}")
        return 2
    with out:
        driver = subprocess.Popen(
            [sys.executable, "-u", "-m", "raykd.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    output = started.rename(_output_of(driver.pid))
    print(f"A lost connection does not stop this; Ctrl-C does. The output is kept in {output}.", flush=True)

    def ended() -> bool:
        return driver.poll() is not None

    _show(output, driver.pid, ended)
    return driver.wait()


def attach(sweep: SweepFolder) -> int:
    """Show the output of a running sweep's driver from its start, until the driver ends. Returns 0.

    Raises `UserError` where the sweep does not run or runs on another machine.
    """
    driver = sweep.driver()
    output = _output_of(driver.pid) if driver is not None else None
    if driver is None or output is None or not output.exists():
        why = "is not running" if driver is None else f"runs as process {driver.pid} on {driver.host}"
        expected = (
            f"a sweep that `ray submit` started and that runs; `status {sweep.name}` shows how it stands"
        )
        raise UserError("NAME", why, value=sweep.name, expected=expected)
    pid = driver.pid

    def ended() -> bool:
        return not Path("/proc", str(pid)).exists()

    _show(output, pid, ended)
    return 0


def _output_of(driver: int) -> Path:
    return outputs() / f"{driver}.txt"


def _show(output: Path, driver: int, ended: Callable[[], bool]) -> None:
    """Copy the file to the terminal as it grows, until the driver has ended. Passes Ctrl-C to the driver."""

    def interrupt(*_: object) -> None:
        if not ended():
            os.kill(driver, signal.SIGINT)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with output.open("rb") as growing:
            over = False
            while not over:
                over = ended()  # asked before the last read, so that nothing is missed
                while piece := growing.read(65536):
                    sys.stdout.buffer.write(piece)
                    sys.stdout.flush()
                if not over:
                    time.sleep(_POLL_S)
    finally:
        signal.signal(signal.SIGINT, before)
