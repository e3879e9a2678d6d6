"""A storage that is slow, fails for a while or is full: waited for, then a clean end, and nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import quick
import torch
from command import SMALL, raykd, start

from raykd.records.history import ENDED, History
from raykd.records.ledger import LEDGER, Ledger
from raykd.storage.folder_lease import LOCK
from raykd.storage.lease import LeaseRecord
from raykd.storage.open_storage import open_sweep
from trainables.core import storage_retry
from trainables.core.errors import StorageLost, SweepFailed, UserError
from trainables.core.storage_retry import with_retry
from trainables.training.checkpoints import Checkpoints


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a person was told of the storage."""
    monkeypatch.setattr(storage_retry, "_SAY_AFTER_S", 0.3)
    found: list[str] = []
    storage_retry.tell_with(found.append)
    yield found
    storage_retry.tell_with(print)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "raykd-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


class Failing:
    """`os.fsync` for a test: fails while `times` are left, or until it is mended."""

    def __init__(self, number: int, times: float) -> None:
        self.number, self.times, self.real = number, times, os.fsync

    def __call__(self, handle: int) -> None:
        if self.times > 0:
            self.times -= 1
            raise OSError(self.number, os.strerror(self.number))
        self.real(handle)


# Without Ray ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_record_that_could_not_be_written_at_once_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str], number: int
) -> None:
    with Ledger.create(tmp_path / "s") as ledger:
        ledger.append("extend", samples=1)
        monkeypatch.setattr(os, "fsync", Failing(number, 4))
        ledger.append("extend", samples=2)
        ledger.append("extend", samples=3)
    assert [record["samples"] for record in Ledger.read(tmp_path / "s")] == [1, 2, 3]
    assert len(said) == 2 and os.strerror(number) in said[0] and "over" in said[1], said


def test_retries_end_and_what_will_not_pass_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(storage_retry.RETRY_ENV, "0.5")

    def fails(number: int) -> Callable[[], None]:
        def work() -> None:
            raise OSError(number, os.strerror(number))

        return work

    began = time.monotonic()
    with pytest.raises(
        StorageLost, match=r"^x cannot be written: No space left .*make room, then `raykd resume`"
    ):
        with_retry(fails(errno.ENOSPC), "x cannot be written")
    assert 0.4 < time.monotonic() - began < 5
    with pytest.raises(PermissionError):
        with_retry(fails(errno.EACCES), "x cannot be written")
    monkeypatch.setenv(storage_retry.RETRY_ENV, "soon")
    with pytest.raises(UserError, match="RAYKD_STORAGE_PATIENCE: is no number"):
        with_retry(fails(errno.EIO), "x cannot be written")


