"""Evaluations from the command line to the tables: resumed, recorded once, of sweeps, exports and files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command import SMALL, command, raykd
from histories import put
from PIL import Image
from s3 import KEYS, s3_server
from simulated import train_all

import raykd as python
from raykd.console.live import Console
from raykd.console.wording import counted
from raykd.evaluations.networks import Selection
from raykd.lanes.messages import Message, Task
from raykd.process.environment import setting
from raykd.records.evaluations import key_of
from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger
from raykd.records.recorded_spec import spec_of
from raykd.records.recorder import Recorder
from raykd.runs import sweep as engine
from raykd.runs.drive import Drive
from raykd.runs.evaluate import EvaluationRequest
from raykd.runs.evaluation import Evaluation, Evaluations, finder, pending
from raykd.runs.repair import Repair, mended, repair
from raykd.spec.document import parse_yaml
from raykd.spec.evaluate_section import EvaluateSpec
from raykd.spec.search import build_sweep
from raykd.spec.suite_file import load_suite
from raykd.storage.open_storage import open_storage, open_sweep
from trainables.core.errors import SweepFailed, UserError

OLD = Path(__file__).resolve().parents[2] / "fixtures" / "sweeps"
SUITE = "name: mine\ntasks:\n  linear: {task: frozen, probe: ridge}\n  near: {task: frozen, probe: knn}\n"
ROWS = 4  # of the sweep `finished`: a student, the student untrained, the teacher, no teacher


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage with sweeps that have ended, with their files, and a suite beside it."""
    (tmp_path / "mine.yaml").write_text(SUITE)
    return Path(shutil.copytree(OLD, tmp_path / "sweeps"))


@pytest.fixture
def on(storage: Path) -> Path:
    return storage.parent / "mine.yaml"


def history_of(folder: Path) -> History:
    return History.of(Ledger.read(folder))


# Without Ray: how jobs are handed out, and what becomes of those that fail -----------------------------


class Pool:
    """A pool whose lanes give each task a score, or what `failing` says."""

    broken: str | None = None
    stopping = False

    def __init__(
        self, failing: Callable[[Task], Exception | None] = lambda task: None, seconds: float = 0.02
    ) -> None:
        self.ran: list[Task] = []
        self.together = self.most = 0
        self._failing, self._seconds = failing, seconds
        self._lock = threading.Lock()

    def run(self, task: Task, on_report: Callable[[Message], None]) -> None:
        with self._lock:
            self.ran.append(task)
            self.together += 1
            self.most = max(self.most, self.together)
        time.sleep(self._seconds)
        with self._lock:
            self.together -= 1
        if (error := self._failing(task)) is not None:
            raise error
        on_report(Message(epoch=0, note="something a person should read"))
        on_report(Message(epoch=1, metrics={"score": 80.0, "fitted": 10.0, "tested": 5.0}))


class Driver:
    """A driver of the sweep `finished`, up to its lanes."""

    def __init__(self, storage: Path, on: Path, again: bool = False) -> None:
        self.sweep = open_sweep(storage / "finished")
        self.asked = Evaluation([load_suite(on)], finder(Selection(2)), again)

    def run(self, pool: Any, lanes: int = 2, until: float | None = None) -> tuple[History, list[str]]:
        said: list[str] = []
        console = Console()
        console.say = lambda text, style="": said.append(text)  # type: ignore[method-assign]
        with Ledger.open(self.sweep) as ledger:
            history = History.of(ledger.records)
            record = Recorder(ledger, history)
            Evaluations(spec_of(history), record, pool, console, self.sweep).run(self.asked, lanes, until)
        return history_of(self.sweep.path), said


