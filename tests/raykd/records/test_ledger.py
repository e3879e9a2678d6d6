"""The ledger against what really happens to files: torn tails, kill -9, a full disk, two drivers, readers."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykd.records.ledger import LEDGER, Ledger, decode, encode
from raykd.storage.lease import Driver
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError


def fill(folder: Path, n: int) -> list[dict]:
    with Ledger.create(folder) as ledger:
        return [ledger.append("report", trial="ab", epoch=i, metrics={"score": i / 7}) for i in range(n)]


def child(code: str, *args: object) -> subprocess.Popen:
    head = "import sys; from pathlib import Path; from raykd.records.ledger import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_names_of_files_that_are_no_utf_8_can_be_written_again():
    name = os.fsdecode(b"caf\xe9.png")
    found = decode(encode({"reason": [f"{name} \U0001f600", 1.0], name: None}))
    assert found == {"reason": ["caf\ufffd.png \U0001f600", 1.0], "caf\ufffd.png": None}
    str(found).encode()


@given(json_values)
def test_every_json_value_round_trips_on_one_line(value):
    text = encode(value)
    assert b"\n" not in text
    assert same(decode(text), value)


@pytest.mark.parametrize("value", [{"$float": "nan"}, {"$float": 1, "$$": 2}, {"$": {"$float": math.inf}}])
def test_keys_that_look_like_ours_survive(value):
    assert same(decode(encode(value)), value)


def test_numpy_paths_and_tuples_become_plain():
    value = {"a": np.float32(0.5), "b": np.int64(3), "c": Path("/x"), "d": (1, 2), "e": np.float32("nan")}
    found = decode(encode(value))
    assert math.isnan(found.pop("e"))
    assert found == {"a": 0.5, "b": 3, "c": "/x", "d": [1, 2]}
    with pytest.raises(TypeError, match="plain JSON"):
        encode({"a": object()})


def test_what_is_appended_is_read_and_survives_reopening(tmp_path):
    before = time.time()
    written = fill(tmp_path / "s", 5)
    assert before <= written[0]["time"] <= time.time()
    assert Ledger.read(tmp_path / "s") == written
    with Ledger.open(tmp_path / "s") as ledger:
        assert (ledger.records, ledger.cut) == (written, None)
        more = ledger.append("extend", samples=3)
    assert Ledger.read(tmp_path / "s") == [*written, more]


def test_kinds_and_fields_are_checked(tmp_path):
    with Ledger.create(tmp_path / "s") as ledger:
        with pytest.raises(TypeError, match="no such kind"):
            ledger.append("reprot", trial="a")
        with pytest.raises(TypeError, match="has the fields"):
            ledger.append("extend", sample=3)
    assert Ledger.read(tmp_path / "s") == []


def test_create_refuses_a_sweep_and_forgives_one_that_recorded_nothing(tmp_path):
    fill(tmp_path / "s", 1)
    with pytest.raises(UserError, match="already holds a sweep"):
        Ledger.create(tmp_path / "s")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / LEDGER).write_bytes(b"0000")
    with Ledger.create(tmp_path / "t") as ledger:
        ledger.append("extend", samples=1)
    assert len(Ledger.read(tmp_path / "t")) == 1


def test_open_and_read_name_the_folder_that_holds_nothing(tmp_path):
    for verb in (Ledger.open, Ledger.read):
        with pytest.raises(UserError, match="no sweep in"):
            verb(tmp_path)


def test_cut_at_every_byte_a_reader_sees_a_prefix(tmp_path):
    written = fill(tmp_path / "s", 4)
    path = tmp_path / "s" / LEDGER
    whole = path.read_bytes()
    for keep in range(len(whole) + 1):
        path.write_bytes(whole[:keep])
        assert Ledger.read(tmp_path / "s") == written[: whole[:keep].count(b"\n")]


@settings(max_examples=60)
@given(share=st.floats(0, 1))
def test_any_truncation_gives_a_prefix(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut") / "s"
    written = fill(folder, 4)
    path = folder / LEDGER
    whole = path.read_bytes()
    keep = round(share * len(whole))
    path.write_bytes(whole[:keep])
    n = whole[:keep].count(b"\n")
    assert Ledger.read(folder) == written[:n]
    with Ledger.open(folder) as ledger:
        assert ledger.records == written[:n]
        torn = whole[:keep].rpartition(b"\n")[2]
        asides = list(folder.glob("ledger.cut-*"))
        assert [p.read_bytes() for p in asides] == ([torn] if torn else [])
        assert (ledger.cut is None) == (not torn)
        if torn:
            assert f"the last {len(torn)} bytes, behind record {n}," in ledger.cut
            assert asides[0].name in ledger.cut
        after = ledger.append("extend", samples=1)
    assert Ledger.read(folder) == [*written[:n], after]


@settings(max_examples=60)
@given(share=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_read_as_a_record(tmp_path_factory, share, bit):
    folder = tmp_path_factory.mktemp("flip") / "s"
    written = fill(folder, 4)
    path = folder / LEDGER
    raw = bytearray(path.read_bytes())
    where = int(share * (len(raw) - 1))
    raw[where] ^= 1 << bit
    path.write_bytes(raw)
    line = path.read_bytes()[:where].count(b"\n")
    try:
        records = Ledger.read(folder)
    except UserError as error:  # a good line follows the damaged one
        assert f"line {line + 1} is damaged" in str(error)
    else:
        assert records == written[: len(records)]
        assert len(records) in (line, line - 1, 3)


def test_damage_in_the_middle_is_refused_by_both_sides(tmp_path):
    fill(tmp_path / "s", 4)
    path = tmp_path / "s" / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([lines[0], lines[1].replace(b"report", b"repert"), *lines[2:]])
    path.write_bytes(damaged)
    for verb in (Ledger.open, Ledger.read):
        with pytest.raises(UserError, match="line 2 is damaged and line 3 behind it is not"):
            verb(tmp_path / "s")
    assert path.read_bytes() == damaged
    assert open_sweep(tmp_path / "s").driver() is None  # a refused `open` lets the lock go


def test_a_tail_of_zeros_is_cut(tmp_path):
    written = fill(tmp_path / "s", 2)
    with (tmp_path / "s" / LEDGER).open("ab") as file:
        file.write(b"\0" * 100 + b"\n" + b"\0" * 7)
    with Ledger.open(tmp_path / "s") as ledger:
        assert ledger.records == written and "108 bytes" in ledger.cut


def test_two_cuts_in_one_second_keep_both(tmp_path):
    fill(tmp_path / "s", 1)
    for torn in (b"a", b"b"):
        with (tmp_path / "s" / LEDGER).open("ab") as file:
            file.write(torn)
        Ledger.open(tmp_path / "s").close()
    assert sorted(p.read_bytes() for p in (tmp_path / "s").glob("ledger.cut-*")) == [b"a", b"b"]


def test_kill_9_during_writes_loses_nothing_that_was_acknowledged(tmp_path):
    code = (
        "ledger = Ledger.create(Path(sys.argv[1]))\n"
        "for i in range(10**6):\n"
        "    ledger.append('report', trial='ab', epoch=i, metrics={'text': 'x' * (i % 977)})\n"
        "    print(i, flush=True)\n"
    )
    for round_ in range(3):
        folder = tmp_path / f"s{round_}"
        process = child(code, folder)
        acknowledged = [process.stdout.readline() for _ in range(20 + 37 * round_)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().splitlines(keepends=True)
        process.wait()
        last = [int(line) for line in acknowledged if line.endswith("\n")][-1]
        with Ledger.open(folder) as ledger:  # the kernel has let the dead driver's lock go
            epochs = [record["epoch"] for record in ledger.records]
            assert epochs == list(range(len(epochs)))
            assert last + 1 <= len(epochs) <= last + 2


def test_a_full_disk_is_said_and_leaves_whole_records(tmp_path):
    folder = tmp_path / "s"
    written = fill(folder, 3)
    limit = (folder / LEDGER).stat().st_size + 40  # room for a part of the next record
    code = (
        "import resource, signal\n"
        "from trainables.core.errors import StorageLost\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "ledger = Ledger.open(Path(sys.argv[1]))\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        ledger.append('extend', samples=1)\n"
        "    except StorageLost as error:\n"
        "        print(error)\n"
    )
    out, err = child(code, folder).communicate()
    assert not err
    assert out.count("cannot be written: File too large; make room, then `raykd resume`") == 2
    with Ledger.open(folder) as ledger:
        assert ledger.records == written and ledger.cut is None
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit


def test_one_driver_and_the_second_is_told_who(tmp_path):
    folder = tmp_path / "s"
    assert open_sweep(folder).driver() is None
    code = "ledger = Ledger.create(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    process = child(code, folder)
    process.stdout.readline()
    try:
        assert open_sweep(folder).driver() == Driver(os.uname().nodename, process.pid)
        with pytest.raises(UserError, match=f"run by process {process.pid} on {os.uname().nodename}"):
            Ledger.open(folder)
        with pytest.raises(UserError, match="is being run by"):
            Ledger.create(folder)
        assert Ledger.read(folder) == []  # readers need no lock
    finally:
        process.kill()
        process.communicate()
    assert open_sweep(folder).driver() is None
    Ledger.open(folder).close()


def test_close_twice_and_append_after(tmp_path):
    ledger = Ledger.create(tmp_path / "s")
    ledger.close()
    ledger.close()
    with pytest.raises(UserError, match="closed"):
        ledger.append("extend", samples=1)


def test_threads_append_whole_lines_in_the_order_of_their_times(tmp_path):
    with Ledger.create(tmp_path / "s") as ledger:

        def write(who: int) -> None:
            for epoch in range(25):
                ledger.append("report", trial=f"{who:08x}", epoch=epoch, metrics={})

        threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = Ledger.read(tmp_path / "s")
    for who in range(8):
        assert [r["epoch"] for r in records if r["trial"] == f"{who:08x}"] == list(range(25))
    assert [r["time"] for r in records] == sorted(r["time"] for r in records)


def test_reading_while_another_process_writes(tmp_path):
    code = (
        "ledger = Ledger.create(Path(sys.argv[1]))\n"
        "print('made', flush=True)\n"
        "for i in range(400):\n"
        "    ledger.append('report', trial='a', epoch=i, metrics={'text': 'x' * (i * 7 % 5000)})\n"
    )
    process = child(code, tmp_path / "s")
    process.stdout.readline()
    seen = 0
    while process.poll() is None:
        epochs = [r["epoch"] for r in Ledger.read(tmp_path / "s")]
        assert epochs == list(range(len(epochs))) and len(epochs) >= seen
        seen = len(epochs)
    assert process.communicate()[1] == "" and len(Ledger.read(tmp_path / "s")) == 400


def test_nothing_heavy_is_imported():
    out, err = child(
        "import raykd.records.history, raykd.records.tables\n"
        "loaded = {m.partition('.')[0] for m in sys.modules}\n"
        "print({'torch', 'ray', 'optuna', 'tensorboard', 'pandas'} & loaded)"
    ).communicate()
    assert (out.strip(), err) == ("set()", "")
