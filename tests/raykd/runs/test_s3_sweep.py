"""A whole sweep on S3, as users type it: the server goes away, the driver dies, another machine goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import SMALL, raykd, start
from s3 import KEYS, S3, s3_server

from raykd.records.history import ENDED, History
from raykd.records.ledger import Ledger
from raykd.storage.open_storage import open_storage

pytestmark = [pytest.mark.ray(second=True), pytest.mark.slow]

SWEEP = (
    SMALL.replace("samples: 4", "samples: 5").replace("epochs: 4", "epochs: 6") + "references: [teacher]\n"
)


def test_a_sweep_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as s3:
        _whole_way(s3, 10, tmp_path, monkeypatch)


def test_a_sweep_on_s3_whose_server_is_gone_for_more_than_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as s3:
        _whole_way(s3, 75, tmp_path, monkeypatch)


def _whole_way(s3: S3, gone: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "RAYKD_STORAGE_PATIENCE": "200"}.items():
        monkeypatch.setenv(name, value)
    spec, out, uri = tmp_path / "small.yaml", tmp_path / "out.txt", s3.uri("team/sweeps")
    spec.write_text(SWEEP)

    def machine(name: str) -> None:
        monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / name))

    def until(condition: Callable[[], object], said: str) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < deadline and driver.poll() is None, f"{said}: {out.read_text()}"
            time.sleep(0.2)

    def reports() -> int:
        return sum(record["kind"] == "report" for record in Ledger.read(sweep))

    machine("first")
    driver = start("run", spec, "--storage", uri, output=out)
    sweep = open_storage(uri).sweep("small")
    until(lambda: s3.keys("team/sweeps/small/ledger/"), "it has not begun")
    second = raykd("resume", "small", "--storage", uri)
    assert second.returncode == 2 and f"run by process {driver.pid} on" in second.stderr, second.stderr
    until(lambda: any("/trials/" in key for key in s3.keys("team/sweeps/small/")), "no trial has begun")
    before = reports()
    s3.shut()
    time.sleep(gone)
    s3.open()
    until(
        lambda: reports() > before and "wait for the storage is over" in out.read_text(), "it does not go on"
    )
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert "waiting for the storage" in out.read_text()

    machine("second")
    status = json.loads(raykd("status", "small", "--storage", uri, "--json").stdout)
    assert status["state"] == "interrupted" and status["driver"] is None
    known = History.of(Ledger.read(sweep))
    resumed = raykd("resume", "small", "--storage", uri, timeout=400)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    history = History.of(Ledger.read(sweep))
    assert history.done and history.counts()["failed"] == 0 and len(history.trials) == 5
    for name, trial in history.trials.items():
        assert trial.status in ENDED and list(trial.reports) == list(range(1, trial.epoch + 1))
        if name in known.trials:
            then = known.trials[name].reports
            assert {e: trial.reports[e] for e in then} == then, "an epoch that was recorded stays"
    begun = [t for t in known.trials.values() if t.reports and t.status not in ENDED]
    for trial in begun:
        went_on = f"{trial.trial} started from epoch {trial.epoch + 1}"
        assert went_on in resumed.stdout, f"no checkpoint came from the storage: {resumed.stdout}"

    machine("third")
    exported = raykd("export", "small", "--storage", uri, "--out", tmp_path / "student")
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert (tmp_path / "student" / "student" / "model.safetensors").is_file()
    assert uri in (tmp_path / "student" / "command.txt").read_text()
    kept = s3.keys("team/sweeps/small/")
    for view in ("trials.parquet", "curves.parquet", "log.txt", "optuna.journal"):
        assert f"team/sweeps/small/{view}" in kept
    assert len([key for key in kept if "events.out" in key]) == 6, "a run a trial, and the sweep's"
    for key in s3.keys(""):
        content = s3.client.get_object(Bucket="bucket", Key=key)["Body"].read()
        assert KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in content, key