def test_jobs_run_together_and_each_is_recorded_once(storage: Path, on: Path) -> None:
    pool, driver = Pool(), Driver(storage, on)
    history, said = driver.run(pool)
    assert len(pool.ran) == len(history.evaluated) == 2 * (ROWS + 1) == len({t.id for t in pool.ran})
    assert pool.most == 3, "one more than lanes, so that no lane waits for the driver"
    assert all(record["metrics"]["score"] == 80 and record["reason"] is None for record in history.evaluated)
    assert sum("something a person should read" in line for line in said) == len(pool.ran)
    again = Pool()
    _, said = driver.run(again)
    assert not again.ran and said[-1] == "every evaluation of these suites is there"


def test_what_a_lane_is_asked(storage: Path, on: Path) -> None:
    pool = Pool()
    Driver(storage, on).run(pool)
    by_who: dict[str, Task] = {task.asked["who"]: task for task in pool.ran}
    assert set(by_who) == {"student", "start", "teacher"}, "the baseline's network is a student"
    assert sum("references/baseline/best.safetensors" in str(t.asked["weights"]) for t in pool.ran) == 2
    for task in pool.ran:
        weights, who = task.asked["weights"], task.asked["who"]
        assert (weights is not None) == (who == "student") and (weights is None or Path(weights).is_file())
        assert task.action == "evaluate" and task.asked["task"]["task"] == "frozen" and not task.background
        assert Path(task.folder).parent.parent == storage.resolve() / "finished" / "evaluations"


def test_a_failure_is_recorded_and_ends_no_other(storage: Path, on: Path) -> None:
    def failing(task: Task) -> Exception | None:
        if task.asked["who"] != "teacher":
            return None
        return (
            UserError("data.name", "has no labelled test split")
            if "knn" in str(task.asked)
            else SweepFailed("evaluate: it ran out of memory")
        )

    history, said = Driver(storage, on).run(Pool(failing))
    failed = [record for record in history.evaluated if record["reason"] is not None]
    assert len(history.evaluated) == 2 * (ROWS + 1) and {record["who"] for record in failed} == {"teacher"}
    assert {record["reason"] for record in failed} == {
        "it ran out of memory", "data.name: has no labelled test split."
    }  # fmt: skip
    assert said[-1] == "8 evaluations done, 2 failed"
    silent = Pool()
    Driver(storage, on).run(silent)
    assert not silent.ran, "what the spec asks for is not tried again by each driver"
    again = Pool()
    history, _ = Driver(storage, on, again=True).run(again)
    assert (
        len(again.ran) == 2
        and not EvaluationRequest.find("finished", [on], open_storage(storage)).results().failed
    )


def test_a_pool_that_ends_is_no_failure_of_a_task(storage: Path, on: Path) -> None:
    pool = Pool(lambda task: SweepFailed("the sweep ends"))
    pool.stopping = True
    history, _ = Driver(storage, on).run(pool)
    assert not history.evaluated
    pool.broken = "no node is left"
    with pytest.raises(SweepFailed, match="no node is left"):
        Driver(storage, on).run(pool)


def test_the_time_limit_leaves_the_rest_to_the_next_driver(storage: Path, on: Path) -> None:
    history, said = Driver(storage, on).run(Pool(seconds=0.5), until=time.monotonic() - 1)
    assert len(history.evaluated) < 2 * (ROWS + 1)
    assert any("the time limit is reached" in line for line in said)


@pytest.mark.parametrize("asked", [False, True])
def test_a_spent_budget_ends_what_the_spec_asks_for_alone(storage: Path, on: Path, asked: bool) -> None:
    sweep, said = open_sweep(storage / "finished"), list[str]()
    pool = Pool(seconds=0.02 if asked else 0.5)
    console = Console()
    console.say = lambda text, style="": said.append(text)  # type: ignore[method-assign]
    with Ledger.open(sweep) as ledger:
        history = History.of(ledger.records)
        asking = spec_of(history).model_copy(update={"evaluate": EvaluateSpec(on=(str(on),), best=2)})
        one = Evaluation([load_suite(on)], finder(Selection(2))) if asked else None
        drive = Drive(asking, Recorder(ledger, history), console, sweep, {}, asked=one)
        drive._evaluate(pool, 1, None, lambda: True)
    every = 2 * (ROWS + 1)
    assert len(pool.ran) == every if asked else len(pool.ran) < every
    assert any("the budget is spent before the last evaluation" in line for line in said) == (not asked)


