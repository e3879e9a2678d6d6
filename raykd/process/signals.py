"""Signals end a verb in good order: it saves what it has done, and the exit code is 1.

    with caught():
        work()  # raises `Interrupted` in the main thread when a signal comes

The first signal raises `Interrupted` wherever the main thread is, or at the end of a block under `held()`. It
is raised only once, so that it does not disturb the cleanup. The process ends within `LIMIT_S`, in good order
or not: batch systems and Kubernetes send SIGKILL after 30 s. A second signal ends the process at once, with
exit code 128 plus its number. Both also work while the main thread is inside a library, where Python runs no
signal handlers: a thread reads the signals from a pipe that the interpreter's C handler writes.

A process that is not raykd's own (a notebook, a script) is never ended from here, and nothing is said on its
standard error: `caught(ours=False)`.
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
_APART_S = 0.5  # a signal within this time is no second one: shells and batch systems send several at once
_POLL_S = 0.1
_NOTICE_S = 1.0  # a process that has not ended by then says that it is ending
# Batch systems send SIGUSR1, SIGUSR2 or SIGXCPU before a time limit. The signals of a crash (SIGSEGV,
# SIGABRT, …) and of job control (SIGTSTP, …) are left alone.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGALRM", "SIGPWR")
ENDING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Interrupted(BaseException):
    """A signal asks this process to end. Not an `Exception`, so that `except Exception` does not catch it."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(f"interrupted by {self.name}")


class _State:
    """What the main thread and the watcher know of the signals."""

    def __init__(self) -> None:
        self.first: int | None = None  # the signal that came first
        self.since = 0.0  # when it came
        self.raised = False  # whether `Interrupted` was raised for it
        self.told = False  # whether the user was told which signal it was
        self.held = 0  # how many `held()` blocks are open
        self.handled: tuple[int, ...] = ()  # the signals that are handled here
        self.blocked = False  # whether a `blocked()` block is open
        self.most_s: float | None = None  # how long that block may take after a signal
        self.cleanups: list[tuple[bool, Callable[[], object]]] = []  # what `cleared` was given
        self.pipe = -1  # the watcher reads what is written there
        self.ours = True  # whether the process may be ended from here
        self.code: int | None = None  # the exit code, once `done` was called

    def came(self, number: int) -> None:
        """Note the first signal."""
        if self.first is None:
            self.since, self.first = time.monotonic(), number


_state = _State()


def received() -> bool:
    """Whether a signal has asked this process to end."""
    return _state.first is not None


def left() -> float:
    """Seconds until this process is ended, in good order or not; infinite before a signal."""
    return max(0.0, _state.since + LIMIT_S - time.monotonic()) if received() else float("inf")


def interrupted() -> Interrupted | None:
    """The exception of the first signal; None if there was none."""
    return Interrupted(_state.first) if _state.first is not None else None


def tell() -> None:
    """Say on standard error which signal ends this process, unless none does or it has been said."""
    if _state.ours and _state.first is not None and not _state.told:
        _state.told = True
        _say(str(Interrupted(_state.first)))


def check(held: bool = False) -> None:
    """In the main thread, raise `Interrupted` if a signal has come and nothing was raised for it yet.

    Inside a `held()` block it is raised only with `held` True.
    """
    if _state.first is not None and not _state.raised and (held or not _state.held) and _in_main_thread():
        _state.raised = True
        raise Interrupted(_state.first)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """While the block runs in the main thread, no signal raises `Interrupted`; the end of the block does."""
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
    """Set our handlers again where a library has replaced them. For the main thread; cheap."""
    for number in _state.handled:
        if signal.getsignal(number) is not _handle:
            signal.signal(number, _handle)


def done(code: int | None = None) -> None:
    """Raise nothing any more. With `code`, a signal while the interpreter exits ends the process with it."""
    _state.raised = True
    _state.code = code


