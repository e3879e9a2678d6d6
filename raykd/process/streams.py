"""Standard output and standard error that never raise: their reader may end at any time.

After an error (a pipe without a reader, a closed terminal, a full disk) what is written is dropped, and the
work goes on. Python's own streams raise at every write and once more at exit, in any thread.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any

_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)  # the reader has ended, so nobody misses the output
_lost: dict[int, OSError] = {}
_tell: list[Callable[[str], object]] = []


def settle() -> None:
    """Make the three standard streams safe. Called once, before anything is opened or written.

    A closed descriptor is opened on /dev/null. Otherwise the next file to be opened, such as the ledger,
    would get its number, and then what libraries write to standard output. A character that the encoding
    lacks is written as an ASCII escape sequence. A stream that was replaced already is left alone.
    """
    _lost.clear()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            at = os.open(os.devnull, os.O_RDWR)
            if at != number:
                os.dup2(at, number)
                os.close(at)
            os.set_inheritable(number, True)
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _opened(number) if number else os.fdopen(0, closefd=False))
        elif number and type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _opened(number, stream))


def tell_with(say: Callable[[str], object]) -> None:
    """Call `say(line)` when a stream is lost, and at once for each stream that was lost before.

    It is called in the middle of a write, so it must not write to these streams itself.
    """
    _tell[:] = [say]
    for number in list(_lost):
        say(_words(number))


def say(text: str) -> None:
    """Write a line to standard error and flush it."""
    print(f"raykd: {text}", file=sys.stderr, flush=True)


def close() -> OSError | None:
    """Flush both streams. Returns why standard output was lost, unless its reader has ended."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    error = _lost.get(1)
    return error if error is not None and error.errno not in _GONE else None


class _Raw(io.FileIO):
    """A descriptor whose writes never fail. After an error it leads to /dev/null."""

    def write(self, data: Any) -> int:
        """Write all of `data`, or drop it."""
        try:
            while (written := super().write(data)) is None:  # the other side has made it non-blocking
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            _lose(self.fileno(), error)
            return memoryview(data).nbytes


def _opened(number: int, like: io.TextIOWrapper | None = None) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Raw(number, "wb", closefd=False)),
        encoding=like.encoding if like is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=like is not None and (like.line_buffering or like.write_through),
    )


def _lose(number: int, error: OSError) -> None:
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    if number not in _lost:
        _lost[number] = error
        for tell in list(_tell):
            tell(_words(number))


def _words(number: int) -> str:
    name = "standard output" if number == 1 else "standard error"
    return f"{name} cannot be written any more ({_lost[number].strerror}); what is said goes to the log alone"