@pytest.mark.parametrize("places", [[2], range(2 * (ROWS + 1))])
def test_a_job_without_a_record_is_no_success(storage: Path, on: Path, places: Sequence[int]) -> None:
    """One thread ends by a fault in the engine, or every one does, and jobs are left that none has taken."""
    pool = Pool(lambda task: ValueError("a bug") if pool.ran.index(task) in places else None)
    every = 2 * (ROWS + 1)
    with pytest.raises(
        SweepFailed, match=rf"\d+ of {every} evaluations did not run: ValueError: a bug"
    ) as error:
        Driver(storage, on).run(pool)
    left = int(str(error.value).partition(" ")[0])
    assert left == every - len(history_of(storage / "finished").evaluated) > 0
    history, said = Driver(storage, on).run(Pool())
    assert len(history.evaluated) == every and said[-1] == f"{counted(left, 'evaluation')} done"


def test_the_plan_starts_nothing_and_says_what_is_read_again(storage: Path, on: Path) -> None:
    words = ("evaluate", "finished", "--on", on, "--storage", storage)
    done = raykd(*words, "--dry-run")
    assert done.returncode == 0 and "8 runs" in done.stdout and "frozen on digits" in done.stdout, done.stderr
    Driver(storage, on).run(Pool())
    planned = json.loads(raykd(*words, "--dry-run", "--json").stdout)
    assert (planned["runs"], planned["known"], planned["read_again"]) == (0, 8, {})
    done = raykd(*words, "--dry-run", "--set", "tasks.five={task: frozen, probe: ridge_5shot}")
    assert "4 runs; 8 are there already" in done.stdout and "read 2 times" in done.stdout, done.stdout


def test_results_are_shown_without_a_suite(storage: Path, on: Path) -> None:
    assert "nothing has been evaluated yet" in raykd("evaluate", "finished", "--storage", storage).stdout
    Driver(storage, on).run(Pool())
    done = raykd("evaluate", "finished", "--storage", storage, "--base", "teacher")
    assert done.returncode == 0 and "minus the teacher" in done.stdout
    found = json.loads(raykd("evaluate", "finished", "--json", "--storage", storage).stdout)
    assert {row["task"] for row in found["rows"]} == {"linear", "near"} and found[
        "base"
    ] == "no teacher: supervised"
    assert python.open("finished", storage).evaluations.num_rows == 10
    again = python.open("finished", storage).evaluate(on, best=2, base="teacher", progress=False)
    assert again["base"].startswith("the teacher") and {row["mean"] for row in again["rows"]} == {80.0}
    columns = python.open("finished", storage).trials.column_names
    assert {"evaluate/mine/linear", "evaluate/mine/near"} <= set(columns)


def test_json_runs_the_suite_and_prints_the_data_alone(storage: Path, on: Path) -> None:
    Driver(storage, on).run(Pool())
    done = raykd("evaluate", "finished", "--on", on, "--json", "--storage", storage)
    assert done.returncode == 0 and {row["mean"] for row in json.loads(done.stdout)["rows"]} == {80.0}
    assert "every evaluation of these suites is there" in done.stderr
    held = open_sweep(storage / "finished").take_lease()
    try:
        words = ("evaluate", "finished", "--on", on, "--set", "seeds=[7]", "--json", "--storage", storage)
        assert raykd(*words, here=True).returncode == 2, "it would have run what is missing"
    finally:
        held.close()


def test_one_name_is_a_list_of_one(storage: Path, on: Path) -> None:
    name = next(iter(history_of(storage / "finished").trials))
    asked = EvaluationRequest.find("finished", [on], open_storage(storage), trials=name, beside="teacher")
    planned, _ = asked.plan(None)
    assert len(planned["networks"]) == 2 and planned["networks"][1]["row"].startswith("the teacher")


