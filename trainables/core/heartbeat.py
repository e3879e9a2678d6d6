"""Heartbeats: a loop says where it is, so that an engine can tell a long epoch from a hang.

    with heartbeat_listener(lambda where: print(where)):
        train(trial, report, workspace)         # "epoch 3, step 41/70", at most once in so many seconds

Without a listener `heartbeat` costs nothing. Code that may take minutes calls it from its own loop: when the
loop hangs, the heartbeat stops. `heartbeat_while` is for calls without a loop of ours, such as a download.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_Say = Callable[[str], None]
_listener: ContextVar[_Say | None] = ContextVar("listener", default=None)


def heartbeat(where: str) -> None:
    """Tell the listener of this thread, if there is one, that it is at `where`."""
    say = _listener.get()
    if say is not None:
        say(where)


@contextlib.contextmanager
def heartbeat_listener(listener: Callable[[str], None], every_s: float = 2.0) -> Iterator[None]:
    """Call `listener` with the heartbeats of this thread, at most once in `every_s` seconds."""
    heard = -every_s

    def throttled(where: str) -> None:
        nonlocal heard
        now = time.monotonic()
        if now - heard >= every_s:
            heard = now
            listener(where)

    token = _listener.set(throttled)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def heartbeat_while(where: str, every_s: float = 5.0) -> Iterator[None]:
    """Send a heartbeat every `every_s` seconds from a thread while the body runs, however long that is."""
    say = _listener.get()
    if say is None:
        yield
        return
    over = threading.Event()

    def repeat() -> None:
        say(where)
        while not over.wait(every_s):
            say(where)

    thread = threading.Thread(target=repeat, name="heartbeat_while", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