@contextlib.contextmanager
def caught(ours: bool = True) -> Iterator[None]:
    """While the block runs, signals are handled as the module says; then as before, or as `done` said.

    A signal that was ignored at the start, as by `nohup`, stays ignored. SIGINT and SIGQUIT do not: shell
    scripts ignore these for all that they start with `&`. Outside the main thread nothing changes. `ours` is
    whether the process may be ended from here. Without it a second signal changes nothing, SIGQUIT is left as
    it was, and so are signals but SIGINT and SIGTERM that the process handles itself.
    """
    global _state
    if not _in_main_thread() or _state.handled:
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    always = (signal.SIGINT, signal.SIGQUIT)
    before = {
        n: was for n, was in before.items() if was is not None and (was != signal.SIG_IGN or n in always)
    }
    if not ours:
        taken = (signal.SIGINT, signal.SIGTERM)  # libraries replace handlers of these
        before = {
            n: was
            for n, was in before.items()
            if n in taken or (was == signal.SIG_DFL and n != signal.SIGQUIT)
        }
    _state = _State()
    _state.ours = ours
    reader, _state.pipe = os.pipe()
    os.set_blocking(_state.pipe, False)
    wakeup = signal.set_wakeup_fd(_state.pipe, warn_on_full_buffer=False)
    watching = threading.Thread(target=_Watch(_state, reader).run, name="signals", daemon=True)
    watching.start()
    _state.handled = tuple(before)
    for number in before:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        code = _state.code
        for number, was in before.items():
            signal.signal(number, was if code is None else lambda *_: os._exit(code))
        signal.set_wakeup_fd(wakeup)
        _state.handled, _state.first = (), None  # what this process does next is not interrupted
        os.close(_state.pipe)
        watching.join()


@contextlib.contextmanager
def cleared(clear: Callable[[], object], first: bool = False) -> Iterator[None]:
    """While the block runs, `clear` is called if the watcher ends the process.

    Those of inner blocks are called before those of outer ones. Before all others come those with `first`,
    which end processes: a folder that these still write to cannot be removed.
    """
    mine = (first, clear)
    _state.cleanups.append(mine)
    try:
        yield
    finally:
        _state.cleanups.remove(mine)


@contextlib.contextmanager
def blocked(most_s: float | None = None) -> Iterator[None]:
    """While the block runs in the main thread, a library may set signal handlers: no signal reaches them.

    Handlers that it sets by Python are ignored. Those that it sets in C, such as Ray's for SIGTERM, cannot be
    seen: so the signals are blocked, and the watcher takes them. At the end our handlers are set again, and
    `Interrupted` is raised if there was a signal, as by `held`. If the block goes on for more than `most_s`
    seconds after a signal, the watcher ends the process.
    """
    if not _state.handled or not _in_main_thread() or not hasattr(signal, "sigtimedwait"):
        with held():
            yield
        keep()
        return
    with held():
        signal.pthread_sigmask(signal.SIG_BLOCK, _state.handled)
        _state.blocked, _state.most_s = True, most_s
        os.write(_state.pipe, b"\0")  # wakes the watcher
        setting = signal.signal
        signal.signal = _not_ours  # type: ignore[assignment]
        try:
            yield
        finally:
            signal.signal = setting
            for number in _state.handled:
                signal.signal(number, _handle)
            _state.blocked = False
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _state.handled)


def _not_ours(number: int, handler: Any) -> Any:
    """`signal.signal` for signals that are not handled here; does nothing for those that are."""
    return signal.getsignal(number) if number in _state.handled else _signal(number, handler)


def _handle(number: int, frame: FrameType | None) -> None:
    """The handler of every signal."""
    _state.came(number)
    check()


class _Watch:
    """The thread that ends a process of ours at a second signal, or `LIMIT_S` after the first."""

    def __init__(self, state: _State, reader: int) -> None:
        self._state = state
        self._reader = reader
        self._first = 0.0  # when the first signal came
        self._noticed = False

    def run(self) -> None:
        """Watch until the pipe is closed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # the main thread gets them
        while True:
            ready = select.select([self._reader], [], [], _POLL_S if self._state.blocked else self._left())[0]
            numbers = os.read(self._reader, 64) if ready else b"\0"
            if not numbers:
                os.close(self._reader)
                return
            for number in numbers:
                # Else a library handles it.
                if number in self._state.handled and signal.getsignal(number) is _handle:
                    self._came(number)
            while self._state.blocked and (taken := signal.sigtimedwait(self._state.handled, 0)) is not None:
                self._state.came(taken.si_signo)
                self._came(taken.si_signo)
            if self._left() == 0:
                self._due()
            most_s = self._state.most_s if self._state.blocked else None
            if self._first and most_s is not None and time.monotonic() - self._first > most_s:
                self._end(str(interrupted()))

    def _came(self, number: int) -> None:
        now = time.monotonic()
        if not self._state.ours:
            return
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
        inner_first = reversed(self._state.cleanups)
        for _, clear in sorted(inner_first, key=lambda cleanup: not cleanup[0]):
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
    """In a forked child: handle signals as Python does, and forget those of the parent."""
    if _state.handled:
        signal.set_wakeup_fd(-1)
        for number in _state.handled:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        _state.handled, _state.first = (), None


os.register_at_fork(after_in_child=_forget)
