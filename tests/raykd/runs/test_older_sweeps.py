"""Sweeps of an older raykd (`tests/fixtures/sweeps/`) are resumed, reported and exported by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import raykd

from raykd.records.history import ENDED, History
from raykd.records.ledger import LEDGER, Ledger
from raykd.records.recorded_spec import spec_of

OLD = Path(__file__).resolve().parents[2] / "fixtures" / "sweeps"

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("older") / "sweeps"))


def history_of(storage: Path, name: str) -> History:
    return History.of(Ledger.read(storage / name))


@pytest.mark.parametrize("name", ["finished", "interrupted", "study"])
def test_trials_keep_their_names(name: str) -> None:
    """A name is a hash of what defines a trial's result: no key and no default of a trial has changed."""
    history = History.of(Ledger.read(OLD / name))
    spec = spec_of(history)
    for trial in history.trials.values():
        assert spec.trial(trial.params, trial.replicate).signature() == trial.trial


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on(storage: Path) -> None:
    before, recorded = history_of(storage, "interrupted"), (storage / "interrupted" / LEDGER).read_bytes()
    assert [t.status for t in before.trials.values()] == ["finished", "running", "stopped", "running"]
    done = raykd("resume", "interrupted", "--storage", storage)
    assert done.returncode == 0, done.stderr
    after = history_of(storage, "interrupted")
    assert (storage / "interrupted" / LEDGER).read_bytes().startswith(recorded)
    assert after.trials.keys() == before.trials.keys(), "other names for the same trials"
    assert all(trial.status in ENDED for trial in after.trials.values())
    # The trial that was in flight went on from the checkpoint after its second epoch.
    assert "72efe8be started from epoch 3" in done.stdout + done.stderr
    # Its remaining epochs are those that the older raykd trains when it resumes the sweep.
    assert after.trials["72efe8be"].reports[8]["score"] == pytest.approx(73.445, abs=0.5)


def test_the_best_of_a_finished_sweep_is_read(storage: Path) -> None:
    shown = json.loads(raykd("best", "finished", "--json", "--storage", storage).stdout)
    assert shown["trial"] == "b09ebb8e" and shown["score"] == pytest.approx(73.477, abs=0.01)


@pytest.mark.slow
def test_a_finished_sweep_is_extended(storage: Path) -> None:
    done = raykd("resume", "finished", "--extend", "1", "--storage", storage)
    assert done.returncode == 0, done.stderr
    assert len(history_of(storage, "finished").trials) == 5


@pytest.mark.parametrize("name", ["finished", "study"])
def test_reports_are_written(storage: Path, name: str) -> None:
    done = raykd("report", name, "--storage", storage)
    assert done.returncode == 0, done.stderr
    assert "b09ebb8e" in (storage / name / "report.html").read_text() or name == "study"


def test_the_best_student_is_exported(storage: Path, tmp_path: Path) -> None:
    done = raykd("export", "finished", "--out", tmp_path / "out", "--storage", storage)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "student").is_dir()
    assert "Trial `b09ebb8e`" in (tmp_path / "out" / "README.md").read_text()