def test_a_file_that_is_opened_otherwise_has_results_of_its_own(storage: Path, on: Path) -> None:
    for place in (f"{root}/{part}/{name}" for root in "ab" for part in ("train", "test") for name in "xy"):
        (storage.parent / place).mkdir(parents=True)
        for at in range(5):
            Image.new("RGB", (16, 16), (40 * at, 0, 0)).save(storage.parent / place / f"{at}.png")
    file = next((storage / "finished" / "trials").glob("*/best.safetensors"))
    students = ["{}", "{mean: [0, 0, 0], std: [1, 1, 1]}", "{interpolation: bicubic}", "{crop_share: 0.5}"]
    data = [("digits", student) for student in students]
    data += [(f"{{name: folder, path: {storage.parent / place}}}", "{}") for place in "ab"]
    found = []
    for images, student in data:
        arch = {"arch": "raykd/mlp", "options": {"side": 8, "hidden": [16]}, **parse_yaml(student, "")}
        asked = EvaluationRequest.find(str(file), [on], open_storage(storage), arch=str(arch), data=images)
        (network,) = asked.target.find(asked.spec(History()), History(), asked.target.sweep).networks
        found.append((asked.target.sweep.path.name, network.name))
    assert len({network for _, network in found}) == len(data), found
    assert len({folder for folder, _ in found}) == len(students), "other images share the folder of a network"


def test_a_failed_task_is_exit_code_1(storage: Path, on: Path) -> None:
    Driver(storage, on).run(Pool(lambda task: SweepFailed("no") if task.asked["who"] == "start" else None))
    done = raykd("evaluate", "finished", "--storage", storage)
    assert done.returncode == 1 and "failed: linear on the student, untrained" in done.stdout


def test_it_refuses_while_another_driver_has_the_sweep(storage: Path, on: Path) -> None:
    held = open_sweep(storage / "finished").take_lease()
    try:
        done = raykd("evaluate", "finished", "--on", on, "--storage", storage, here=True)
    finally:
        held.close()
    assert done.returncode == 2 and str(os.getpid()) in done.stderr, done.stderr


def test_repair_forgets_what_was_measured_of_students_that_are_trained_again(storage: Path, on: Path) -> None:
    history, _ = Driver(storage, on).run(Pool())
    name = next(record["trial"] for record in history.evaluated if record["trial"])
    weights = storage / "finished" / "trials" / name / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert name in str(repair(open_sweep(storage / "finished")))
    left = history_of(storage / "finished").evaluated
    assert left and name not in {record["trial"] for record in left}
    assert len(left) == len(history.evaluated) - 2
    lines = list(Ledger.read(storage / "finished"))
    assert len(mended(lines, Repair([]))) == len(lines)


@pytest.mark.parametrize("lost", ["reference", "report"])
def test_repair_forgets_evaluations_of_a_baseline_whose_reference_is_lost(
    storage: Path, on: Path, lost: str
) -> None:
    """It is trained again, as its record is missing. What was measured of the former one is not its own."""
    before, _ = Driver(storage, on).run(Pool())
    folder = storage / "finished"
    records = Ledger.read(folder)
    for at, record in enumerate(records):
        if record["kind"] == lost and record.get("name", "baseline") == "baseline":
            lines = (folder / LEDGER).read_bytes().splitlines(keepends=True)
            lines[at] = lines[at][:20] + bytes([lines[at][20] ^ 1]) + lines[at][21:]
            (folder / LEDGER).write_bytes(b"".join(lines))
    assert repair(open_sweep(folder)) is not None
    kept = [record for record in history_of(folder).evaluated if record["who"] == "baseline"]
    known = [record for record in before.evaluated if record["who"] == "baseline"]
    assert len(known) == 2 and kept == ([] if lost == "reference" else known)


