"""A signal ends a verb in good order with exit code 1, and a second one at once. Without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command import command

from raykd.process import signals
from raykd.storage.base import LEDGER
from raykd.storage.new_sweep import LOG, removed_if_empty
from raykd.storage.open_storage import open_sweep

ROOT = Path(__file__).resolve().parents[3]
# What a verb does when a signal comes; a limit of 2 s for the end in good order.
SCRIPT = """
import ctypes, os, signal, sys, threading, time
from raykd.process import signals
signals.LIMIT_S, signals._NOTICE_S = 2.0, 0.2

def work(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)

def library():  # as Ray does: handlers of its own, by Python and by C; and threads that take signals
    for number in signals.ENDING:
        signal.signal(number, lambda *_: os._exit(77))
    if sys.argv[1] == "in a library of C":
        ctypes.CDLL(None).signal(signal.SIGTERM, 0)
    work(1.5)

code = 0
with signals.caught():
    try:
        if sys.argv[1] == "in a library":
            threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
        print("ready", flush=True)
        match sys.argv[1]:
            case "at work":
                time.sleep(60)
            case "held":
                with signals.held():
                    work(0.6)
                    print("whole", flush=True)
            case "in a library" | "in a library of C":
                with signals.blocked():
                    library()
                    print("whole", flush=True)
            case "in a library that takes its time":
                with signals.cleared(lambda: print("cleared", flush=True)), signals.blocked(0.5):
                    work(60)
            case "replaced":
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signals.keep()
                print("kept", flush=True)
                time.sleep(60)
            case "swallowed":
                try:
                    time.sleep(60)
                except BaseException:
                    assert signals.received() and signals.interrupted() is not None
                raise SystemExit(5)
            case "does not end":
                try:
                    time.sleep(60)
                finally:
                    time.sleep(60)
            case "forks":
                child = os.fork()
                if child == 0:
                    time.sleep(60)
                time.sleep(0.3)
                os.kill(child, signal.SIGTERM)
                print(os.waitpid(child, 0)[1], signals.received(), flush=True)
                time.sleep(0.7)
        signals.done(0)
    except signals.Interrupted as error:
        print(error, flush=True)
        code = 1
raise SystemExit(code)
"""


def at(moment: str, *sent: signal.Signals, apart: float = 0.0) -> tuple[int, list[str], str, float]:
    """Exit code, lines, standard error, and seconds from the first signal on."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, moment],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    if moment == "replaced":
        assert process.stdout.readline() == "kept\n"
    time.sleep(0.1)
    began = time.monotonic()
    for number, one in enumerate(sent):
        time.sleep(apart if number else 0.0)
        process.send_signal(one)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.splitlines(), err, time.monotonic() - began


@pytest.mark.parametrize("number", signals.ENDING, ids=lambda n: signal.Signals(n).name)
def test_every_signal_is_said_and_ends_with_1(number: signal.Signals) -> None:
    assert at("at work", number)[:3] == (1, [f"interrupted by {signal.Signals(number).name}"], "")


@pytest.mark.parametrize("moment", ["held", "in a library", "in a library of C"])
def test_what_must_be_whole_is_ended_first(moment: str) -> None:
    code, lines, err, _ = at(moment, signal.SIGTERM)
    assert (code, lines) == (1, ["whole", "interrupted by SIGTERM"])
    assert err.count("ending in good order, within 2 s") == 1


def test_a_handler_that_a_library_has_replaced_is_taken_back() -> None:
    assert at("replaced", signal.SIGTERM)[:2] == (1, ["interrupted by SIGTERM"])


def test_several_signals_at_once_are_one() -> None:
    """`timeout`, shells and batch systems send to the process and to its group."""
    code, lines, _, _ = at("held", signal.SIGHUP, signal.SIGTERM, signal.SIGCONT, signal.SIGHUP, apart=0.05)
    assert (code, lines) == (1, ["whole", "interrupted by SIGHUP"])


@pytest.mark.parametrize("moment", ["does not end", "in a library"])
def test_a_second_one_ends_at_once_with_its_number(moment: str) -> None:
    code, _, _, seconds = at(moment, signal.SIGTERM, signal.SIGINT, apart=0.55)
    assert code == 128 + signal.SIGINT and seconds < 5


