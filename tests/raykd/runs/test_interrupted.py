"""A sweep ends in good order whenever a signal comes, with a screen or without, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import SMALL, command
from invariants import MARK, all_gone

from raykd.process.signals import LIMIT_S
from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger

pytestmark = pytest.mark.ray

# Several epochs a trial, so that one is in flight when the signal comes.
SPEC = SMALL.replace("epochs: 4\n", "epochs: 40\n").replace("baseline: {method: moco, preset: digits}\n", "")


class Place:
    """A storage, and temporary folders of its own: Ray's, which must be short, and everybody's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = folder / "small.yaml"
        self.spec.write_text(SPEC)
        self.storage = folder / "sweeps"
        self.sweep = self.storage / "small"
        self.ray = Path(tempfile.mkdtemp(prefix="rk", dir="/tmp"))
        self.temporary = folder / "temporary folder whose path is too long for a socket below it".replace(
            " ", "-"
        )
        self.temporary.mkdir()
        self.mark = f"{os.getpid()}-{folder.name}"

    def start(self, *arguments: str | Path, out: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(
            command(*arguments, "--storage", self.storage),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group, as a terminal gives it
            env={
                **os.environ,
                MARK: self.mark,
                "RAY_TMPDIR": str(self.ray),
                "TMPDIR": str(self.temporary),
            },
        )

    def left(self) -> list[str]:
        """What lies in the temporary folders and is not one file for all times."""
        found = [path.name for path in self.temporary.iterdir()]
        found += [path.name for path in (*self.ray.iterdir(), *self.ray.glob("ray/session_*"))]
        return [name for name in found if name != "ray" and not name.startswith("torchinductor")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    shutil.rmtree(place.ray, ignore_errors=True)


def until(true: Callable[[], object], process: subprocess.Popen[Any], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, "it has ended by itself"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def ends(process: subprocess.Popen[Any], send: Callable[[], object]) -> None:
    """It ends within the stated time, with exit code 1."""
    began = time.monotonic()
    send()
    assert process.wait(LIMIT_S + 10) == 1
    assert time.monotonic() - began < LIMIT_S + 5


def test_while_ray_starts_nothing_is_left(place: Place) -> None:
    said = place.folder / "start.txt"
    with said.open("wb") as out:
        process = place.start("run", place.spec, out=out)
    until(lambda: list(place.ray.glob("rk*/ray/session_*/logs/gcs_server*")), process)
    ends(process, lambda: process.send_signal(signal.SIGTERM))
    assert said.read_text().splitlines()[-1] == "raykd: interrupted by SIGTERM"
    assert not place.storage.exists() and not place.left()
    all_gone(place.mark)


@pytest.mark.slow
def test_a_terminal_that_closes_while_lanes_start(place: Place) -> None:
    """Its whole process group is signalled; what could not be measured is no news then."""
    said = place.folder / "lanes.txt"
    with said.open("wb") as out:
        process = place.start("run", place.spec, out=out)
    until(lambda: "preparing data and teacher" in said.read_text(), process)
    ends(process, lambda: os.killpg(process.pid, signal.SIGHUP))
    text = said.read_text()
    assert "interrupted by SIGHUP" in text and "Traceback" not in text and "measured" not in text
    assert f"go on with:  raykd resume small --storage {place.storage}" in text
    assert [record["event"] for record in drivers(place)] == ["start", "end"]
    assert not place.left()
    all_gone(place.mark)


def test_in_training_after_its_reader_has_gone(place: Place) -> None:
    reader, writer = os.pipe()
    process = place.start("run", place.spec, out=writer)
    os.close(writer)
    assert os.read(reader, 1)
    os.close(reader)  # while lanes start
    until(lambda: len(reports(place)) >= 3, process)
    ends(process, lambda: process.send_signal(signal.SIGINT))
    log = (place.sweep / "log.txt").read_text()
    assert "standard output cannot be written any more (Broken pipe)" in log
    assert "go on with:  raykd resume small" in log
    assert "Failed to start the dashboard" not in log, "its sockets do not lie below TMPDIR"
    history = History.of(Ledger.read(place.sweep))
    assert drivers(place)[-1]["event"] == "end" and not history.done
    for trial in history.trials.values():
        assert set(trial.verdicts) == set(trial.reports), "every epoch that was reported has a decision"
    assert not place.left()
    all_gone(place.mark)


def drivers(place: Place) -> list[dict[str, Any]]:
    return [record for record in Ledger.read(place.sweep) if record["kind"] == "driver"]


def reports(place: Place) -> list[dict[str, Any]]:
    records = Ledger.read(place.sweep) if (place.sweep / LEDGER).exists() else []
    return [record for record in records if record["kind"] == "report"]
