"""Sweeps on an object store, without Ray: what is refused, retried, kept, and who may drive."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command import raykd
from pyarrow import fs
from s3 import KEYS, S3, s3_server

from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.storage import remote_lease, segments
from raykd.storage.base import SweepFolder
from raykd.storage.file_transfer import RemoteTransfer
from raykd.storage.marker import StorageMarker, find
from raykd.storage.open_storage import open_storage
from raykd.storage.remote import Remote
from raykd.storage.remote_storage import RemoteStorage, working_copy
from trainables.core import storage_retry
from trainables.core.errors import StorageLost, SweepFailed, UserError
from trainables.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as found:
        yield found


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAYKD_STORAGE_PATIENCE", "30")
    return server


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    """The URI of a bucket on a server that speaks Google's protocol."""
    from gcp_storage_emulator.server import create_server

    port = free_port()
    emulator = create_server("127.0.0.1", port, in_memory=True, default_bucket="lab")
    emulator.start()
    yield f"gs://anonymous@lab/team?scheme=http&endpoint_override=127.0.0.1:{port}"
    emulator.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def storage(s3: S3, request: pytest.FixtureRequest) -> RemoteStorage:
    """A storage of this test's own."""
    return RemoteStorage.connect(s3.uri(f"sweeps/{request.node.name}"))


def epochs(sweep: SweepFolder) -> list[int]:
    return [record["epoch"] for record in Ledger.read(sweep)]


def report(ledger: Ledger, epoch: int, size: int = 0) -> None:
    ledger.append("report", trial="ab", epoch=epoch, metrics={"text": "x" * size})


# What is refused ------------------------------------------------------------------------------------


def test_a_bucket_that_is_not_there_and_keys_that_are_refused(s3: S3, tmp_path: Path) -> None:
    for verb in (("run", "quickstart"), ("status", "quickstart")):
        refused = raykd(*verb, "--storage", s3.uri("x", bucket="nobody"), RAYKD_CACHE=str(tmp_path))
        assert refused.returncode == 2 and "there is no bucket 'nobody'" in refused.stderr, refused.stderr
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "0"}
    port = str(free_port())
    command = [sys.executable, "-c", "from moto.server import main; main()", "-p", port]
    strict = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        uri = f"s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:{port}"
        refused = raykd("run", "quickstart", "--storage", uri, RAYKD_CACHE=str(tmp_path))
        assert refused.returncode == 2 and "refuses us" in refused.stderr, refused.stderr
        assert "AWS_ACCESS_KEY_ID" in refused.stderr and "Traceback" not in refused.stderr
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in refused.stderr
    finally:
        strict.terminate()
        strict.wait()


