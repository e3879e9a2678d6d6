"""A run has ended well only when its last records are on the disk."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from histories import AXES, a_sweep
from simulated import Deaf, score

from raykd.console.live import Console
from raykd.records.format import FORMAT
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.recorder import Recorder
from raykd.runs import sweep as runs
from raykd.runs.kinds import run_of
from raykd.searching.decisions import Decider, TuneDecider
from raykd.storage import append_log
from raykd.storage.open_storage import open_sweep
from trainables.core import storage_retry
from trainables.core.errors import StorageLost

SPEC = a_sweep(AXES, 2, scheduler={"name": "none"})


class Driver:
    """In the place of `Drive`: no Ray. The storage goes away before the last report of the last trial."""

    def __init__(self, _: Any, recorder: Recorder, *others: Any) -> None:
        self.record = recorder

    def go(self, cluster: Any) -> None:
        proposer = run_of(SPEC).proposer(self.record.history)
        decider = TuneDecider(
            Decider(SPEC.scheduler, SPEC.epochs), self.record, proposer, Deaf(), SPEC.epochs
        )
        names = []
        while (proposal := proposer.propose()) is not None:
            self.record("suggest", **proposal.record())
            self.record("start", trial=proposal.trial, attempt=1, lane="lane-0")
            names.append(proposal.trial)
        for name in names:
            for epoch in range(1, SPEC.epochs + 1):
                if (name, epoch) == (names[-1], SPEC.epochs):
                    self.record.sync()
                    Away.now = True
                decider.hear(name, epoch, {"score": score(name, epoch)})


class Away:
    """Whether the storage is."""

    now = False


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def fsync(handle: int) -> None:
        if Away.now and "ledger" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(handle)

    monkeypatch.setattr(Away, "now", False)
    monkeypatch.setattr(append_log.os, "fsync", fsync)
    monkeypatch.setattr(runs, "Drive", Driver)
    monkeypatch.setattr(runs, "live_nodes", lambda: [{"NodeID": "n", "Alive": True, "Resources": {"CPU": 2}}])
    monkeypatch.setenv(storage_retry.RETRY_ENV, "1")


def drive(place: Path) -> History:
    sweep = open_sweep(place)
    with Ledger.create(sweep) as ledger:
        recorder = Recorder(ledger, History())
        about = {"spec": SPEC.model_dump(mode="json"), "spec_hash": SPEC.hash(), "source": None}
        for _ in range(2):
            recorder("sweep", **about, sampler={}, scheduler={}, versions={}, format=FORMAT)
        return runs._drive(SPEC, recorder, runs.Place(sweep), Console(), {})


def test_a_storage_that_goes_away_before_the_last_record_is_no_good_end(tmp_path: Path) -> None:
    with pytest.raises(StorageLost, match="Input/output error, tried again for 1 s"):
        drive(tmp_path / "s")
    Away.now = False
    assert not History.of(Ledger.read(tmp_path / "s")).done


def test_one_that_comes_back_in_time_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(storage_retry.RETRY_ENV, "60")
    back = threading.Timer(2.0, lambda: setattr(Away, "now", False))
    back.start()
    assert drive(tmp_path / "s").done
    assert History.of(Ledger.read(tmp_path / "s")).done


def test_when_the_process_ends_no_thread_waits_long_for_the_storage() -> None:
    def away() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    ended: list[str] = []

    def work() -> None:
        try:
            storage_retry.with_retry(away, "it cannot be written", limit=300)
        except StorageLost as error:
            ended.append(str(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    time.sleep(1.5)  # by now it pauses for a second between tries
    began = time.monotonic()
    with storage_retry.hurried(0.3):
        assert storage_retry.limit() == pytest.approx(0.3, abs=0.2)
        thread.join(20)
    assert ended and time.monotonic() - began < 10
    assert storage_retry.limit() is None
