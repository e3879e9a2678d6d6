"""Signals end a verb in good order: what has begun is put away, and the exit code is 1.

    with caught():
        work()  # raises `Interrupted` in the main thread when a signal comes

The first signal raises `Interrupted` wherever the main thread is, or at the end of a block under `held()`. It
is raised once, so that what clears up is not disturbed. The process ends within `LIMIT_S`, in good order or
not: batch systems and Kubernetes send SIGKILL after 30 s. A second signal ends it at once, with exit code 128
and its number. Both also hold while the main thread is inside a library, where no handler of Python's runs: a
thread reads the signals from a pipe that the interpreter's C handler writes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_signal = signal.signal
LIMIT_S = 25.0  # from the first signal to the end of the process
_APART_S = 0.5  # what comes sooner is the same wish: shells, `timeout` and batch systems signal several times
_POLL_S = 0.1
_NOTICE_S = 1.0  # what has not ended by then says that it is ending
# SIGUSR1, SIGUSR2 and SIGXCPU: batch systems warn with them before a time limit. Those that tell of a crash
# (SIGSEGV, SIGABRT ...) and of job control (SIGTSTP ...) keep their meaning.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGALRM", "SIGPWR")
ENDING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Interrupted(BaseException):
    """A signal asks this process to end. No `Exception`, so that nothing takes it for an error of its own."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(f"interrupted by {self.name}")


class _State:
    def __init__(self) -> None:
        self.first: int | None = None  # the signal that came first
        self.since = 0.0  # when it came
        self.raised = False
        self.told = False  # which signal it was
        self.held = 0
        self.mine: tuple[int, ...] = ()  # those that are handled here: not those that were ignored
        self.blocked = False
        self.most_s: float | None = None  # how long that may take after a signal
        self.last: list[Callable[[], object]] = []
        self.pipe = -1  # what is written there reaches the watcher
        self.code: int | None = None  # with which the process will end, once all is done

    def came(self, number: int) -> None:
        if self.first is None:
            self.since, self.first = time.monotonic(), number


_state = _State()


def received() -> bool:
    """Whether a signal has asked this process to end."""
    return _state.first is not None


def left() -> float:
    """Seconds until this process is ended, in good order or not."""
    return max(0.0, _state.since + LIMIT_S - time.monotonic()) if received() else float("inf")


def interrupted() -> Interrupted | None:
    """What the first signal raised, or would have raised; None if there was none."""
    return Interrupted(_state.first) if _state.first is not None else None


def tell() -> None:
    """Say on standard error which signal ends this process, if one does and it has not been said."""
    if _state.first is not None and not _state.told:
        _state.told = True
        _say(str(Interrupted(_state.first)))


def check(held: bool = False) -> None:
    """In the main thread, raise `Interrupted` if a signal has come and nothing was raised for it yet.

    With `held` within `held()`, too: here it may be raised.
    """
    if _state.first is not None and not _state.raised and (held or not _state.held) and _in_main_thread():
        _state.raised = True
        raise Interrupted(_state.first)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """In here, in the main thread, nothing is raised for a signal; at the end it is."""
    if not _in_main_thread():
        yield
        return
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    check()


def keep() -> None:
    """Take back the signals whose handlers a library has replaced. For the main thread; cheap."""
    for number in _state.mine:
        if signal.getsignal(number) is not _handle:
            signal.signal(number, _handle)


