"""Experiment trackers as views of the ledger, read back from the stores of their own packages."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_records import end, head, record, report, start, suggest
from tracker_stores import Runs, mlflow_runs, wandb_runs

from raykd.records.history import History
from raykd.records.tracking.feed import TrackerFeed
from raykd.records.tracking.run import key_of, trial_run
from raykd.records.tracking.written import Written

# Importing mlflow takes seconds a process; `make test` has it in tests/raykd/runs/test_resume.py.
TRACKERS = (pytest.param("mlflow", marks=pytest.mark.slow), "wandb")


@pytest.fixture(autouse=True)
def _nobody_s_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As of a user who has never logged in anywhere."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def records() -> list[dict]:
    """Five trials: finished, stopped, failed, failed and tried again, in flight; and a reference."""
    found = [head()]
    found.append(record("reference", name="teacher", label="teacher", metrics={"score": 77.5}, trial=None))
    for name, status in (("a", "finished"), ("b", "stopped"), ("c", "failed"), ("d", "failed")):
        found += [suggest(name * 8, lr=0.1, size=[1, 2], none=None), start(name * 8)]
        for epoch in range(1, 4):
            found.append(report(name * 8, epoch, 50.0 + epoch % 3, **{"loss/total": 1 / epoch}))
        found.append(end(name * 8, status, "out of memory" if status == "failed" else None))
    found += [record("retry", trials=["d" * 8]), start("d" * 8, 2), report("d" * 8, 4, float("nan"))]
    found += [suggest("e" * 8, lr=0.2), start("e" * 8), report("e" * 8, 1, 40.0), end("d" * 8)]
    return [*found, report("e" * 8, 2, 41.0)]


RECORDS = records()
LATER = [report("e" * 8, 3, 42.0), end("e" * 8)]
KEY = key_of(History.of(RECORDS))


class Told(list[str]):
    """Lines for the user."""


class Driver:
    """What a driver does with one tracker: rebuild, then records, then the end."""

    def __init__(self, tracker: str, folder: Path, past: list[dict], **options: Any) -> None:
        self.told = Told()
        self.history = History.of(past)
        self.feed = TrackerFeed(tracker, options, folder, self.told.append)
        self.feed.rebuild(self.history)

    def play(self, found: list[dict]) -> Driver:
        for each in found:
            self.history.add(each)
            self.feed(each, self.history)
        return self

    def close(self, within: float = 60) -> Told:
        self.feed.close(within)
        return self.told


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of mlflow, which takes seconds to make."""
    pytest.importorskip("mlflow", reason="needs `pip install raykd[mlflow]`")
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(params=TRACKERS)
def tracker(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(name, reason=f"needs `pip install raykd[{name}]`")
    return name


@pytest.fixture
def place(tracker: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Makes the folder of a sweep."""

    def make(name: str) -> Path:
        folder = tmp_path / name / "s"
        (folder / "tracking").mkdir(parents=True)
        if tracker == "mlflow":
            shutil.copy(request.getfixturevalue("database"), folder / "tracking")
        return folder

    return make


def stored(tracker: str, folder: Path) -> Runs:
    if tracker == "mlflow":
        return mlflow_runs(f"sqlite:///{folder}/tracking/mlflow.db", "s")
    return wandb_runs(folder / "tracking" / "wandb")


def killed(tracker: str, folder: Path, past: list[dict], present: list[dict], after: float) -> None:
    """A driver that is killed with its writer so many seconds after the writer has begun."""
    pid = os.fork()
    if pid == 0:
        driver = Driver(tracker, folder, past).play(present)
        until = time.monotonic() + 60
        while driver.feed._writer is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(after)
        if driver.feed._writer is not None:
            os.killpg(driver.feed._writer._process.pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_killed_and_resumed_sweep_leaves_the_runs_of_one_that_was_not(
    tracker: str, place: Callable[[str], Path]
) -> None:
    """One run a trial, complete, with its true status. The kill comes while runs are written."""
    whole, resumed = place("whole"), place("resumed")
    undisturbed = Driver(tracker, whole, RECORDS[:1]).play([*RECORDS[1:], *LATER])
    killed(tracker, resumed, RECORDS[:1], RECORDS[1:16], after=0.05)
    assert undisturbed.close() == []
    wanted = stored(tracker, whole)
    assert set(wanted) == {f"{name}-{KEY}" for name in (*(c * 8 for c in "abcde"), "teacher")}
    _is_what_the_ledger_says(tracker, wanted)

    assert Driver(tracker, resumed, RECORDS[:16]).play(RECORDS[16:]).close() == []
    found = stored(tracker, resumed)
    in_flight = found.pop(f"eeeeeeee-{KEY}")
    said = in_flight["tags"]["raykd.status"] if tracker == "mlflow" else in_flight["summary"]["status"]
    assert said == "interrupted" and "41" in str(in_flight)
    assert found == {name: run for name, run in wanted.items() if not name.startswith("eeeeeeee")}


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.3, 1.0])
def test_whenever_it_is_killed(tracker: str, place: Callable[[str], Path], after: float) -> None:
    """Twice, and at the end all is written again by a driver that does not know what was written."""
    whole, resumed = place("whole"), place("resumed")
    undisturbed = Driver(tracker, whole, RECORDS[:1]).play([*RECORDS[1:], *LATER])
    killed(tracker, resumed, RECORDS[:1], RECORDS[1:16], after)
    killed(tracker, resumed, RECORDS[:16], RECORDS[16:], after)
    assert undisturbed.close() == Driver(tracker, resumed, RECORDS).play(LATER).close() == []
    assert stored(tracker, resumed) == stored(tracker, whole)
    shutil.rmtree(
        resumed / "tracking" / "wandb", ignore_errors=True
    )  # as after `wandb sync` and `wandb clean`
    (resumed / "tracking" / f"{tracker}.written").unlink()
    Driver(tracker, resumed, [*RECORDS, *LATER]).close()
    assert stored(tracker, resumed) == stored(tracker, whole)


def _is_what_the_ledger_says(tracker: str, runs: Runs) -> None:
    """Settings, epochs with the times of the ledger, scores, ends, references."""
    trial, stopped, failed, again = (runs[f"{c * 8}-{KEY}"] for c in "abcd")
    teacher = runs[f"teacher-{KEY}"]
    times = History.of(RECORDS).trials["a" * 8].times
    if tracker == "mlflow":
        assert trial["params"] == {"method": "retro", "lr": "0.1", "size": "[1, 2]", "none": "null"}
        assert [(s, v) for s, _, v in trial["metrics"]["score"]] == [(1, 51.0), (2, 52.0), (3, 52.0)]
        assert [(s, v) for s, _, v in trial["metrics"]["last"]] == [(1, 51.0), (2, 52.0), (3, 50.0)]
        assert [t for _, t, _ in trial["metrics"]["epoch"]] == [1000 * times[e] for e in (1, 2, 3)]
        assert [run["status"] for run in (trial, failed, again)] == ["FINISHED", "FAILED", "FINISHED"]
        assert failed["tags"]["raykd.reason"] == "out of memory" and "raykd.reason" not in again["tags"]
        assert len(again["metrics"]["epoch"]) == 4
        assert stopped["tags"]["raykd.status"] == "stopped"
        assert teacher["tags"]["raykd.kind"] == "reference" and teacher["metrics"]["score"][0][2] == 77.5
        return
    assert {**trial["config"], "raykd": None} == {
        "method": "retro", "lr": 0.1, "size": [1, 2], "none": None, "raykd": None,
    }  # fmt: skip
    scores = [(step, row["score"], row["last"]) for step, row in trial["epochs"]]
    assert scores == [(1, 51, 51), (2, 52, 52), (3, 52, 50)]
    assert [row["_timestamp"] for _, row in trial["epochs"]] == [times[e] for e in (1, 2, 3)]
    assert [run["exit"] for run in (trial, failed, again)] == [0, 1, 0]
    assert failed["summary"]["reason"] == "out of memory" and "reason" not in again["summary"]
    assert len(again["epochs"]) == 4
    assert stopped["summary"]["status"] == "stopped"
    assert (teacher["type"], teacher["summary"]["score"]) == ("reference", 77.5)
    assert {run["group"] for run in runs.values()} == {"s"}


def test_wandb_syncs_one_file_a_trial(tmp_path: Path) -> None:
    """`wandb sync --dry-run`, which needs no network, finds each run once; one that goes on once more."""
    pytest.importorskip("wandb", reason="needs `pip install raykd[wandb]`")
    from click.testing import CliRunner
    from wandb.cli.cli import cli

    folder = tmp_path / "s"
    store = folder / "tracking" / "wandb"

    def to_sync() -> list[str]:
        said = CliRunner().invoke(cli, ["sync", "--dry-run", str(store)]).output
        return sorted(line.split("-")[-2] for line in said.splitlines() if "offline-run" in line)

    Driver("wandb", folder, RECORDS[:1]).play(RECORDS[1:]).close()
    every = [*(c * 8 for c in "abcde"), "teacher"]
    assert to_sync() == every
    for path in store.glob("*/*.wandb"):  # what a sync leaves behind
        path.with_name(f"{path.name}.synced").touch()
    assert to_sync() == []
    Driver("wandb", folder, RECORDS).play(LATER).close()
    assert to_sync() == ["e" * 8]


@pytest.mark.slow
def test_a_run_that_mlflow_holds_twice_or_wrongly_is_mended(database: Path, tmp_path: Path) -> None:
    """Two runs of one trial, as after a lost answer; and metrics that no trial has reported."""
    from mlflow import MlflowClient

    folder = tmp_path / "s"
    (folder / "tracking").mkdir(parents=True)
    shutil.copy(database, folder / "tracking")
    client = MlflowClient(f"sqlite:///{folder}/tracking/mlflow.db")
    history = History.of([*RECORDS, *LATER])
    where = client.create_experiment("s")
    for name, value in (("a", 51.0), ("a", 51.0), ("b", 99.0)):
        made = client.create_run(where, tags={"raykd.run": f"{name * 8}-{KEY}", "raykd.sweep_key": KEY})
        client.log_metric(made.info.run_id, "score", value, int(1000 * history.trials[name * 8].times[1]), 1)
    assert Driver("mlflow", folder, [*RECORDS, *LATER]).close() == []
    runs = stored("mlflow", folder)
    assert len(runs) == 6
    for name in "ab":
        assert [v for _, _, v in runs[f"{name * 8}-{KEY}"]["metrics"]["score"]] == [51.0, 52.0, 52.0]


@pytest.mark.slow
def test_mlflow_s_folder_of_text_files(tmp_path: Path) -> None:
    """What older servers have, with a line that was written by half."""
    pytest.importorskip("mlflow", reason="needs `pip install raykd[mlflow]`")
    folder, uri = tmp_path / "s", (tmp_path / "mlruns").as_uri()
    for _ in range(2):
        assert Driver("mlflow", folder, [*RECORDS, *LATER], uri=uri, experiment="other").close() == []
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        try:
            runs = mlflow_runs(uri, "other")
        finally:
            del os.environ["MLFLOW_ALLOW_FILE_STORE"]
        assert len(runs) == 6
        assert all(len(runs[name]["metrics"]["epoch"]) == 3 for name in runs if name[0] in "abce")
        for path in (tmp_path / "mlruns").glob("*/*/metrics/loss/total"):
            path.write_text(path.read_text()[:-9])
        (folder / "tracking" / "mlflow.written").unlink()


# --- a tracker that is down ---------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a package called mlflow before the real one."""
    before = threading.active_count()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    (tmp_path / "packages").mkdir()
    yield (tmp_path / "packages" / "mlflow.py").write_text
    assert threading.active_count() <= before


def test_a_package_that_raises_is_said_once(package: Callable[[str], None], tmp_path: Path) -> None:
    package("print('noise')\nraise OSError(28, 'No space left on device')\n")
    driver = Driver("mlflow", tmp_path / "s", RECORDS[:1])
    began = time.monotonic()
    driver.play([*RECORDS[1:], *LATER])
    assert time.monotonic() - began < 1  # nobody waits
    first, last = driver.close()
    assert "No space left on device" in first and "the sweep goes on" in first
    assert last == "mlflow lacks 6 runs of this sweep; `raykd resume` adds what is missing"


def test_a_package_that_hangs_or_dies_ends_in_bounded_time(
    package: Callable[[str], None], tmp_path: Path
) -> None:
    package("import time; time.sleep(600)\n")
    driver = Driver("mlflow", tmp_path / "s", RECORDS)
    began = time.monotonic()
    driver.close(within=1)
    assert time.monotonic() - began < 5
    assert "lacks 6 runs" in driver.told[-1]
    package("import os; os._exit(7)\n")
    driver = Driver("mlflow", tmp_path / "s", RECORDS)
    driver.close()
    assert "exit code 7" in driver.told[0]


@pytest.mark.slow
def test_one_that_is_back_is_caught_up(database: Path, tmp_path: Path) -> None:
    """While the sweep goes on: a store whose disk is not there yet."""
    store = tmp_path / "disk" / "mlflow.db"
    store.parent.touch()  # a file, where a folder should be
    driver = Driver("mlflow", tmp_path / "s", RECORDS[:1], uri=f"sqlite:///{store}")
    driver.play(RECORDS[1:9])
    until = time.monotonic() + 60
    while not driver.told and time.monotonic() < until:
        time.sleep(0.01)
    store.parent.unlink()
    store.parent.mkdir()
    shutil.copy(database, store)
    driver.play([*RECORDS[9:], *LATER])
    driver.close()
    [said] = driver.told
    assert "cannot be written" in said
    assert len(mlflow_runs(f"sqlite:///{store}", "s")) == 6


def test_wandb_that_is_switched_off_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs `pip install raykd[wandb]`")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    driver = Driver("wandb", tmp_path / "s", RECORDS)
    assert driver.close() == ["wandb is told nothing: WANDB_MODE is `disabled`"]
    assert not (tmp_path / "s" / "tracking" / "wandb").exists()


# --- what follows from the ledger ---------------------------------------------------------------------------


def test_two_sweeps_of_one_name_share_no_run() -> None:
    histories = [History.of([{**head(), "time": time}, *RECORDS[1:]]) for time in (1.0, 2.0)]
    first, second = (trial_run(history, history.trials["a" * 8]).id for history in histories)
    assert first != second and first.startswith("a" * 8) and second.startswith("a" * 8)


def test_a_run_as_it_was_after_an_epoch_says_nothing_of_later_ones() -> None:
    history = History.of([*RECORDS, *LATER])
    run = trial_run(history, history.trials["a" * 8], until=2)
    assert (run.status, run.ended, [each.epoch for each in run.epochs]) == ("running", None, [1, 2])
    assert "best_epoch" not in run.facts


def test_a_torn_line_of_what_was_written_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "w"
    Written(path).add("a", "1")
    with path.open("a") as file:
        file.write("b 2")
    written = Written(path)
    assert ("a", "1") in written and ("b", "2") not in written and ("a", "2") not in written
    written.add("c", "3")
    assert ("c", "3") in Written(path)
