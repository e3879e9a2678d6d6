"""Every verb that needs no Ray, on sweeps in a bucket, each from a machine that has no copy of them."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import bad_input
import pytest
import yaml
from command import SMALL
from s3 import BUCKET, KEYS, S3, s3_server
from simulated import drive, train_all

from raykd import cli
from raykd.ablation.study import load_study
from raykd.spec.search import build_sweep
from raykd.storage.open_storage import open_storage

STUDY = bad_input.changed(bad_input.STUDY, {"name": "parts", "base/epochs": 2, "replicates": 2})
Verb = Callable[..., str]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A sweep of two real trials, and a study whose scores are made up."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        for name, value in {**KEYS, "RAYKD_CACHE": str(tmp_path_factory.mktemp("driver"))}.items():
            patch.setenv(name, value)
        storage = open_storage(server.uri("team/sweeps"))
        small = {**yaml.safe_load(SMALL), "references": [], "samples": 2, "epochs": 1}
        assert train_all(storage.sweep("small"), build_sweep(small)).done
        study = tmp_path_factory.mktemp("study") / "parts.yaml"
        study.write_text(STUDY)
        drive(storage.sweep("parts"), load_study(str(study), [], storage))
        yield server


@pytest.fixture
def verb(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verb:
    """A verb on this storage to its good end, from a machine that has never seen it: what it says.

    Or from one that has, with its `cache`.
    """
    machines = itertools.count()

    def call(*arguments: str | Path, cache: Path | None = None) -> str:
        monkeypatch.setenv("RAYKD_CACHE", str(cache or tmp_path / f"machine-{next(machines)}"))
        line = [*map(str, arguments), "--storage", s3.uri("team/sweeps")]
        with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
            try:
                cli.main(line)
            except SystemExit as left:
                assert not left.code, said.getvalue()
        return said.getvalue()

    return call


def test_what_is_said_of_a_sweep(verb: Verb, s3: S3) -> None:
    status = json.loads(verb("status", "small", "--json"))
    assert status["state"] == "done" and status["trials"]["finished"] == 2
    assert "small: done" in verb("status", "small")
    best = json.loads(verb("best", "small", "--json"))["trial"]
    said = verb("best", "small")
    assert f"best trial {best}" in said and "s3://bucket/team/sweeps/small/tensorboard" in said
    assert "too few to say" in verb("importance", "small", "--resamples", "20")
    assert "moco" in verb("list", "teachers")
    rows = json.loads(verb("list", "sweeps", "--json"))
    assert [(row["name"], row["kind"], row["state"]) for row in rows] == [
        ("parts", "study", "done"), ("small", "search", "done"),
    ]  # fmt: skip
    assert all(row["bytes"] > 1000 for row in rows)
    assert "every trial of this sweep has ended" in verb("resume", "small")
    written = s3.keys("team/sweeps/small/")
    for view in ("trials.parquet", "curves.parquet", "optuna.journal"):
        assert f"team/sweeps/small/{view}" in written, "`resume` makes lost views again"
    assert len([key for key in written if "events.out" in key]) == 3, "a run a trial, and the sweep's"


def test_what_is_written_of_a_sweep(verb: Verb, s3: S3, tmp_path: Path) -> None:
    verb("report", "small")
    assert "team/sweeps/small/report.html" in s3.keys("team/sweeps/small/")
    verb("report", "small", "--out", tmp_path / "page.html")
    assert "small" in (tmp_path / "page.html").read_text()
    verb("export", "small", "--out", tmp_path / "student")
    assert (tmp_path / "student" / "student" / "model.safetensors").is_file()
    verb("report", "parts", "--out", tmp_path / "study.html")
    assert "adapter=mlp" in (tmp_path / "study.html").read_text()
    conclusions = json.loads(verb("ablate", "parts", "--json"))
    assert len(conclusions["arms"]) == 2
    assert "parts" in verb("ablate", "parts", "--plan")


def test_what_a_machine_kept_of_a_sweep_that_went_on_elsewhere_replaces_nothing(
    verb: Verb, s3: S3, tmp_path: Path
) -> None:
    newer = {"log.txt": b"what the last driver said", "report.html": b"the page of all trials"}
    for study in ("small", "parts"):
        verb("resume", study)
        (kept,) = (tmp_path / f"machine-{study == 'parts':d}").glob(f"storage/*/{study}")
        for name, content in newer.items():
            (kept / name).write_bytes(b"of when the sweep began")
            s3.client.put_object(Bucket=BUCKET, Key=f"team/sweeps/{study}/{name}", Body=content)
        if study == "parts":
            s3.client.delete_object(Bucket=BUCKET, Key="team/sweeps/parts/ablation.csv")
        verb("resume", study, cache=kept.parents[2])
        for name, content in newer.items():
            stored = s3.client.get_object(Bucket=BUCKET, Key=f"team/sweeps/{study}/{name}")
            assert stored["Body"].read() == content, name
    assert "team/sweeps/parts/ablation.csv" in s3.keys("team/sweeps/parts/")


def test_a_damaged_ledger_is_repaired_there(verb: Verb, s3: S3) -> None:
    """Last: it damages the sweep."""
    key = s3.keys("team/sweeps/small/ledger/")[0]
    content = s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.client.put_object(Bucket=BUCKET, Key=key, Body=content.replace(b"retro", b"metro", 1))
    with pytest.raises(AssertionError, match="raykd resume small --repair"):
        verb("status", "small")
    said = verb("resume", "small", "--repair")
    assert "ledger.damaged-" in said and "every trial of this sweep has ended" in said
    assert json.loads(verb("status", "small", "--json"))["state"] == "done"
    assert any("/ledger.damaged-" in kept for kept in s3.keys("team/sweeps/small/"))
