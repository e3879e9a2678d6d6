"""The study for optuna-dashboard, read by Optuna and by optuna-dashboard's own application."""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_records import end, head, report, start, suggest
from optuna.trial import TrialState
from optuna_dashboard import wsgi
from optuna_dashboard._storage_url import get_storage
from werkzeug.test import Client

from raykd.records.dashboard import JOURNAL, DashboardStudy
from raykd.records.history import History
from raykd.spec.search import SearchSpec, build_sweep

AXES = {
    "lr": {"log": [0.001, 0.1]},
    "optimizer": ["sgd", "adamw"],
    "sgd_momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": "sgd"}},
    "clip_grad": [None, 1.0],
    "decay_epochs": [[1], [2, 3]],
}


@pytest.fixture(scope="module")
def spec() -> SearchSpec:
    student = {"arch": "test_efficientnet"}
    return build_sweep(
        {"name": "s", "method": "moco", "student": student, "epochs": 3, "samples": 3, "axes": AXES}
    )


def records() -> list[dict]:
    """b is stopped first, then a finishes, c fails, d has a score that is no number, e is still running."""
    params = {"lr": 0.01, "optimizer": "adamw", "clip_grad": None, "decay_epochs": [2, 3]}
    with_sgd = {"lr": 0.1, "optimizer": "sgd", "sgd_momentum": 0.9, "clip_grad": 1.0, "decay_epochs": [1]}
    found = [head()]
    for at, name in enumerate("abcde"):
        found += [suggest(name * 8, at, **(with_sgd if name == "b" else params)), start(name * 8)]
    found += [report("b" * 8, 1, 20.0), end("b" * 8, "stopped", "asha")]
    found += [report("a" * 8, epoch, score) for epoch, score in ((1, 50.0), (2, 70.0), (3, 60.0))]
    found += [end("a" * 8), report("c" * 8, 1, 30.0), end("c" * 8, "failed", "loss is NaN")]
    return [*found, report("d" * 8, 1, math.nan), end("d" * 8), report("e" * 8, 1, 1.0)]


RECORDS = records()


def play(folder: Path, spec: SearchSpec, found: list[dict], before: int = 0) -> None:
    """A driver that starts after `before` records and sees the rest happen."""
    study = DashboardStudy(folder, spec)
    study.rebuild(History.of(found[:before]))
    for at in range(before, len(found)):
        study(found[at], History.of(found[: at + 1]))


def load(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=get_storage(str(folder / JOURNAL)))


def test_states_values_and_parameters(tmp_path, spec):
    play(tmp_path, spec, RECORDS)
    study = load(tmp_path)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE and study.metric_names == ["score"]
    stopped, finished, failed, hollow = study.trials  # in the order in which they ended
    assert (stopped.state, stopped.value, stopped.intermediate_values) == (TrialState.PRUNED, 20.0, {1: 20.0})
    assert (finished.state, finished.value) == (TrialState.COMPLETE, 70.0)
    assert finished.intermediate_values == {1: 50.0, 2: 70.0, 3: 60.0}
    assert (failed.state, failed.value, failed.user_attrs["reason"]) == (TrialState.FAIL, None, "loss is NaN")
    assert (hollow.state, hollow.intermediate_values) == (TrialState.FAIL, {})
    assert study.best_trial.user_attrs["trial"] == "a" * 8
    assert finished.params == {"lr": 0.01, "optimizer": "adamw", "clip_grad": None, "decay_epochs": "[2, 3]"}
    assert stopped.params["sgd_momentum"] == 0.9 and "sgd_momentum" not in finished.params
    assert (finished.user_attrs["best_epoch"], finished.user_attrs["epochs"]) == (2, 3)
    ended = next(r["time"] for r in RECORDS if r["kind"] == "end" and r["trial"] == "a" * 8)
    assert finished.datetime_complete.timestamp() == ended


def test_optuna_can_rank_its_parameters(tmp_path, spec):
    found = [head()]
    for at in range(12):
        lr = 0.001 * 1.4**at
        found += [suggest(f"{at:08x}", at, lr=lr, optimizer="adamw", clip_grad=1.0, decay_epochs=[1])]
        found += [start(f"{at:08x}"), report(f"{at:08x}", 1, 50.0 + at), end(f"{at:08x}")]
    play(tmp_path, spec, found)
    ranks = optuna.importance.get_param_importances(load(tmp_path))
    assert max(ranks, key=lambda name: ranks[name]) == "lr"


def test_optuna_dashboard_shows_it(tmp_path, spec):
    play(tmp_path, spec, RECORDS)
    client = Client(wsgi(get_storage(str(tmp_path / JOURNAL))))
    summaries = json.loads(client.get("/api/studies").data)["study_summaries"]
    assert [(s["study_name"], s["directions"]) for s in summaries] == [("s", ["maximize"])]
    detail = json.loads(client.get(f"/api/studies/{summaries[0]['study_id']}").data)
    assert [t["state"] for t in detail["trials"]] == ["Pruned", "Complete", "Fail", "Fail"]
    assert {p["name"] for p in detail["union_search_space"]} == set(AXES)
    assert detail["best_trials"][0]["values"] == [70.0]


@settings(max_examples=30)
@given(first=st.integers(1, len(RECORDS)), cut=st.floats(0, 1))
def test_a_crash_anywhere_leaves_the_same_study_after_resume(tmp_path_factory, spec, first, cut):
    folder = tmp_path_factory.mktemp("s")
    play(folder, spec, RECORDS[:first])
    path = folder / JOURNAL
    data = path.read_bytes()
    path.write_bytes(data[: round(cut * len(data))])
    play(folder, spec, RECORDS, before=first)
    names = [t.user_attrs["trial"][0] for t in load(folder).trials]
    assert names == ["b", "a", "c", "d"]
    assert [p.name for p in folder.iterdir()] == [JOURNAL]


def test_what_is_right_stays_so_that_an_open_dashboard_keeps_its_place(tmp_path, spec):
    play(tmp_path, spec, RECORDS[:-5])
    before = (tmp_path / JOURNAL).read_bytes()
    watching = load(tmp_path)
    assert len(watching.trials) == 2
    play(tmp_path, spec, RECORDS, before=len(RECORDS) - 3)
    assert (tmp_path / JOURNAL).read_bytes().startswith(before)
    assert len(watching.trials) == 4


@pytest.mark.parametrize("other", ["text", "other sweep", "twice", "deleted"])
def test_anything_else_is_written_anew(tmp_path, spec, other):
    path = tmp_path / JOURNAL
    if other == "text":
        path.write_text("this is not a journal\n" * 2)
    elif other == "other sweep":
        play(tmp_path, spec, [head(), suggest("f" * 8, lr=0.01), start("f" * 8), end("f" * 8)])
    elif other == "twice":
        play(tmp_path, spec, RECORDS)
        study = load(tmp_path)
        study.add_trial(study.trials[0])
    else:
        play(tmp_path, spec, RECORDS)
        optuna.delete_study(study_name="s", storage=get_storage(str(path)))
    DashboardStudy(tmp_path, spec).rebuild(History.of(RECORDS))
    assert [t.user_attrs["trial"][0] for t in load(tmp_path).trials] == ["b", "a", "c", "d"]


def test_a_lock_left_by_a_killed_process_stops_nobody(tmp_path, spec):
    play(tmp_path, spec, RECORDS[:12])
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    play(tmp_path, spec, RECORDS, before=12)
    (tmp_path / f"{JOURNAL}.lock").unlink()
    assert len(load(tmp_path).trials) == 4
