"""What `raykd.open` gives, on recorded sweeps: it agrees with the verbs, the tables and the export."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from command import raykd as verb
from torch import nn

import raykd
from raykd.api import sweep as module
from raykd.console.wording import finite
from raykd.export.student import open_exported
from raykd.records.ledger import Ledger
from raykd.records.tables import CURVES, TRIALS, write_tables
from raykd.runs.start import SearchRequest
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import SweepFailed, UserError

OLD = Path(__file__).resolve().parents[2] / "fixtures" / "sweeps"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("api") / "sweeps"))


@pytest.fixture
def finished(storage: Path) -> raykd.Sweep:
    return raykd.open("finished", storage)


def test_a_sweep_is_found_by_name_and_by_path(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (storage / "finished", str(storage / "finished"), f"{storage}/finished/"):
        assert raykd.open(given).path == storage / "finished"
    monkeypatch.setenv("RAYKD_STORAGE", str(storage))
    assert raykd.open("finished").name == "finished"
    monkeypatch.delenv("RAYKD_STORAGE")
    monkeypatch.chdir(storage.parent)
    found = raykd.open("finished")
    monkeypatch.chdir("/")  # as a notebook's %cd does
    assert found.trials.num_rows == 4
    with pytest.raises(UserError, match=r"name: no such sweep in .* Did you mean 'finished'"):
        raykd.open("finishd", storage)


def test_the_tables_are_those_of_the_files(finished: raykd.Sweep, tmp_path: Path) -> None:
    write_tables(finished.history(), tmp_path)
    assert finished.trials.equals(pq.read_table(tmp_path / TRIALS))
    assert finished.curves.equals(pq.read_table(tmp_path / CURVES))
    assert list(finished.trials.to_pandas()["status"]) == finished.trials["status"].to_pylist()


def test_the_best_is_that_of_the_verb(finished: raykd.Sweep, storage: Path) -> None:
    shown = json.loads(verb("best", "finished", "--json", "--storage", storage).stdout)
    best = finished.best()
    assert (best.name, best.score, best.epoch) == (shown["trial"], shown["score"], shown["epoch"])
    assert (best.params, best.metrics, best.status) == (shown["params"], shown["metrics"], shown["status"])
    assert best.seed == 0 and best.score_se == shown["metrics"]["score_se"]
    references = {name: metrics["score"] for name, metrics in finished.references.items()}
    assert references == shown["references"]
    assert repr(best) == "<trial b09ebb8e: finished, 73.48 at epoch 3>"


def test_the_n_best_are_in_order(finished: raykd.Sweep) -> None:
    scores = [trial.score for trial in finished.best(3)]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert finished.best(3)[0].name == finished.best().name and len(finished.best(99)) == 4
    assert finished.trial("b09e").name == "b09ebb8e"
    with pytest.raises(UserError, match="trial: no such trial"):
        finished.trial("zz")


def test_the_config_is_a_search_of_this_trial(finished: raykd.Sweep) -> None:
    best = finished.best()
    spec = SearchRequest.find(best.config).spec
    assert spec.trials == 1 and spec.trial({}, best.seed).signature() == best.name


def test_the_student_is_the_exported_one(finished: raykd.Sweep, tmp_path: Path) -> None:
    best = finished.best()
    student = best.student()
    assert isinstance(student, nn.Module) and not student.training
    folder = best.export(tmp_path / "out")
    exported = open_exported(SearchRequest.find(best.config).spec.trial({}, best.seed), folder / "student")
    side = best.config["data"]["image_size"]
    images = torch.rand(3, 3, side, side)
    with torch.no_grad():
        features = student(images)
        assert torch.equal(features, exported(images)) and features.shape == (3, student.feature_dim)
    with pytest.raises(UserError, match=r"--out: .* is in use"):
        finished.export(folder)


def test_a_report_is_written(finished: raykd.Sweep, tmp_path: Path) -> None:
    assert "b09ebb8e" in finished.report(tmp_path / "page.html").read_text()


def test_importances_are_those_of_the_verb(finished: raykd.Sweep, storage: Path) -> None:
    shown = json.loads(
        verb("importance", "finished", "--resamples", "20", "--json", "--storage", storage).stdout
    )
    assert finished.importance(resamples=20).evaluator == shown["evaluator"]


def test_a_study_is_one(storage: Path) -> None:
    study = raykd.open("study", storage)
    assert isinstance(study, raykd.Study)
    shown = verb("ablate", "study", "--json", "--storage", storage, here=True).stdout
    assert json.loads(json.dumps(finite(study.results))) == json.loads(shown)
    assert "arm" in study.best().params and "arm_name" in study.trials.schema.names


def test_every_access_reads_the_present(storage: Path) -> None:
    """What another process adds to the ledger is seen, and that it runs."""
    sweep = raykd.open("interrupted", storage)
    assert (sweep.status["state"], sweep.status["samples"]) == ("interrupted", 4)
    with Ledger.open(open_sweep(storage / "interrupted")) as ledger:
        ledger.append("extend", samples=5)
        assert (sweep.status["state"], sweep.status["samples"]) == ("running", 9)
        driver = sweep.status["driver"]
        assert driver is not None and driver["pid"] == os.getpid()
    assert sweep.status["state"] == "interrupted" and "2 of 9 trials ended" in repr(sweep)


def test_a_trial_without_a_score(storage: Path, tmp_path: Path) -> None:
    ledger = (storage / "finished" / "ledger.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "ledger.jsonl").write_text("".join(ledger[:1]))
    sweep = raykd.open("new", tmp_path)
    assert sweep.trials.num_rows == sweep.curves.num_rows == 0
    with pytest.raises(SweepFailed, match="no trial of this sweep has a score yet"):
        sweep.best()
    assert sweep.spec.name == "finished"


def test_a_finished_sweep_is_resumed_without_ray(finished: raykd.Sweep) -> None:
    """Nothing is left to do, so nothing is started; nor for a mistake."""
    finished.resume(as_started=True)
    assert finished.status["state"] == "done"
    with pytest.raises(UserError, match="extend: is below 0"):
        finished.resume(extend=-1)


def test_a_name_that_is_taken(finished: raykd.Sweep, storage: Path) -> None:
    with pytest.raises(UserError, match=r"name: there is a sweep of this name.*raykd resume finished"):
        raykd.search({**finished.best().config, "name": "finished"}, storage=storage)
    with pytest.raises(UserError, match=r"--storage: .* is a file"):
        raykd.search(finished.best().config, storage=storage / "finished" / "ledger.jsonl")


def test_importing_is_light_and_lazy(storage: Path) -> None:
    """Nor does reading a sweep load torch and Ray."""
    code = f"""
import sys, raykd
assert not [name for name in sys.modules if name.startswith(("raykd.", "pydantic", "yaml"))]
assert set(raykd.__all__) <= set(dir(raykd))
for name in raykd.__all__: getattr(raykd, name)
sweep = raykd.open("finished", {str(storage)!r})
assert sweep.best().score > 73 and sweep.trials.num_rows == 4 and sweep.status["state"] == "done"
assert not {{"torch", "ray", "optuna", "IPython"}} & set(sys.modules), sorted(sys.modules)
import raykd.searching
from raykd import *
assert callable(search) and callable(raykd.search) and open is raykd.open
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with pytest.raises(AttributeError, match="module 'raykd' has no attribute 'serach'"):
        raykd.serach  # type: ignore[attr-defined]  # noqa: B018


def test_no_room_has_the_name_of_a_function() -> None:
    """`import raykd.search` would put the room in the function's place."""
    rooms = {path.parent.name for path in Path(module.__file__).parents[1].glob("*/__init__.py")}
    assert not rooms & set(raykd.__all__)
