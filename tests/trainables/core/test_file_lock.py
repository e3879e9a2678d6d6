"""One process at a time, and nobody waits for a dead one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainables.core.errors import UserError
from trainables.core.file_lock import FileLock
from trainables.core.files import guard

HOLD = """
import sys
from pathlib import Path
from trainables.core.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
print(lock.try_take(), flush=True)
sys.stdin.read()
"""


def test_a_lock_is_one_process_s_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other, FileLock(path) as lock:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert not lock.try_take()
        other.kill()
        other.wait()
        assert lock.try_take()
        with FileLock(path) as again:
            assert not again.try_take()


def test_a_link_in_a_lock_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("do not touch")
    (tmp_path / "storage").mkdir()
    link = guard(tmp_path / "storage") / "lock"
    link.symlink_to(tmp_path / "diary")
    with pytest.raises(UserError, match="is a link"):
        FileLock(link)
    assert (tmp_path / "diary").read_text() == "do not touch"
