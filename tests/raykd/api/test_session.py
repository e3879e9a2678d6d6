"""A process that is not raykd's own is as it was after a sweep was driven in it. Without Ray."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from raykd.api.session import driving
from raykd.console.bar import Silent
from raykd.console.live import Console
from raykd.lanes.cluster import QUIET, quiet, send_logs
from raykd.process import signals
from trainables.core import storage_retry
from trainables.core.errors import StorageLost, UserError


@pytest.fixture(autouse=True)
def _default_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in signals.ENDING}
    yield
    assert before == {number: signal.getsignal(number) for number in signals.ENDING}


def test_ctrl_c_is_a_keyboard_interrupt_after_the_cleanup() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), driving(False):
        try:
            signal.raise_signal(signal.SIGINT)
        except signals.Interrupted:
            done.append("cleaned up")
            raise
    assert done == ["cleaned up"] and not signals.received()
    with driving(False):  # and once more
        pass


def test_a_second_ctrl_c_does_not_disturb_the_cleanup() -> None:
    """Neither of a kernel, whose variables would be lost, nor of a script."""
    code = """
import os, signal, time
from raykd.api.session import driving
from raykd.process import signals
signals.LIMIT_S, signals._NOTICE_S = 1.0, 0.2
try:
    with driving(False):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            time.sleep(0.8)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.8)
            print("whole", flush=True)
except KeyboardInterrupt:
    print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["whole", "alive"], "")


def test_a_signal_that_a_library_holds_back_ends_nothing() -> None:
    """Ray starts under `blocked`, which in a process of ours has an end."""
    with pytest.raises(KeyboardInterrupt), driving(False):
        with signals.blocked(0.1):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.6)
        raise AssertionError("the end of the block raises it")


def test_sigterm_does_what_it_would_have_done() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with pytest.raises(KeyboardInterrupt), driving(False):
            signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_that_the_process_uses_itself_are_left_to_it() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    try:
        with driving(False):
            signal.raise_signal(signal.SIGUSR1)
            assert came == [signal.SIGUSR1] and not signals.received()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_error_that_follows_from_the_signal_is_not_shown() -> None:
    with pytest.raises(KeyboardInterrupt), driving(False):
        try:
            signal.raise_signal(signal.SIGINT)
        except signals.Interrupted:
            raise RuntimeError("Ray has ended") from None


def test_loggers_and_variables_are_put_back(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, theirs = logging.getLogger(), logging.StreamHandler()
    own_file = logging.FileHandler(tmp_path / "theirs.log")
    lines: list[str] = []
    monkeypatch.setattr(theirs, "emit", lambda record: lines.append(record.getMessage()))
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    root.addHandler(theirs)
    root.addHandler(own_file)
    level, handlers = root.level, list(root.handlers)
    try:
        with driving(False):
            quiet()
            send_logs(tmp_path / "log.txt")
            logging.getLogger("raykd.test").info("for the log alone")
            logging.getLogger("raykd.test").warning("for all")
            assert set(QUIET) <= set(os.environ)
        assert (root.level, root.handlers) == (level, handlers) and theirs.level == logging.NOTSET
        assert lines == ["for all"]
        assert (tmp_path / "theirs.log").read_text() == "for all\n"
        assert "for the log alone" in (tmp_path / "log.txt").read_text()
        assert not set(QUIET) & set(os.environ)
    finally:
        root.removeHandler(theirs)
        root.removeHandler(own_file)
        own_file.close()


def test_the_storage_s_messages_go_to_nobody_s_old_screen() -> None:
    said: list[str] = []
    with driving(False):
        storage_retry.tell_with(said.append)
    storage_retry.tell("waiting")
    assert not said


def test_one_sweep_at_a_time(capfd: pytest.CaptureFixture[str]) -> None:
    problems: list[UserError] = []

    def another() -> None:
        try:
            with driving(False):
                pass
        except UserError as error:
            problems.append(error)

    with driving(None) as console:
        thread = threading.Thread(target=another)
        thread.start()
        thread.join()
        assert isinstance(console, Silent)
        console.warn("of no interest")
    assert "drives a sweep already" in str(problems[0])
    another()
    assert len(problems) == 1 and capfd.readouterr() == ("", "")


def test_a_thread_that_is_not_the_main_one_may_drive() -> None:
    before, found = signal.getsignal(signal.SIGINT), []

    def drive() -> None:
        with driving(False):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join()
    assert found == [before]


def test_ray_that_is_in_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Used:
        @staticmethod
        def is_initialized() -> bool:
            return True

    monkeypatch.setitem(sys.modules, "ray", Used)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"ray: .*connected.*`ray.shutdown\(\)`"), driving(False):
        raise AssertionError


def test_a_lost_storage_is_told_as_on_the_command_line() -> None:
    said = "/data/x cannot be used: No space left on device; make room"
    with pytest.raises(StorageLost, match=said), driving(False):
        raise OSError(28, "No space left on device", "/data/x")


def test_the_command_line_keeps_what_it_has() -> None:
    console = Console()
    with driving(console) as same, driving(console):
        assert same is console