def test_it_is_over_within_the_limit_in_good_order_or_not() -> None:
    code, _, err, seconds = at("does not end", signal.SIGTERM)
    assert code == 1 and 1.5 < seconds < 6 and "not ended in good order within 2 s" in err


def test_a_start_that_takes_its_time_is_given_up_and_cleared() -> None:
    code, lines, err, seconds = at("in a library that takes its time", signal.SIGTERM)
    assert (
        (code, lines) == (1, ["cleared"]) and err.endswith("raykd: interrupted by SIGTERM\n") and seconds < 6
    )


def test_processes_are_ended_before_folders_are_removed() -> None:
    code = """
import signal, time
from raykd.process.signals import caught, cleared
from raykd.process import signals
signals.LIMIT_S = 1.2
with caught(), cleared(lambda: print("outer")), cleared(lambda: print("processes"), first=True):
    with cleared(lambda: print("inner", flush=True)):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stdout.split() == ["processes", "inner", "outer"], ended.stderr


def test_one_that_was_taken_for_an_error_is_not_forgotten() -> None:
    assert at("swallowed", signal.SIGTERM)[0] == 5


def test_a_child_that_is_forked_has_its_own_signals() -> None:
    code, lines, _, _ = at("forks")
    assert (code, lines) == (0, [f"{int(signal.SIGTERM)} False"])


def test_an_ignored_hangup_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `nohup` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.caught():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.received()
            with pytest.raises(signals.Interrupted, match="SIGTERM"):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "arguments", [("run", "quickstart", "--dry-run"), ("ablate", "retro_parts", "--plan")], ids=" ".join
)
@pytest.mark.parametrize("after", [0.0, 1.0])
def test_a_verb_ends_while_it_imports_and_while_it_plans(
    arguments: tuple[str, ...], after: float, tmp_path: Path
) -> None:
    process = started(*arguments, "--storage", tmp_path)
    time.sleep(after)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.endswith("raykd: interrupted by SIGTERM\n"), err
    assert "Traceback" not in err and len(err.splitlines()) <= 2, (
        "one line, and that it ends if that takes long"
    )
    assert not list(tmp_path.iterdir())


def started(*arguments: str | Path) -> subprocess.Popen[Any]:
    """A verb whose handlers are in place: before that it is Python that starts, in tens of milliseconds."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        if int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1:
            return process
        time.sleep(0.005)
    raise AssertionError("it never handled signals")


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "new"

    def start(folder: Path, record: bytes = b"") -> None:
        with pytest.raises(signals.Interrupted), removed_if_empty(open_sweep(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / LOG).write_text("...")
            lock = open_sweep(folder).take_lease()
            (folder / LEDGER).write_bytes(record)
            lock.close()
            raise signals.Interrupted(signal.SIGTERM)

    start(folder)
    assert not list(tmp_path.iterdir()), "not the storage either, which was made for it"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("the user's")
    (folder / LOG).write_text("an earlier one's")
    start(folder)
    assert sorted(path.name for path in folder.iterdir()) == [LOG, "notes.txt"]
    start(tmp_path / "sweeps" / "begun", b"a record\n")
    assert sorted(path.name for path in (tmp_path / "sweeps" / "begun").iterdir())[-2:] == [LEDGER, LOG]
    with pytest.raises(signals.Interrupted), removed_if_empty(open_sweep(tmp_path / "other")):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / LOG).touch()
        code = "import sys; from pathlib import Path; from raykd.storage.open_storage import open_sweep\n"
        code += "lock = open_sweep(Path(sys.argv[1])).take_lease()\n"
        code += "print(1, flush=True); sys.stdin.read(); lock.close()"
        line = [sys.executable, "-c", code, tmp_path / "other"]
        driver = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        assert driver.stdout is not None and driver.stdout.readline() == b"1\n"
        raise signals.Interrupted(signal.SIGTERM)
    assert (tmp_path / "other" / LOG).exists(), "somebody else is at it"
    driver.communicate()
