"""TensorBoard's files, read by TensorBoard: its event loader, and its server's HParams answers over HTTP."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_records import end, head, report, start, suggest
from tensorboard import default, program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from raykd.records.history import History
from raykd.records.tensorboard import TensorBoardWriter
from raykd.spec.search import SearchSpec, build_sweep

AXES = {
    "lr": {"log": [0.001, 0.1]},
    "optimizer": ["sgd", "adamw"],
    "sgd_momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": "sgd"}},
    "batch_size": [64, 128],
    "clip_grad": [None, 1.0],
    "warmup_epochs": {"integer": [0, 2]},
    "decay_epochs": [[1], [2, 3]],
}


@pytest.fixture(scope="module")
def spec() -> SearchSpec:
    student = {"arch": "test_efficientnet"}
    return build_sweep(
        {
            "name": "s",
            "method": "moco",
            "student": student,
            "epochs": 3,
            "samples": 3,
            "axes": AXES,
            "seeds": [0, 7],
        }
    )


def params(**over) -> dict:
    return {
        "lr": 0.01, "optimizer": "adamw", "batch_size": 64, "clip_grad": None, "warmup_epochs": 1,
        "decay_epochs": [2, 3], **over,
    }  # fmt: skip


def records() -> list[dict]:
    """Four trials: finished, stopped, failed, and one that has just started; a fifth waits."""
    curve = {1: 50.0, 2: 70.0, 3: 60.0}
    found = [head()]
    for name, epochs, status in (
        ("a", 3, "finished"),
        ("b", 2, "stopped"),
        ("c", 1, "failed"),
        ("d", 0, None),
    ):
        over = {"optimizer": "sgd", "sgd_momentum": 0.9, "clip_grad": 1.0} if name == "b" else {}
        found += [
            suggest(name * 8, seed=7, views_strength=0.5, nothing=None, **params(**over)),
            start(name * 8),
        ]
        for epoch in range(1, epochs + 1):
            terms = {"loss/total": 3.0 / epoch, "loss/contrastive": 2.0, "probe/ridge": 90.0}
            found.append(report(name * 8, epoch, curve[epoch], lr=0.01, images_per_s=1000.0, **terms))
        if status:
            found.append(end(name * 8, status))
    return [*found, suggest("e" * 8)]


RECORDS = records()


def history(found: list[dict]) -> History:
    out = History.of(found)
    for trial in out.trials.values():  # `suggest` puts the whole config there
        trial.params = {name: value for name, value in trial.params.items() if name in AXES}
    return out


def write(folder: Path, spec: SearchSpec, found: list[dict]) -> TensorBoardWriter:
    """As the recorder does it: each record folded in, then shown."""
    writer = TensorBoardWriter(folder, spec)
    writer.rebuild(history(found[:1]))
    so_far: list[dict] = []
    for record in found:
        so_far.append(record)
        writer(record, history(so_far))
    return writer


def files(folder: Path) -> dict[str, bytes]:
    paths = (p for p in (folder / "tensorboard").rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


class Server:
    """TensorBoard as users start it, on loopback."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        board = program.TensorBoard(plugins=default.get_plugins())
        logdir = str(folder / "tensorboard")
        board.configure(argv=["", "--logdir", logdir, "--host", "127.0.0.1", "--port", "0", *arguments])
        self.url = board.launch()

    def ask(self, what: str, body: dict) -> dict:
        data = json.dumps({"experimentName": "", **body}).encode()
        head = {"Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(self.url + what, data, head), timeout=30
        ) as answer:
            text = answer.read().decode()
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    def groups(self) -> list[dict]:
        statuses = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
        request = {"allowedStatuses": statuses, "colParams": [], "startIndex": 0, "sliceSize": 100}
        return self.ask("data/plugin/hparams/session_groups", request).get("sessionGroups", [])

    def wait(self, ready) -> list[dict]:
        deadline = time.monotonic() + 30
        while not ready(groups := self.groups()):
            assert time.monotonic() < deadline, groups
            time.sleep(0.05)
        return groups


def metrics(group: dict) -> dict[str, float]:
    return {m["name"]["tag"]: m["value"] for m in group["metricValues"]}


