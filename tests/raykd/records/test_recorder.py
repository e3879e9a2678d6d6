"""The recorder: nothing is acted on or shown before the ledger is on the disk; many wait for one write."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ledger_records import end, head, report, start, suggest

from raykd.records.history import History
from raykd.records.ledger import KINDS, Ledger
from raykd.records.recorder import Recorder
from raykd.records.tables import LiveTables, curves_table, trials_table
from raykd.storage import remote, segments
from trainables.core.errors import StorageLost, UserError


class Slow:
    """An append log that is on the disk only when `free` is set; counts its writes."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self.free = threading.Event()
        self.writes: list[bytes] = []
        self.error: BaseException | None = None

    def append(self, lines: bytes) -> None:
        assert self.free.wait(20)
        if self.error:
            raise self.error
        self.writes.append(lines)
        self.log.append(lines)

    def close(self) -> None:
        self.log.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "s") as ledger:
        ledger._append_log = Slow(ledger._append_log)
        yield ledger
        slow(ledger).free.set()


def slow(ledger: Ledger) -> Slow:
    found = ledger._append_log
    assert isinstance(found, Slow)
    return found


def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def record(recorder: Recorder, made: dict[str, Any], soon: bool = True) -> None:
    fields = {name: made[name] for name in KINDS[made["kind"]]}
    (recorder.soon if soon else recorder)(made["kind"], **fields)


def test_what_comes_while_a_write_is_under_way_goes_together_in_the_next(
    ledger: Ledger, tmp_path: Path
) -> None:
    shown: list[int] = []
    recorder = Recorder(ledger, History(), [lambda record, _: shown.append(record["epoch"])])
    recorder.history.add(suggest("a" * 8))
    done: list[int] = []
    for epoch in range(1, 51):
        record(recorder, report("a" * 8, epoch, 50.0))
        recorder.after(lambda epoch=epoch: done.append(epoch))
    time.sleep(0.05)
    assert not done and not shown and not (tmp_path / "s/ledger.jsonl").read_bytes()
    slow(ledger).free.set()
    until(lambda: len(done) == 50)
    recorder.close()
    assert shown == done == list(range(1, 51))
    assert len(slow(ledger).writes) <= 3, "the first report, and all that came meanwhile"
    assert [r["epoch"] for r in Ledger.read(tmp_path / "s")] == done


def test_threads_that_record_wait_for_their_records_only(ledger: Ledger, tmp_path: Path) -> None:
    recorder = Recorder(ledger, History())
    said: list[int] = []

    def go(who: int) -> None:
        recorder("extend", samples=who)
        assert str(who).encode() in (tmp_path / "s/ledger.jsonl").read_bytes()
        said.append(who)

    threads = [threading.Thread(target=go, args=(1000 + who,)) for who in range(16)]
    for thread in threads:
        thread.start()
    until(lambda: ledger._written == 16)
    assert not said
    slow(ledger).free.set()
    for thread in threads:
        thread.join(20)
    assert len(said) == 16 and len(slow(ledger).writes) <= 2


@pytest.mark.parametrize("soon", [True, False])
def test_after_a_failure_nothing_is_acted_on(ledger: Ledger, soon: bool) -> None:
    recorder = Recorder(ledger, History())
    recorder.check()
    slow(ledger).error = StorageLost("it is away")
    slow(ledger).free.set()
    done: list[str] = []
    if soon:
        recorder.soon("extend", samples=1)
        recorder.after(lambda: done.append("acted"))
        until(lambda: recorder._failure)
        with pytest.raises(StorageLost, match="away"):
            recorder.check()
    else:
        with pytest.raises(StorageLost, match="away"):
            recorder("extend", samples=1)
    with pytest.raises(StorageLost, match="away"):
        recorder("extend", samples=2)
    recorder.close()
    assert not done


def test_what_is_not_on_the_disk_yet_is_written_when_the_ledger_closes(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "s") as ledger:
        ledger.write("extend", samples=1)
        ledger.write("extend", samples=2)
    with pytest.raises(UserError, match="closed"):
        ledger.write("extend", samples=3)
    assert [r["samples"] for r in Ledger.read(tmp_path / "s")] == [1, 2]


class Failing:
    """A view that fails once, and is rebuilt."""

    def __init__(self) -> None:
        self.knows: list[int] = []
        self.fails = True

    def __call__(self, record: dict[str, Any], history: History) -> None:
        if self.fails:
            self.fails = False
            raise OSError(28, "No space left on device")
        self.knows.append(record["samples"])

    def rebuild(self, history: History) -> None:
        self.knows = list(history.extensions)


def test_a_view_that_was_rebuilt_is_not_told_again_what_it_knows(ledger: Ledger) -> None:
    view = Failing()
    recorder = Recorder(ledger, History(), [view])
    for samples in (1, 2, 3, 4):
        recorder.soon("extend", samples=samples)
    slow(ledger).free.set()
    recorder.sync()  # the first fails, the second rebuilds from a history that holds all four
    recorder("extend", samples=5)
    assert view.knows == [1, 2, 3, 4, 5]


def test_tables_are_written_from_a_copy_of_the_history(tmp_path: Path) -> None:
    history = History.of([head(), suggest("a" * 8), start("a" * 8), report("a" * 8, 1, 50.0)])
    copy = history.snapshot()
    tables = LiveTables(tmp_path)
    tables({}, history)
    for more in (report("a" * 8, 2, 60.0), end("a" * 8), suggest("b" * 8, 1)):
        history.add(more)
    tables.close()
    assert copy.trials["a" * 8].reports.keys() == {1} and copy.trials["a" * 8].status == "running"
    assert pq.read_table(tmp_path / "curves.parquet").num_rows == 1
    assert trials_table(copy).num_rows == 1 and curves_table(history).num_rows == 2


def test_an_object_of_a_ledger_holds_what_was_written_together(tmp_path: Path) -> None:
    there = remote.Remote.connect(f"file://{tmp_path}")
    log = segments.Segments(there, "s", 1, 0)
    lines = [b"%05d %s\n" % (n, b"x" * 1000) for n in range(200)]
    at = 0
    for count in (1, 3, 100, 0, 96):
        log.append(b"".join(lines[at : at + count]))
        at += count
    assert segments.read(there, "s") == (b"".join(lines), 1)
    # A later driver goes on after record 150: what the first one wrote from there on does not count.
    segments.Segments(there, "s", 2, 150).append(b"later\n")
    assert segments.read(there, "s") == (b"".join(lines[:150]) + b"later\n", 2)
