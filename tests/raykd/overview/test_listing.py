"""`raykd list sweeps`: how each sweep of a storage stands, and what is left of those that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bad_input import STUDY
from command import raykd
from histories import a_study, put, search
from ledger_records import end, head, report, start, suggest

from raykd.ablation.study import read_study
from raykd.overview.listing import listed, sweeps
from raykd.records.ledger import LEDGER, Ledger
from raykd.spec.document import parse_yaml
from raykd.storage.open_storage import open_storage, open_sweep


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A search, a study, and five ways in which a folder may be no whole sweep."""
    search(tmp_path, "ffsxr").rename(tmp_path / "wide")
    study = read_study({**parse_yaml(STUDY, ""), "name": "parts", "replicates": 2}, [], tmp_path)
    a_study(tmp_path, study, {label: [80.0, 81.0] for label in study.arms})
    search(tmp_path, "ff").rename(tmp_path / "damaged")
    data = (tmp_path / "damaged" / LEDGER).read_bytes()
    (tmp_path / "damaged" / LEDGER).write_bytes(data[:40] + b"\0" + data[41:])
    put(tmp_path / "empty", [])
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "driver.lock").touch()
    (tmp_path / "lost" / "trials").mkdir(parents=True)
    put(tmp_path / "odd", [head(), {"kind": "report", "time": 1.0, "trial": "a", "epoch": 1, "metrics": {}}])
    (tmp_path / "photos").mkdir()
    (tmp_path / ".teachers" / "trials").mkdir(parents=True)
    return tmp_path


def test_each_sweep_with_how_it_stands(storage: Path) -> None:
    found = {row["name"]: row for row in sweeps(open_storage(storage))}
    assert list(found) == ["damaged", "empty", "locked", "lost", "odd", "parts", "wide"]
    wide = found["wide"]
    assert (wide["kind"], wide["state"]) == ("search", "interrupted")
    assert (wide["done"], wide["failed"], wide["trials"]) == (3, 1, 5)
    records = Ledger.read(storage / "wide")
    scores = [each["metrics"]["score"] for each in records if each["kind"] == "report"]
    assert (wide["score"], wide["score_se"]) == (max(scores), 0.25)
    assert wide["changed"] == records[-1]["time"]
    assert wide["bytes"] == sum(p.stat().st_size for p in (storage / "wide").rglob("*") if p.is_file())
    parts = found["parts"]
    assert (parts["kind"], parts["state"], parts["done"]) == ("study", "done", parts["trials"])
    assert parts["score"] == 99.0 and parts["score_se"] is None
    states = {name: found[name]["state"] for name in ("damaged", "empty", "locked", "lost", "odd")}
    assert states == {
        "damaged": "damaged", "empty": "half-written", "locked": "half-written", "lost": "half-written",
        "odd": "damaged",
    }  # fmt: skip
    assert "damaged and line" in found["damaged"]["problem"]
    assert "never suggested" in found["odd"]["problem"]


def test_a_sweep_that_is_driven_is_running(tmp_path: Path) -> None:
    put(tmp_path / "s", [head(), suggest("a" * 8), start("a" * 8), report("a" * 8, 1, 50.0)])
    assert listed(open_sweep(tmp_path / "s"))["state"] == "interrupted"
    with Ledger.open(tmp_path / "s"):
        assert listed(open_sweep(tmp_path / "s"))["state"] == "running"


def test_on_the_terminal_and_as_json(storage: Path, tmp_path: Path) -> None:
    done = raykd("list", "sweeps", "--storage", storage)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    header = " ".join(lines[:2]).split()  # a narrow terminal breaks `last record`
    assert [word for word in header if word in ("sweep", "kind", "state", "trials", "best", "size")] == [
        "sweep", "kind", "state", "trials", "best", "size",
    ]  # fmt: skip
    wide = next(line for line in lines if line.startswith("wide"))
    assert "3 of 5, 1 failed" in wide and "± 0.25" in wide
    assert "lost: its driver died before the first record" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    rows = json.loads(raykd("list", "sweeps", "--storage", storage, "--json").stdout)
    assert [row["name"] for row in rows] == [row["name"] for row in sweeps(open_storage(storage))]
    nothing = raykd("list", "sweeps", "--storage", tmp_path / "none")
    assert (nothing.returncode, nothing.stdout) == (0, f"{tmp_path / 'none'} holds no sweeps\n")


def test_a_trial_that_ends_changes_its_row(tmp_path: Path) -> None:
    records = [head(1), suggest("a" * 8), start("a" * 8), report("a" * 8, 1, 50.0), end("a" * 8)]
    put(tmp_path / "s", records)
    row = listed(open_sweep(tmp_path / "s"))
    assert (row["state"], row["done"], row["trials"], row["score"]) == ("done", 1, 1, 50.0)
