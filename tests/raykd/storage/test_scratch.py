"""What a killed driver leaves in the temporary folder goes with the next one, and nothing else does."""

from __future__ import annotations

import dataclasses
import os
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