def done(code: int | None = None) -> None:
    """All is done: nothing is raised any more; a signal while the interpreter exits ends it with `code`."""
    _state.raised = True
    _state.code = code


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Signals are handled as above; at the end as they were before, or as `done` said.

    One that was ignored at the start, as by `nohup`, stays ignored. Not so SIGINT and SIGQUIT: scripts of a
    shell ignore these for whatever they start with `&`. Outside the main thread nothing changes.
    """
    global _state
    if not _in_main_thread() or _state.mine:
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    always = (signal.SIGINT, signal.SIGQUIT)
    before = {
        n: was for n, was in before.items() if was is not None and (was != signal.SIG_IGN or n in always)
    }
    _state = _State()
    reader, _state.pipe = os.pipe()
    os.set_blocking(_state.pipe, False)
    wakeup = signal.set_wakeup_fd(_state.pipe, warn_on_full_buffer=False)
    watching = threading.Thread(target=_Watch(_state, reader).run, name="signals", daemon=True)
    watching.start()
    _state.mine = tuple(before)
    for number in before:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        code = _state.code
        for number, was in before.items():
            signal.signal(number, was if code is None else lambda *_: os._exit(code))
        signal.set_wakeup_fd(wakeup)
        _state.mine = ()
        os.close(_state.pipe)
        watching.join()


@contextlib.contextmanager
def cleared(clear: Callable[[], object]) -> Iterator[None]:
    """While the block runs, `clear` is what a process that is ended before its time still does."""
    _state.last.append(clear)
    try:
        yield
    finally:
        _state.last.remove(clear)


@contextlib.contextmanager
def blocked(most_s: float | None = None) -> Iterator[None]:
    """In here, in the main thread, a library may set handlers as it likes: no signal reaches them.

    Handlers that Python sets are not taken. Those that C sets, such as Ray's for SIGTERM, nobody is told of:
    so the signals are blocked, and the thread that watches takes them. At the end the handlers are ours
    again, and `Interrupted` is raised if there was a signal, as by `held`; a block that takes longer than
    `most_s` after it is given up, and with it the process.
    """
    if not _state.mine or not _in_main_thread() or not hasattr(signal, "sigtimedwait"):
        with held():
            yield
        keep()
        return
    with held():
        signal.pthread_sigmask(signal.SIG_BLOCK, _state.mine)
        _state.blocked, _state.most_s = True, most_s
        os.write(_state.pipe, b"\0")  # the watcher looks up
        setting = signal.signal
        signal.signal = _not_ours  # type: ignore[assignment]
        try:
            yield
        finally:
            signal.signal = setting
            for number in _state.mine:
                signal.signal(number, _handle)
            _state.blocked = False
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _state.mine)


def _not_ours(number: int, handler: Any) -> Any:
    """`signal.signal` for the others' signals alone."""
    return signal.getsignal(number) if number in _state.mine else _signal(number, handler)


def _handle(number: int, frame: FrameType | None) -> None:
    _state.came(number)
    check()


class _Watch:
    """The thread that ends the process at a second signal, and at the end of its time after the first."""

    def __init__(self, state: _State, reader: int) -> None:
        self._state = state
        self._reader = reader
        self._first = 0.0  # when the first signal came
        self._noticed = False

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # they are the main thread's
        while True:
            ready = select.select([self._reader], [], [], _POLL_S if self._state.blocked else self._left())[0]
            numbers = os.read(self._reader, 64) if ready else b"\0"
            if not numbers:
                os.close(self._reader)
                return
            for number in numbers:
                if number in self._state.mine and signal.getsignal(number) is _handle:  # else another's
                    self._came(number)
            while self._state.blocked and (taken := signal.sigtimedwait(self._state.mine, 0)) is not None:
                self._state.came(taken.si_signo)
                self._came(taken.si_signo)
            if self._left() == 0:
                self._due()
            most_s = self._state.most_s if self._state.blocked else None
            if self._first and most_s is not None and time.monotonic() - self._first > most_s:
                self._end(str(interrupted()))

    def _came(self, number: int) -> None:
        now = time.monotonic()
        if not self._first:
            self._first = now
        elif now - self._first >= _APART_S:
            os._exit(128 + number)

    def _left(self) -> float | None:
        """Seconds until there is something to say or do."""
        if not self._first:
            return None
        return max(0.0, self._first + (LIMIT_S if self._noticed else _NOTICE_S) - time.monotonic())

    def _due(self) -> None:
        if self._noticed:
            self._end(f"not ended in good order within {LIMIT_S:g} s, so at once: `raykd resume` goes on")
        self._noticed = True
        _say(f"ending in good order, within {LIMIT_S:g} s; one more signal ends it at once")

    def _end(self, why: str) -> None:
        for clear in reversed(self._state.last):
            with contextlib.suppress(Exception):
                clear()
        _say(why)
        os._exit(1)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"raykd: {text}\n".encode())


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _forget() -> None:
    """In a forked child: the parent's pipe and its wish to end are not the child's."""
    if _state.mine:
        signal.set_wakeup_fd(-1)
        for number in _state.mine:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        _state.mine, _state.first = (), None


os.register_at_fork(after_in_child=_forget)
