"""Retry with back-off for storage that fails for a while; a long wait is reported once.

    with_retry(lambda: path.write_bytes(data), f"{path} cannot be written")

It covers a full disk, a network file system that is away, and an object store that does not answer. The work
is tried again for `RAYKD_STORAGE_PATIENCE` seconds (300); then `StorageLost` says what to do. The work must
be idempotent: it may run twice, or again after it was done by half.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from trainables.core.errors import StorageLost, UserError
from trainables.core.heartbeat import heartbeat

RETRY_ENV = "RAYKD_STORAGE_PATIENCE"
_DEFAULT_S = 300.0
_FIRST_S, _LONGEST_S = 0.1, 10.0  # pauses between tries, before jitter
_SAY_AFTER_S = 1.0  # shorter waits are not reported

FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*FULL, errno.EIO, errno.ESTALE, errno.EROFS, errno.EREMOTEIO)
# Errors of a disk, NFS or a FUSE mount that is away for a while. EACCES, ENOENT and the like are permanent.
_PASSING = {
    *FULL, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EROFS, errno.ENOTCONN,
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ENETDOWN, errno.ENETUNREACH,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOLINK, errno.EREMOTEIO,
}  # fmt: skip

T = TypeVar("T")
log = logging.getLogger(__name__)
_tell: Callable[[str], object] = log.warning
_waiting: dict[int, float] = {}  # thread that waits now -> since when
_said = False
_lock = threading.Lock()
_limit: ContextVar[float | None] = ContextVar("limit", default=None)
_deadline: float | None = None  # of every thread: the process is about to end
_hurry = threading.Event()  # wakes those who wait when it is set


def tell(text: str) -> None:
    """Report `text` about the storage to the function given to `tell_with`, or to the log."""
    _tell(text)


def tell_with(say: Callable[[str], object]) -> None:
    """From now on call `say` with one line when this process waits for its storage and when the wait ends."""
    global _tell
    _tell = say


def retry_seconds() -> float:
    """How long work on the storage is tried again, seconds. `UserError` for a setting that is no number."""
    return seconds_set(RETRY_ENV, _DEFAULT_S, lambda s: s >= 0, "0 or more, such as 300")


def seconds_set(name: str, default: float, allows: Callable[[float], bool], expected: str) -> float:
    """The seconds in an environment variable. `UserError` for a setting that is no number or not allowed."""
    given = os.environ.get(name, "")
    try:
        seconds = float(given or default)
    except ValueError:
        seconds = float("inf")
    if not (allows(seconds) and seconds < float("inf")):
        raise UserError(name, "is no number of seconds", value=given, expected=expected)
    return seconds


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Inside, this thread tries again for at most `seconds` and reports no wait: the caller tries later."""
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


@contextmanager
def hurried(seconds: float) -> Iterator[None]:
    """Inside, every thread tries again for at most `seconds` from now, and none reports a wait.

    For a process that ends.
    """
    global _deadline
    _deadline = time.monotonic() + seconds
    _hurry.set()
    try:
        yield
    finally:
        _hurry.clear()
        _deadline = None


def limit() -> float | None:
    """The seconds that `limited` and `hurried` leave this thread; None outside such a block."""
    most, deadline = _limit.get(), _deadline
    if deadline is None:
        return most
    left = max(0.0, deadline - time.monotonic())
    return left if most is None else min(left, most)


def passes(error: OSError) -> bool:
    """Whether this error may go away by itself."""
    return error.errno in _PASSING


@contextmanager
def losing(problem: str) -> Iterator[None]:
    """Turn errors of the disk inside the block, which nothing retries, into `StorageLost`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise StorageLost(lost(problem, error)) from error


def with_retry(
    work: Callable[[], T],
    problem: str,
    *,
    passing: Callable[[OSError], bool] = passes,
    limit: float | None = None,
) -> T:
    """Return `work()`, tried again while it raises an `OSError` for which `passing` is true.

    `problem` opens the message ("FILE cannot be written"). `limit` is in seconds; None: `retry_seconds()`.
    Raises `StorageLost` after that time, and every other error at once.
    """
    me, began, pause, at_most = threading.get_ident(), 0.0, _FIRST_S, _limit.get()
    most = min(t for t in (limit, at_most, retry_seconds() if limit is None else None) if t is not None)
    try:
        while True:
            try:
                return work()
            except OSError as error:
                if not passing(error):
                    raise
                now = time.monotonic()
                began = began or now
                left = min(began + most, math.inf if _deadline is None else _deadline) - now
                if left <= 0:
                    _waits_no_more(me, given_up=True)
                    raise StorageLost(lost(problem, error, now - began)) from error
                if at_most is None and _deadline is None:
                    _waits(me, f"{problem}: {reason(error)}; trying again for {left:.0f} s")
                heartbeat("waiting for the storage")
                wait = min(left, pause * random.uniform(0.5, 1.0))
                time.sleep(wait) if _hurry.is_set() else _hurry.wait(wait)
                pause = min(_LONGEST_S, 2 * pause)
    finally:
        _waits_no_more(me)


def lost(problem: str, error: OSError, tried: float = 0.0) -> str:
    """The message of `StorageLost`; `tried` is for how many seconds the work was tried again."""
    room = error.errno in FULL or error.errno == errno.EFBIG
    mend = "make room" if room else "mend it or wait until it is back"
    again = f", tried again for {tried:.0f} s" if tried >= 1 else ""
    return f"{problem}: {reason(error)}{again}; {mend}, then `raykd resume` goes on"


def reason(error: OSError) -> str:
    """The first line of an error's text."""
    text = error.strerror or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def _waits(who: int, text: str) -> None:
    global _said
    with _lock:
        since = _waiting.setdefault(who, time.monotonic())
        if _said or time.monotonic() - since < _SAY_AFTER_S:
            return
        _said = True
    _tell(f"waiting for the storage: {text}")


def _waits_no_more(who: int, given_up: bool = False) -> None:
    global _said
    with _lock:
        since = _waiting.pop(who, None)
        if since is None or _waiting or not _said:
            return
        _said = False
    if not given_up:  # the error is reported instead
        _tell(f"the wait for the storage is over after {time.monotonic() - since:.0f} s")