def test_a_full_disk_leaves_the_checkpoint_before_and_no_half_one(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(storage_retry.RETRY_ENV, "0.3")
    checkpoints = Checkpoints(small_disk / "trial")
    checkpoints.save(1, {"weights": torch.zeros(1 << 18)})
    filler = fill(small_disk)
    with filler.open("rb+") as file:
        file.truncate(filler.stat().st_size - (1 << 19))  # room for a half
    with pytest.raises(StorageLost, match="cannot be written: No space left on device"):
        checkpoints.save(2, {"weights": torch.ones(1 << 18)})
    assert [path.name[:11] for path in checkpoints.folder.iterdir()] == ["epoch-00001"]
    found = checkpoints.load()
    assert found is not None and found[0] == 1
    filler.unlink()
    checkpoints.save(2, {"weights": torch.ones(1 << 18)})
    found = checkpoints.load()
    assert found is not None and found[0] == 2


# Who drives, in a folder that other machines share --------------------------------------------------


def leave_lease(folder: Path, **fields: object) -> None:
    """The lock file as a driver on a machine whose flock cannot be seen here has left it."""
    folder.mkdir(parents=True, exist_ok=True)
    record = LeaseRecord.mine(host="far", pid=77, machine="far 1", nonce="far", **fields)
    (folder / LOCK).write_bytes(record.data())


def test_a_driver_whose_flock_is_not_seen_counts_while_it_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setenv("RAYKD_LOCK_STALE", "3")
    leave_lease(tmp_path)
    assert open_sweep(tmp_path).driver() == ("far", 77)
    beat = threading.Timer(1, leave_lease, (tmp_path,), {"beat": 1})
    beat.start()
    with pytest.raises(UserError, match="is being run by process 77 on far"):
        open_sweep(tmp_path).take_lease()
    beat.join()
    began = time.monotonic()
    lease = open_sweep(tmp_path).take_lease()  # no more beats
    assert 2 < time.monotonic() - began < 10
    assert any("process 77 on far drove this sweep" in text for text in said), said
    leave_lease(tmp_path, beat=2)  # and now it is back, and takes the file for its own
    time.sleep(1.2)
    with pytest.raises(SweepFailed, match="taken over by process 77 on far"):
        lease.verify()
    lease.close()


def test_a_driver_that_ended_or_died_here_is_not_waited_for(tmp_path: Path) -> None:
    for last in ({}, {"machine": LeaseRecord.mine().machine, "pid": 2**22 - 3, "began": "1"}):
        open_sweep(tmp_path).take_lease().close()
        if last:
            (tmp_path / LOCK).write_bytes(LeaseRecord(host="here", nonce="x", **last).data())  # type: ignore[arg-type]
        began = time.monotonic()
        open_sweep(tmp_path).take_lease().close()
        assert time.monotonic() - began < 1


# A whole sweep --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.ray(second=True)
def test_a_sweep_waits_for_its_storage_ends_when_it_stays_full_and_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, out = tmp_path / "fault", tmp_path / "out.txt"
    faulty = [str(Path(quick.__file__).parent / "faulty"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(faulty))
    monkeypatch.setenv("RAYKD_TEST_FAULT", str(fault))
    monkeypatch.setenv(storage_retry.RETRY_ENV, "20")
    spec = tmp_path / "small.yaml"
    lean = SMALL.replace("epochs: 4", "epochs: 8").replace("samples: 4", "samples: 3")
    spec.write_text(lean.replace("{name: asha, grace: 1, factor: 2}", "none") + "references: []\n")
    folder = small_disk / "small"
    driver = start("run", spec, "--storage", small_disk, output=out)

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < deadline and driver.poll() is None, out.read_text()
            time.sleep(0.1)

    def reports() -> int:
        return sum(r["kind"] == "report" for r in Ledger.read(folder)) if (folder / LEDGER).exists() else 0

    until(lambda: reports() >= 2)
    fault.write_text(f"{errno.EIO} 0.2 {small_disk}")  # slow, and failing
    until(lambda: "waiting for the storage" in out.read_text())
    before = reports()
    fault.unlink()
    until(lambda: reports() > before and "wait for the storage is over" in out.read_text())
    monkeypatch.setenv(storage_retry.RETRY_ENV, "4")
    filler = fill(small_disk)
    assert driver.wait(120) == 1
    said = out.read_text()
    assert "Input/output error" in said and "No space left on device" in said, said
    assert "make room, then `raykd resume`" in said, said
    assert f"raykd resume small --storage {small_disk}" in said, said
    assert "Traceback" not in said and "Logging error" not in said, said
    status = raykd("status", "small", "--storage", small_disk)
    assert status.returncode == 0 and "interrupted" in status.stdout, status.stdout + status.stderr
    known = History.of(Ledger.read(folder))
    assert known.counts()["failed"] == 0, "a full disk is no trial's fault"
    again = raykd("resume", "small", "--storage", small_disk)
    assert again.returncode == 1 and "Traceback" not in again.stdout + again.stderr, again.stderr
    assert "No space left on device" in again.stderr

    filler.unlink()
    resumed = raykd("resume", "small", "--storage", small_disk, timeout=400)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    history = History.of(Ledger.read(folder))
    assert history.done and history.counts()["finished"] == 3
    for trial in history.trials.values():
        assert trial.status in ENDED and list(trial.reports) == list(range(1, 9))
    assert not [path for path in small_disk.rglob("*") if path.name.endswith(".tmp")]