def test_a_spec_that_asks_for_more_has_evaluations_left(storage: Path, on: Path) -> None:
    history, sweep = history_of(storage / "finished"), open_sweep(storage / "finished")
    spec = spec_of(history)
    assert spec.evaluate is None and not pending(spec, history, sweep)
    asking = spec.model_copy(update={"evaluate": EvaluateSpec(on=(str(on),), best=2)})
    assert pending(asking, history, sweep)
    history, _ = Driver(storage, on).run(Pool())
    assert not pending(asking, history, sweep)


def test_a_suite_that_is_gone_keeps_no_trial_from_going_on(
    storage: Path, on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that has trials left goes on without it; one that has none says what is missing."""

    class Reached(Exception):
        pass

    def reached(*_: object, **__: object) -> None:
        raise Reached

    said: list[str] = []
    console = Console()
    console.say = lambda text, style="": said.append(text)  # type: ignore[method-assign]
    monkeypatch.setattr(engine, "_cluster", reached)
    for name, error in (("interrupted", Reached), ("finished", UserError)):
        records = Ledger.read(storage / name)
        for one in records:
            if one["kind"] == "sweep":
                one["spec"]["evaluate"] = {"on": [str(on)], "best": 1, "beside": []}
                one["source"] = None
        put(storage / name, records)
        on.unlink(missing_ok=True)
        with pytest.raises(error):
            engine.resume(engine.Place(open_sweep(storage / name)), console)
    assert any(text.startswith("no student will be evaluated: evaluate.on: no such file") for text in said)


# With Ray ----------------------------------------------------------------------------------------------


def begun(folder: Path, at_least: int, driver: subprocess.Popen[Any], log: Path) -> History:
    """Wait until so many evaluations are recorded."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        history = history_of(folder)
        if len(history.evaluated) >= at_least:
            return history
        assert driver.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_evaluation_that_is_killed_or_interrupted_goes_on(
    number: signal.Signals, storage: Path, on: Path, tmp_path: Path
) -> None:
    folder, log = storage / "finished", tmp_path / "out.txt"
    seeds = f"seeds={list(range(6))}"
    words = ("evaluate", "finished", "--on", str(on), "--set", seeds, "--storage", str(storage))
    wanted = 2 * 6 * ROWS
    with log.open("ab") as out:
        driver = subprocess.Popen(command(*words), stdout=out, stderr=subprocess.STDOUT)
    known = len(begun(folder, 2, driver, log).evaluated)
    driver.send_signal(number)
    assert driver.wait(60) == (-9 if number == signal.SIGKILL else 1), log.read_text()
    if number == signal.SIGINT:
        assert "go on with:  raykd evaluate finished --on" in log.read_text()
    done = raykd(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    records = history_of(folder).evaluated
    assert len(records) == wanted == len({key_of(record) for record in records})
    scores: dict[tuple[str, str], set[float]] = {}
    for record in records:
        scores.setdefault((record["network"], record["task"]), set()).add(record["metrics"]["score"])
    assert all(len(of) == 1 for of in scores.values()), "a probe does not depend on who ran it, or when"
    said = re.search(r"(\d+) evaluations? to go; (\d+) are there already", done.stdout)
    assert said is not None and int(said[2]) >= known and int(said[1]) + int(said[2]) == wanted, done.stdout
    assert "no teacher: supervised" in done.stdout and "the student, untrained" in done.stdout
    again = raykd(*words, here=True)
    assert again.returncode == 0 and "every evaluation of these suites is there" in again.stdout
    assert "evaluate/mine/linear" in pq.read_table(folder / "trials.parquet").column_names
    assert pq.read_table(folder / "evaluations.parquet").num_rows == wanted


@pytest.mark.ray
def test_an_export_and_a_file_are_evaluated_as_their_trial_is(
    storage: Path, on: Path, tmp_path: Path
) -> None:
    sweep = python.open("finished", storage)
    trial = sweep.best()
    out = trial.export(tmp_path / "mine")
    shutil.rmtree(storage / "study")  # an export needs no sweep
    done = raykd("evaluate", out, "--on", on, "--storage", storage)
    assert done.returncode == 0 and "the teacher" in done.stdout, done.stdout + done.stderr
    file = tmp_path / "student.safetensors"
    shutil.copy(storage / "finished" / "trials" / trial.name / "best.safetensors", file)
    data = json.dumps({"name": "digits", "image_size": trial.config["data"]["image_size"]})
    arch = json.dumps({"arch": "raykd/mlp", "options": {"side": 8, "hidden": [16]}})
    more = ("--data", data, "--arch", arch)
    words = ("evaluate", file, "--on", on, *more, "--storage", storage)
    done = raykd(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    exported, of_file = (
        json.loads(raykd("evaluate", what, "--json", *more, "--storage", storage).stdout)["rows"]
        for what, more in ((out, ()), (file, more))
    )
    ours = {row["task"]: row["mean"] for row in exported if row["who"] == "student"}
    assert ours == {row["task"]: row["mean"] for row in of_file} and set(ours) == {"linear", "near"}
    assert {row["who"] for row in exported} == {"student", "start", "teacher"}
    assert set(open_storage(storage).sweeps()) == {"finished", "interrupted"}, "it is no sweep"
    again = raykd(*words, here=True)
    assert again.returncode == 0 and "every evaluation" in again.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_that_asks_for_it_is_evaluated_after_its_trials_and_on_resume(
    storage: Path, on: Path
) -> None:
    shutil.rmtree(storage / "study")
    file = storage.parent / "study.yaml"
    file.write_text(
        (OLD / "study.yaml").read_text().replace("name: study", "name: asks") + f"evaluate: {on}\n"
    )
    done = raykd("ablate", file, "--storage", storage)
    assert done.returncode == 0, done.stdout + done.stderr
    history = history_of(storage / "asks")
    rows = {record["row"] for record in history.evaluated if record["who"] == "student"}
    assert rows == set(spec_of(history).arms)  # type: ignore[union-attr]
    assert "## By evaluate/mine/linear" in (storage / "asks" / "ablation.md").read_text()
    assert "minus " in done.stdout
    on.write_text(SUITE + "  five: {task: frozen, probe: ridge_5shot}\n")
    done = raykd("ablate", "asks", "--storage", storage)
    assert done.returncode == 0 and "read 2 times" in done.stdout, done.stdout + done.stderr
    assert len(history_of(storage / "asks").evaluated) == 3 * len(history.evaluated) // 2
    page = raykd("report", "asks", "--by", "evaluate/mine/five", "--storage", storage)
    assert page.returncode == 0, page.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_on_an_object_store_by_a_machine_that_has_no_copy(on: Path, tmp_path: Path) -> None:
    change = {"references": ["baseline"], "samples": 1, "epochs": 1, "baseline": None}
    spec = build_sweep({**parse_yaml(SMALL, ""), **change})
    with s3_server() as server, setting({**KEYS, "RAYKD_CACHE": str(tmp_path / "first")}):
        where = server.uri("team/sweeps")
        assert train_all(open_storage(where).sweep("small"), spec).done
        words = ("evaluate", "small", "--on", on, "--storage", where)
        done = raykd(*words, RAYKD_CACHE=str(tmp_path / "second"))
        assert done.returncode == 0, done.stdout + done.stderr
        names = server.keys("team/sweeps/small/")
        assert any(key.endswith("evaluations.parquet") for key in names), "the tables are mirrored"
        found = raykd("evaluate", "small", "--json", "--storage", where, RAYKD_CACHE=str(tmp_path / "third"))
        rows = json.loads(found.stdout)["rows"]
        assert {row["who"] for row in rows} == {"student", "start", "teacher"} and len(rows) == 6
        out = tmp_path / "student"
        assert raykd("export", "small", "--out", out, "--storage", where).returncode == 0
        done = raykd("evaluate", out, *words[2:], "--beside", "none", RAYKD_CACHE=str(tmp_path / "fourth"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert any("/.evaluations/student-" in f"/{key}" for key in server.keys("team/sweeps/"))
        assert open_storage(where).sweeps() == ["small"]
