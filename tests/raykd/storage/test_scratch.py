"""What a killed driver leaves in the temporary folder goes with the next one, and nothing else does."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raykd.storage.lease import LeaseRecord
from raykd.storage.scratch import scratch_folder

KILLED = """
import os, signal
from raykd.storage.scratch import scratch_folder
with scratch_folder() as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


# Its cleanup hangs, as when a loaded machine does not get through `ray.shutdown`.
HANGS = """
import signal, time
from raykd.process import signals
from raykd.storage.scratch import scratch_folder
signals.LIMIT_S = 1.2
with signals.caught(), scratch_folder() as folder:
    (folder / "log").write_text("...")
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def a_dead_drivers() -> Path:
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL and killed.stdout, killed.stderr
    return Path(killed.stdout.strip())


def test_those_of_dead_drivers_go(temporary: Path) -> None:
    dead = a_dead_drivers()
    (dead / "tune").mkdir()
    (dead / "tune" / "tuner.pkl").write_bytes(b"...")
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (dead / "tune" / "link").symlink_to(elsewhere)
    with scratch_folder() as mine, scratch_folder() as another:
        assert not dead.exists() and mine.is_dir() and another.is_dir()
    assert not mine.exists() and not another.exists()
    assert (elsewhere / "kept").exists()


def test_what_may_be_anothers_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = a_dead_drivers()
    gone = LeaseRecord.read((dead / ".driver").read_bytes())
    kept = {name: temporary / f"raykd-{name}" for name in ("other_machine", "silent", "torn", "linked")}
    for folder in kept.values():
        folder.mkdir()
    (kept["other_machine"] / ".driver").write_bytes(dataclasses.replace(gone, machine="another").data())
    (kept["torn"] / ".driver").write_bytes(gone.data()[:-5])
    (temporary / "owner").write_bytes(gone.data())
    (kept["linked"] / ".driver").symlink_to(temporary / "owner")
    (temporary / "target").mkdir()
    (temporary / "target" / ".driver").write_bytes(gone.data())
    (temporary / "raykd-link").symlink_to(temporary / "target")
    (temporary / "raykd-file").write_bytes(gone.data())
    with scratch_folder():
        assert not dead.exists()
    assert all(folder.exists() for folder in kept.values())
    assert (temporary / "target" / ".driver").exists() and (temporary / "raykd-file").exists()

    theirs = a_dead_drivers()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with scratch_folder():
        assert theirs.exists(), "another user's"


def test_a_driver_that_does_not_end_in_good_order_leaves_nothing(temporary: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "not ended in good order within 1.2 s" in ended.stderr
    assert not list(temporary.iterdir())


def test_what_others_still_write_to_is_removed_by_the_next_driver(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's daemons outlive a killed driver for a moment, and make files while their folder is removed."""
    dead = a_dead_drivers()
    remove = shutil.rmtree

    def while_written(folder: Path, **options: bool) -> None:
        remove(folder, **options)
        (folder / "logs").mkdir(parents=True)

    monkeypatch.setattr(shutil, "rmtree", while_written)
    with scratch_folder():
        monkeypatch.setattr(shutil, "rmtree", remove)
        assert dead.exists()
    with scratch_folder():
        assert not dead.exists()