@pytest.mark.parametrize(
    ("bucket", "said"),
    [
        ("s3://bucket/x", r"network connection .*onnect"),
        ("gs://anonymous@lab/x", r".* not connect to server \("),
    ],
)
def test_a_server_that_is_not_there_is_said_soon(
    bucket: str, said: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_STORAGE_PATIENCE", "1")
    began = time.monotonic()
    with pytest.raises(UserError, match=f"does not answer: {said}"):
        open_storage(f"{bucket}?scheme=http&endpoint_override=127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 20


def test_google_s_bucket_that_is_not_there(google: str) -> None:
    with pytest.raises(UserError, match="there is no bucket 'nobody'"):
        open_storage(google.replace("@lab", "@nobody"))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://key:hidden@bucket/x", "secret in it"),
        ("s3://key@bucket/x", "secret in it"),
        ("abfss://box:hidden@account/x", "secret in it"),
        ("s3://bucket/x?secret_key=hidden", "secret in it"),
        ("s3://bucket/x?regoin=eu-west-1", "Did you mean 'region'"),
        ("s3:///x", "names no bucket"),
        ("gs://", "names no bucket"),
        ("what://bucket/x", "cannot be used"),
    ],
)
def test_uris_that_cannot_work(uri: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        open_storage(uri)
    assert said in str(caught.value) and "hidden" not in str(caught.value)


def test_a_path_and_a_file_uri_are_folders(tmp_path: Path) -> None:
    for given, folder in (("sweeps", Path("sweeps")), (f"file://{tmp_path}/a%20b", tmp_path / "a b")):
        storage = open_storage(given)
        assert storage.folder == folder and storage.option == str(storage) == str(folder)


def test_the_working_copy_of_an_earlier_version_is_used_on(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    known = tmp_path / "storage" / "bucket-team-sweeps-ed05d1442cce"
    assert working_copy("s3://bucket/team/sweeps?region=eu-west-1") == known
    uri = s3.uri("sweeps/earlier")
    copy = working_copy(uri)
    copy.mkdir(parents=True)
    (copy / ".origin").write_text(uri + "\n")  # as raykd 0.1.0 marked it
    storage = open_storage(uri)
    assert storage.folder == copy and storage.sweeps() == [] and storage.uri == uri


# Objects --------------------------------------------------------------------------------------------


def test_what_is_written_is_whole_also_where_names_appear_early(s3: S3, google: str, tmp_path: Path) -> None:
    big = os.urandom((8 << 20) + 17)
    (tmp_path / "big").write_bytes(big)
    elsewhere = Remote(fs.LocalFileSystem(), str(tmp_path / "store"), "other://store")
    for remote in (Remote.connect(s3.uri("whole")), Remote.connect(google), elsewhere):
        remote.put("a/b", b"old")
        remote.put("a/b", b"new")
        remote.push(tmp_path / "big", "a/big")
        assert [(s.key, s.size) for s in remote.list("a")] == [("a/b", 3), ("a/big", len(big))]
        assert remote.get("a/b") == b"new" and remote.has("a/b") and not remote.has("a")
        assert remote.pull("a/big", tmp_path / "back") and (tmp_path / "back").read_bytes() == big
        assert not remote.pull("a/none", tmp_path / "none") and not (tmp_path / "none").exists()
        assert [(s.key, s.size) for s in remote.list("", recursive=False)] == [("a", -1)]
        assert [s.key for s in remote.list("a", recursive=False)] == ["a/b", "a/big"], "and nothing aside"
        remote.remove("a/b")
        remote.remove("a/b")
        assert remote.list("nothing/here") == []


def test_a_server_that_is_gone_is_waited_for_and_that_is_said_once(storage: RemoteStorage, s3: S3) -> None:
    said: list[str] = []
    storage_retry.tell_with(said.append)
    try:
        with Ledger.create(storage.sweep("s")) as ledger:
            report(ledger, 0)
            s3.shut()
            back = threading.Timer(4, s3.open)
            back.start()
            began = time.monotonic()
            report(ledger, 1)
            assert time.monotonic() - began > 3, "it came back after 4 s"
            report(ledger, 2)
            back.join()
    finally:
        storage_retry.tell_with(print)
    assert epochs(storage.sweep("s")) == [0, 1, 2]
    assert len(said) == 2 and "waiting for the storage" in said[0] and "is over after" in said[1], said


def test_a_server_that_stays_away_ends_the_driver_and_loses_nothing(
    storage: RemoteStorage, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.create(storage.sweep("s")) as ledger:
        report(ledger, 0)
        monkeypatch.setenv("RAYKD_STORAGE_PATIENCE", "1")
        s3.shut()
        try:
            for _ in range(2):  # the second at once: nothing more comes from this driver
                with pytest.raises(StorageLost, match=r"cannot be written: .*`raykd resume` goes on"):
                    report(ledger, 1)
        finally:
            s3.open()
    with Ledger.open(storage.sweep("s")) as ledger:
        assert [record["epoch"] for record in ledger.records] == [0]


# The ledger -----------------------------------------------------------------------------------------


def test_a_ledger_of_many_objects_is_read_and_gone_on_with_from_another_machine(
    storage: RemoteStorage, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.create(storage.sweep("s")) as ledger:
        for epoch in range(30):
            report(ledger, epoch, size=5000)
        with pytest.raises(UserError, match="is being run by process"):
            Ledger.open(storage.sweep("s"))
        assert storage.sweep("s").driver() is not None
    assert storage.sweep("s").driver() is None
    assert len(storage.remote.list("s/ledger")) > 2
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))  # another machine
    there = open_storage(storage.uri)
    assert there.folder != storage.folder and there.sweeps() == ["s"]
    with Ledger.open(there.sweep("s")) as ledger:
        assert [record["epoch"] for record in ledger.records] == list(range(30))
        report(ledger, 30)
    assert epochs(storage.sweep("s")) == list(range(31))
    with pytest.raises(UserError, match="already holds a sweep"):
        Ledger.create(there.sweep("s"))


def test_a_driver_that_was_taken_for_dead_writes_nothing_that_counts(storage: RemoteStorage, s3: S3) -> None:
    remote = storage.remote
    old = segments.Segments(remote, "z", 1, 0)
    for line in (b"a\n", b"b\n"):
        old.append(line)
    new = segments.Segments(remote, "z", 2, 2)
    old.append(b"late\n")
    assert segments.read(remote, "z") == (b"a\nb\nlate\n", 1), "nobody has gone on yet"
    new.append(b"c\n")
    old.append(b"later\n")
    assert segments.read(remote, "z") == (b"a\nb\nc\n", 2)
    remote.remove("z/ledger/000001-0000000000.jsonl")
    with pytest.raises(UserError, match="an object is gone"):
        segments.read(remote, "z")


def test_sweeps_in_google_s_bucket_are_found_from_another_machine(
    google: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage = open_storage(google)
    with Ledger.create(storage.sweep("s")) as ledger:
        report(ledger, 0)
    with (
        pytest.raises(UserError, match="being run by"),
        Ledger.open(storage.sweep("s")),
        Ledger.open(storage.sweep("s")),
    ):
        pass
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    there = open_storage(google)
    assert there.folder != storage.folder and "s" in there.sweeps()
    with Ledger.open(there.sweep("s")) as ledger:
        report(ledger, 1)
    assert epochs(storage.sweep("s")) == [0, 1]


def test_a_damaged_ledger_is_refused_and_mended_in_its_place(storage: RemoteStorage, s3: S3) -> None:
    from simulated import drive

    from raykd.runs.repair import repair
    from raykd.spec.search import build_sweep

    student = {"arch": "test_efficientnet"}
    axes = {"lr": {"log": [1e-3, 1e-2]}}
    raw = {"name": "s", "method": "supervised", "student": student, "epochs": 2, "samples": 3, "axes": axes}
    before = drive(
        storage.sweep("s"), build_sweep({**raw, "sampler": "random", "scheduler": {"name": "none"}})
    )
    (segment,) = storage.remote.list("s/ledger")
    lines = storage.remote.get(segment.key).splitlines(keepends=True)
    hit = next(i for i, line in enumerate(lines) if b'"kind":"report"' in line)
    storage.remote.put(
        segment.key, b"".join([*lines[:hit], lines[hit].replace(b"1", b"2"), *lines[hit + 1 :]])
    )
    for verb in (Ledger.read, Ledger.open):
        with pytest.raises(UserError, match=f"s3://bucket/.*line {hit + 1} is damaged"):
            verb(storage.sweep("s"))
    assert "trained again" in (repair(storage.sweep("s")) or "")
    with Ledger.open(storage.sweep("s")) as ledger:
        mended = History.of(ledger.records)
    assert list(mended.trials) == list(before.trials) and mended.repairs
    assert len([t for t in mended.trials.values() if t.status == "finished"]) == 2


# Who drives -----------------------------------------------------------------------------------------

_DRIVER = """
import sys, time
from raykd.storage.remote import Remote
from raykd.storage.remote_lease import take
lease = take(Remote.connect(sys.argv[1]), "s")
print("held", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def holding(uri: str) -> Iterator[int]:
    """Another process that drives the sweep, its id; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", _DRIVER, uri], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process sees leases as another machine would."""
    monkeypatch.setattr("raykd.storage.lease._machine", lambda: "another machine")


def test_a_live_driver_is_named_and_a_dead_one_taken_over_at_once(s3: S3) -> None:
    uri = s3.uri("lease/here")
    remote = Remote.connect(uri)
    with holding(uri) as pid, pytest.raises(UserError, match=f"is being run by process {pid} on"):
        remote_lease.take(remote, "s")
    assert remote_lease.driver(remote, "s") is None
    began = time.monotonic()
    remote_lease.take(remote, "s").close()
    assert time.monotonic() - began < 10, "this machine knows that the process is gone"
    assert remote.list("s/driver") == []


def test_of_another_machine_a_driver_counts_while_it_beats_and_is_stale_when_it_is_still(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_LOCK_STALE", "4")
    uri = s3.uri("lease/there")
    elsewhere(monkeypatch)
    remote = Remote.connect(uri)
    with holding(uri) as pid, pytest.raises(UserError, match=f"is being run by process {pid} on"):
        remote_lease.take(remote, "s")
    began = time.monotonic()
    lease = remote_lease.take(remote, "s")
    assert 1 < time.monotonic() - began < 20
    lease.close()


def test_a_driver_that_was_taken_over_ends(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYKD_LOCK_STALE", "2")
    remote = Remote.connect(s3.uri("lease/over"))
    first = remote_lease.take(remote, "s")
    first._done.set()  # as if this process had been stopped for long
    first._thread.join()
    with monkeypatch.context() as there:
        elsewhere(there)
        second = remote_lease.take(remote, "s")
    with pytest.raises(SweepFailed, match="taken over by process"):
        first.verify()
    time.sleep(1)
    second.verify()
    second.close()


def test_of_many_who_ask_at_once_one_drives(s3: S3) -> None:
    remote = Remote.connect(s3.uri("lease/many"))
    held: list[object] = []
    refused: list[str] = []

    def ask() -> None:
        try:
            held.append(remote_lease.take(remote, "s"))
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 4
    held[0].close()  # type: ignore[attr-defined]


def test_a_record_that_is_read_in_halves_is_read_again(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote.connect(s3.uri("lease/halves"))
    whole, asked = Remote.get, dict[str, int]()

    def half_at_first(self: Remote, key: str) -> bytes:
        asked[key] = asked.get(key, 0) + 1
        return whole(self, key)[: 10 if asked[key] == 1 else None]

    with contextlib.closing(remote_lease.take(remote, "s")):
        monkeypatch.setattr(Remote, "get", half_at_first)
        with pytest.raises(UserError, match=f"is being run by process {os.getpid()} "):
            remote_lease.take(remote, "s")


# Files of trials, and views -------------------------------------------------------------------------


def test_checkpoints_are_those_of_the_storage(storage: RemoteStorage, s3: S3, tmp_path: Path) -> None:
    one, other = (RemoteTransfer(storage.remote, folder) for folder in (tmp_path / "one", tmp_path / "other"))
    here = Checkpoints(tmp_path / "one" / "s" / "t", one)
    for epoch in (1, 2, 3):
        here.save(epoch, {"weights": torch.full((4,), float(epoch))})
    names = one.names(here.folder)
    assert [name[:11] for name in names] == ["epoch-00002", "epoch-00003"], "two are kept there, too"
    there = Checkpoints(tmp_path / "other" / "s" / "t", other)
    found = there.load()
    assert found is not None and found[0] == 3 and found[1]["weights"][0] == 3
    beside = tmp_path / "one" / "s" / "t" / "best.safetensors"
    beside.write_bytes(b"a student")
    one.push(beside)
    # The newest one damaged on its way to the storage: the one before it is taken.
    storage.remote.put(f"s/t/{names[1]}", b"torn")
    (there.folder / names[1]).unlink()
    found = there.load()
    assert found is not None and found[0] == 2
    # What the storage does not have is no checkpoint: a sweep of that name was removed there.
    for name in names:
        storage.remote.remove(f"s/t/{name}")
    assert there.load() is None and here.load() is None
    # Of a trial that has ended the student stays.
    here.save(4, {"weights": torch.ones(4)})
    there.discard()
    assert [entry.key for entry in storage.remote.list("s/t")] == ["s/t/best.safetensors"]
    assert there.load() is None and here.load() is None


def test_a_worker_is_let_in_by_what_the_driver_gives_it_and_looks_for_the_marker(
    storage: RemoteStorage, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, marker = StorageMarker(storage.sweep("s"), "killed"), StorageMarker(storage.sweep("s"), "now")
    killed.place()
    marker.place()
    given = marker.credentials
    assert [s.key for s in storage.remote.list("s")] == ["s/.beacon-now"]
    assert given["AWS_SECRET_ACCESS_KEY"] == KEYS["AWS_SECRET_ACCESS_KEY"]
    assert not any(value in repr(marker.config) for value in given.values() if "test" in value)
    for name in KEYS:
        monkeypatch.delenv(name)
    transfer, problem = find(marker.config, given)
    assert isinstance(transfer, RemoteTransfer) and not problem
    assert os.environ["AWS_ACCESS_KEY_ID"] == KEYS["AWS_ACCESS_KEY_ID"]
    marker.remove()
    assert "sees another storage" in find(marker.config, given)[1]


def test_views_are_mirrored_and_the_workers_files_left_to_them(storage: RemoteStorage, s3: S3) -> None:
    sweep = storage.sweep("s")
    folder = sweep.path
    for name in ("tensorboard/ab/events", "log.txt", "trials/ab/best", ".hidden", "x.tmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    sweep.mirror()
    assert [s.key for s in storage.remote.list("s")] == ["s/log.txt", "s/tensorboard/ab/events"]
    (folder / "log.txt").unlink()
    assert storage.pull(folder / "log.txt") and (folder / "log.txt").read_text() == "log.txt"
    assert not storage.pull(folder / "none")


def test_no_secret_is_in_the_storage_or_the_working_copy(storage: RemoteStorage, s3: S3) -> None:
    with Ledger.create(storage.sweep("s")) as ledger:
        report(ledger, 0)
    held = [storage.remote.get(stored.key) for stored in storage.remote.list("")]
    held += [path.read_bytes() for path in storage.folder.rglob("*") if path.is_file()]
    assert held and not any(KEYS["AWS_SECRET_ACCESS_KEY"].encode() in data for data in held)
