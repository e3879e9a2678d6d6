"""Whoever reads the output may go, or never have been there: nothing raises, nothing hangs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import command

from raykd.console.live import Console
from raykd.lanes.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[3]
FULL = Path("/dev/full")
# What a sweep does with its screen: lines from several threads, and at last a table.
SCRIPT = """
import logging, sys, threading
from raykd.process import streams
streams.settle()
from raykd.console.live import Console
said = []
streams.tell_with(said.append)
logging.basicConfig(filename=sys.argv[1] + ".log", level="INFO")
console = Console()
def talk():
    for number in range(50):
        console.say(f"line {number}")
threads = [threading.Thread(target=talk, name="lanes") for _ in range(3)]
ended = []
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
console.rows(("a", "b"), [(1, 2)])
print("plain", file=sys.stderr)
sys.stdout.buffer.write(b"bytes\\n")
with open(sys.argv[1], "w") as ledger:
    assert ledger.fileno() > 2
    error = streams.close()
    ledger.write(repr((len(said), error and error.errno)))
"""


@contextmanager
def no_reader() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def closed_terminal() -> Iterator[int]:
    master, slave = pty.openpty()
    os.close(master)
    yield slave
    os.close(slave)


@contextmanager
def full_disk() -> Iterator[int]:
    if not FULL.exists():
        pytest.skip("no /dev/full")
    with FULL.open("wb") as file:
        yield file.fileno()


GONE = {"pipe": no_reader, "terminal": closed_terminal, "disk": full_disk}


@pytest.mark.parametrize("what", GONE)
def test_work_goes_on_without_a_screen(what: str, tmp_path: Path) -> None:
    with GONE[what]() as out:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, tmp_path / "said"], stdout=out, stderr=out, cwd=ROOT, check=False
        )
    told, error = eval((tmp_path / "said").read_text())
    assert done.returncode == 0 and 1 <= told <= 2, "once a stream"
    assert (tmp_path / "said.log").read_text().count("line 49") == 3, "the log goes on"
    assert (error is not None) == (what == "disk"), "a reader that has gone knows it"


@pytest.mark.parametrize("what", GONE)
@pytest.mark.parametrize("arguments", ["list data --json", "--help", "list nonsense"])
def test_a_verb_ends_quietly(what: str, arguments: str) -> None:
    with GONE[what]() as out:
        done = subprocess.run(
            command(*arguments.split()), stdout=out, stderr=subprocess.PIPE, text=True, check=False
        )
    mistake = "nonsense" in arguments
    assert done.returncode == (2 if mistake else 1 if what == "disk" else 0)
    if mistake:
        assert "nonsense" in done.stderr
    else:
        expected = "raykd: standard output could not be written: No space left on device\n"
        assert done.stderr == (expected if what == "disk" else "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_at_the_start(closed: str, tmp_path: Path) -> None:
    """Else the next file that is opened gets their number, and with it what is meant for the screen."""
    said = tmp_path / "said"
    line = f'exec "$0" -c "$1" "$2" {closed}'
    subprocess.run(
        ["sh", "-c", line, sys.executable, SCRIPT, said], cwd=ROOT, check=True, capture_output=True
    )
    assert said.read_text() == "(0, None)"
    line = f'exec "$@" {closed}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *command("list", "data")], capture_output=True, check=False
    )
    assert done.returncode == 0 and done.stderr == b""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_character_that_the_encoding_lacks_is_written_in_ascii(encoding: str) -> None:
    text = "81.2 ± 0.5 … «ü» 見 \\udcff"
    code = f"from raykd.process import streams; streams.settle(); print('{text}')"
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, check=True)
    shown = text.replace("\\udcff", "\udcff")
    assert done.stdout == shown.encode(encoding, "backslashreplace") + b"\n"


def test_what_is_said_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        Console().say("a trial has ended")
    assert "a trial has ended" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_a_supervisor_that_dies_of_anything_ends_the_sweep(error: BaseException) -> None:
    """Without it no lane starts, and the sweep would wait for ever."""
    rounds = []

    def adjust() -> None:
        rounds.append(1)
        if len(rounds) > 1:
            raise SystemExit(1)
        raise error

    stopping = SimpleNamespace(wait=lambda _: False)
    lanes = SimpleNamespace(stopping=stopping, broken=None)
    supervisor: Any = SimpleNamespace(_lanes=lanes, _adjust=adjust)
    Supervisor._run(supervisor)
    assert "nobody looks after the lanes" in str(lanes.broken)
