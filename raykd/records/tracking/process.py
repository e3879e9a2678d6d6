"""The driver's end of the process that writes to a tracker: it starts, is asked, and may be killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raykd.records.tracking.base import Off, Place
from raykd.records.tracking.run import Run
from trainables.core.files import opened, own_folder

_ANSWER_S = 60.0  # a request that takes longer has failed
_CONNECT_S = 180.0  # likewise; packages take seconds to import, from a network's file system much longer
_ROOT = str(Path(__file__).resolve().parents[3])  # what holds the package raykd
# Without the working folder among the places of modules: users keep a `wandb.py` there.
_CODE = "import sys; sys.path[0] = sys.argv[1]; from raykd.records.tracking.writer import main; main()"


class Down(Exception):
    """The tracker, or its process, did not do what it was asked. The message is for the user."""


class WriterProcess:
    """Writes runs to one tracker. A method raises `Down` where that fails, and is bounded in time."""

    live: bool  # as of `Tracker`, once it is connected
    where: str

    def __init__(self, tracker: str, options: dict[str, Any], place: Place) -> None:
        """Start it."""
        self._asked = {"tracker": tracker, "options": options, **place._asdict(), "folder": str(place.folder)}
        self._rest = b""
        self._killed = False
        own_folder(place.folder)
        with opened(place.folder / f"{tracker}.log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, _ROOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the driver
            )

    def connect(self) -> None:
        """Connect to the tracker. Raises `Off` as well. The process is dead if this raises."""
        try:
            said = self._ask(self._asked, _CONNECT_S)
            if "off" in said:
                raise Off(said["off"])
        except BaseException:
            self.kill()
            raise
        self.live, self.where = said["live"], said["where"]

    def write(self, run: Run) -> None:
        """Have the run written."""
        self._ask(asdict(run))

    def close(self, within: float) -> None:
        """Let it finish, for so many seconds; then kill it."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(within)
        self.kill()

    def kill(self) -> None:
        """End it and what it has started. From any thread: whoever waits for an answer gets `Down`."""
        if not self._killed:
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def dead(self) -> bool:
        """Whether it can be asked no more."""
        return self._process.poll() is not None

    def _ask(self, said: dict[str, Any], within: float = _ANSWER_S) -> dict[str, Any]:
        """Send a line and return the answer."""
        until = time.monotonic() + within
        try:
            self._send(json.dumps(said).encode() + b"\n", until)
            answer: dict[str, Any] = json.loads(self._line(until))
        except TimeoutError:
            self.kill()
            raise Down(f"no answer for {within:g} s") from None
        except (OSError, ValueError) as error:
            self.kill()
            raise Down(f"its process ended: exit code {self._process.returncode}") from error
        if "error" in answer:
            raise Down(answer["error"])
        return answer

    def _send(self, data: bytes, until: float) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        while data:
            _, ready, _ = select.select([], [pipe], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            data = data[os.write(pipe.fileno(), data) :]

    def _line(self, until: float) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        while b"\n" not in self._rest:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            read = os.read(pipe.fileno(), 1 << 16)
            if not read:
                raise BrokenPipeError
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line