@pytest.mark.parametrize("loader", ["--load_fast=false", "--load_fast=auto"])
def test_the_hparams_page(tmp_path, spec, loader):
    write(tmp_path, spec, RECORDS)
    server = Server(tmp_path, loader, "--reload_interval=1")
    groups = server.wait(lambda groups: len(groups) == 4 and all(metrics(g) for g in groups[:3]))
    experiment = server.ask("data/plugin/hparams/experiment", {})
    columns = {info["name"]: info for info in experiment["hparamInfos"]}
    assert set(columns) == {*AXES, "seed"}
    assert columns["lr"]["domainInterval"] == {"minValue": 0.001, "maxValue": 0.1}
    assert columns["warmup_epochs"]["domainInterval"] == {"minValue": 0.0, "maxValue": 2.0}
    assert columns["optimizer"]["domainDiscrete"] == ["adamw", "sgd"]
    assert columns["batch_size"]["domainDiscrete"] == [64.0, 128.0]
    assert columns["clip_grad"]["domainDiscrete"] == ["1.0", "none"]
    assert columns["decay_epochs"]["domainDiscrete"] == ["[1]", "[2, 3]"]
    assert columns["seed"]["domainDiscrete"] == [0.0, 7.0]
    # Those with empty cells come last, so that they are not shown unasked.
    assert (
        [name for name, info in columns.items() if not info["differs"]]
        == ["sgd_momentum"]
        == [list(columns)[-1]]
    )
    assert [info["name"]["tag"] for info in experiment["metricInfos"]] == ["score", "last", "epoch"]

    by_name = {group["name"]: group for group in groups}
    statuses = {name[0]: group["sessions"][0]["status"] for name, group in by_name.items()}
    assert statuses == {
        "a": "STATUS_SUCCESS",
        "b": "STATUS_SUCCESS",
        "c": "STATUS_FAILURE",
        "d": "STATUS_UNKNOWN",
    }
    assert metrics(by_name["a" * 8]) == {"score": 70.0, "last": 60.0, "epoch": 3.0}
    assert metrics(by_name["c" * 8]) == {"score": 50.0, "last": 50.0, "epoch": 1.0}
    # The trial that has only started shows its whole config; each value lies in its column's domain.
    values = by_name["d" * 8]["hparams"]
    assert values == {
        "lr": 0.01, "optimizer": "adamw", "batch_size": 64.0, "clip_grad": "none", "warmup_epochs": 1.0,
        "decay_epochs": "[2, 3]", "seed": 7.0, "views_strength": 0.5, "nothing": "none", "method": "retro",
    }  # fmt: skip
    assert by_name["b" * 8]["hparams"]["sgd_momentum"] == 0.9
    for group in groups:
        for name, value in group["hparams"].items():
            assert value in columns.get(name, {}).get("domainDiscrete", [value])


def test_a_server_that_looks_on_sees_a_trial_grow_and_end_and_a_resume_does_not_disturb_it(tmp_path, spec):
    first = [r for r in RECORDS if r["kind"] == "sweep" or r.get("trial") == "a" * 8]
    write(tmp_path, spec, first[:4])  # one epoch
    server = Server(tmp_path, "--load_fast=false", "--reload_interval=1")
    groups = server.wait(lambda groups: groups and metrics(groups[0]))
    assert metrics(groups[0]) == {"score": 50.0, "last": 50.0, "epoch": 1.0}
    TensorBoardWriter(tmp_path, spec).rebuild(history(first))
    groups = server.wait(lambda groups: groups[0]["sessions"][0]["status"] == "STATUS_SUCCESS")
    assert len(groups) == 1 and metrics(groups[0]) == {"score": 70.0, "last": 60.0, "epoch": 3.0}


def test_scalars_of_an_epoch(tmp_path, spec):
    write(tmp_path, spec, RECORDS)
    run = EventAccumulator(str(tmp_path / "tensorboard" / ("a" * 8))).Reload()
    terms = ["loss/total", "loss/contrastive", "probe/ridge", "lr", "images_per_s"]
    assert set(run.Tags()["scalars"]) == {"epoch", "score", "last", *terms}
    assert [(e.step, e.value) for e in run.Scalars("score")] == [(1, 50.0), (2, 70.0), (3, 70.0)]
    assert [(e.step, e.value) for e in run.Scalars("last")] == [(1, 50.0), (2, 70.0), (3, 60.0)]
    assert [(e.step, e.value) for e in run.Scalars("loss/total")] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    times = [r["time"] for r in RECORDS if r["kind"] == "report"][:3]
    gaps = [e.wall_time - run.Scalars("lr")[0].wall_time for e in run.Scalars("lr")]
    assert gaps == [t - times[0] for t in times]


def test_scores_that_are_not_numbers_are_no_metric_and_other_scalars_keep_them(tmp_path, spec):
    found = [
        head(),
        suggest("a" * 8),
        start("a" * 8),
        report("a" * 8, 1, math.nan, **{"loss/total": math.inf}),
    ]
    write(tmp_path, spec, found)
    run = EventAccumulator(str(tmp_path / "tensorboard" / ("a" * 8))).Reload()
    assert set(run.Tags()["scalars"]) == {"epoch", "loss/total"}
    assert run.Scalars("loss/total")[0].value == math.inf


def test_one_experiment_summary_and_no_session_for_a_trial_that_waits(tmp_path, spec):
    write(tmp_path, spec, RECORDS)
    TensorBoardWriter(tmp_path, spec).rebuild(history(RECORDS))
    tags = []
    for name in files(tmp_path):
        for event in EventFileLoader(str(tmp_path / name)).Load():
            tags += [v.tag for v in event.summary.value if v.tag.startswith("_hparams_")]
    assert sorted(tags) == (
        ["_hparams_/experiment"] + ["_hparams_/session_end_info"] * 3 + ["_hparams_/session_start_info"] * 4
    )
    assert not (tmp_path / "tensorboard" / ("e" * 8)).exists()


def test_a_second_attempt_and_a_repeated_report_add_nothing(tmp_path, spec):
    found = [head(), suggest("a" * 8), start("a" * 8), report("a" * 8, 1, 50.0)]
    again = [
        start("a" * 8, 2),
        report("a" * 8, 1, 99.0),
        report("a" * 8, 2, 60.0),
        end("a" * 8),
        end("a" * 8),
    ]
    write(tmp_path, spec, found + again)
    run = EventAccumulator(str(tmp_path / "tensorboard" / ("a" * 8))).Reload()
    assert [(e.step, e.value) for e in run.Scalars("score")] == [(1, 50.0), (2, 60.0)]


@settings(max_examples=40)
@given(live=st.integers(1, 18), cut=st.floats(0, 1))
def test_rebuilt_after_a_crash_anywhere_it_is_what_it_would_have_been(tmp_path_factory, spec, live, cut):
    whole, crashed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("crashed")
    write(whole, spec, RECORDS)
    write(crashed, spec, RECORDS[:live])
    for name, data in files(crashed).items():  # a kill in the middle of a write, in every file
        (crashed / name).write_bytes(data[: round(cut * len(data))])
    writer = TensorBoardWriter(crashed, spec)
    writer.rebuild(history(RECORDS[:live]))
    for at in range(live, len(RECORDS)):
        writer(RECORDS[at], history(RECORDS[: at + 1]))
    assert files(crashed) == files(whole)


def timed(at: int) -> list[dict]:
    """The same with a student's latency as record number `at`."""
    found = [
        {**r, "student": "s", "size": {"params": 9, "macs": 90}} if r["kind"] == "suggest" else r
        for r in RECORDS
    ]
    when = found[at - 1]["time"] + 0.5
    one = {
        "kind": "latency",
        "time": when,
        "student": "s",
        "label": "",
        "metrics": {"median_ms": 4.0},
        "where": "",
    }
    return [*found[:at], one, *found[at:]]


@settings(max_examples=40)
@given(at=st.integers(1, len(RECORDS)), live=st.integers(1, 18), cut=st.floats(0, 1))
def test_a_latency_is_in_the_run_of_each_trial_of_its_student(tmp_path_factory, spec, at, live, cut):
    """Measured before the trial began, or after, and whenever the driver was killed."""
    found = timed(at)
    whole, crashed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("crashed")
    write(whole, spec, found)
    for name in "abcd":
        run = EventAccumulator(str(whole / "tensorboard" / (name * 8))).Reload()
        assert [event.value for event in run.Scalars("size/latency")] == [4.0]
    write(crashed, spec, found[:live])
    for name, data in files(crashed).items():
        (crashed / name).write_bytes(data[: round(cut * len(data))])
    writer = TensorBoardWriter(crashed, spec)
    writer.rebuild(history(found[:live]))
    for place in range(live, len(found)):
        writer(found[place], history(found[: place + 1]))
    assert files(crashed) == files(whole)


def test_neither_torch_nor_tensorflow_nor_ray_is_imported():
    code = "import sys, raykd.records.tensorboard; print({'torch', 'tensorflow', 'ray'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
