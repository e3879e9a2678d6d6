"""Which files of a trial stay after its end, and which sweeps keep all."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from histories import a_sweep
from ledger_records import end, report, start, suggest
from studies import GAMMA, study

from raykd.records.history import History
from raykd.records.ledger import TRIALS
from raykd.runs.changed_spec import as_begun
from raykd.runs.ended import EndedTrials
from raykd.runs.retune import searches
from raykd.spec.search import SearchSpec, build_sweep
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import StorageLost, UserError
from trainables.training.checkpoints import Checkpoints
from trainables.training.run import BEST

NAMES = ("aaaa0000", "bbbb0000", "cccc0000", "dddd0000")
STATE = {"weights": torch.ones(3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep whose trials have two checkpoints and a student each."""
    for name in NAMES:
        place = tmp_path / "s" / TRIALS / name
        kept = Checkpoints(place / "checkpoints")
        kept.save(1, STATE)
        kept.save(2, STATE)
        (place / "checkpoints" / ".left.tmp").write_text("of a process that was killed")
        (place / BEST).write_text("a student")
    return tmp_path / "s"


def of(folder: Path, name: str) -> list[str]:
    """The files of a trial."""
    place = folder / TRIALS / name
    return sorted(path.name for path in place.rglob("*") if path.is_file() and path.suffix != ".tmp")


def history_with(*endings: str) -> History:
    """Trials with these ends; "" for one that is in flight."""
    history = History()
    for number, (name, status) in enumerate(zip(NAMES, endings, strict=False)):
        history.add(suggest(name, number))
        history.add(start(name))
        history.add(report(name, 1, 50.0))
        if status:
            history.add(end(name, status))
    return history


def test_a_trial_that_ended_keeps_its_student_alone(folder: Path) -> None:
    history = history_with("finished", "failed", "", "")
    with EndedTrials(open_sweep(folder), history) as ended:
        for said in (end(NAMES[2], "stopped"), report(NAMES[3], 2, 1.0)):
            history.add(said)
            ended(said, history)
    assert of(folder, NAMES[0]) == of(folder, NAMES[2]) == [BEST], "an earlier driver's, and this one's"
    assert not (folder / TRIALS / NAMES[2] / "checkpoints").exists()
    for going in (NAMES[1], NAMES[3]):
        assert len(of(folder, going)) == 3, "it may be tried again, or is in flight"
        found = Checkpoints(folder / TRIALS / going / "checkpoints").load()
        assert found is not None and found[0] == 2


def test_a_storage_that_fails_stops_nothing_and_the_next_driver_removes_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, whole = history_with("finished", "stopped"), Checkpoints.discard

    def lost(self: Checkpoints) -> None:
        if NAMES[0] in str(self.folder):
            raise StorageLost("gone")
        whole(self)

    monkeypatch.setattr(Checkpoints, "discard", lost)
    with EndedTrials(open_sweep(folder), history):
        pass
    assert len(of(folder, NAMES[0])) == 3 and of(folder, NAMES[1]) == [BEST]
    monkeypatch.undo()
    with EndedTrials(open_sweep(folder), history):
        pass
    assert of(folder, NAMES[0]) == [BEST]


def test_a_sweep_that_ends_early_does_not_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoints, "discard", lambda self: time.sleep(30))
    began = time.monotonic()
    with pytest.raises(RuntimeError), EndedTrials(open_sweep(folder), history_with("finished")):
        raise RuntimeError
    assert time.monotonic() - began < 10


def test_its_own_trials_come_first_and_the_end_waits_briefly_for_those_of_earlier_drivers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, looked, one = history_with("finished", "finished", "", ""), list[str](), threading.Event()

    def slowly(self: Checkpoints) -> None:
        looked.append(self.folder.parent.name)
        one.wait(30)

    monkeypatch.setattr(Checkpoints, "discard", slowly)
    monkeypatch.setattr("raykd.runs.ended._AT_END_S", 0.5)
    began = time.monotonic()
    with EndedTrials(open_sweep(folder), history) as ended:
        while not looked:
            time.sleep(0.01)
        ended(end(NAMES[2], "stopped"), history)
        one.set()
        while len(looked) < 2:
            time.sleep(0.01)
        one.clear()
    assert looked[1] == NAMES[2] and time.monotonic() - began < 10
    one.set()


def test_new_sweeps_keep_few_and_older_ones_what_they_kept() -> None:
    new = a_sweep({"lr": {"log": [1e-3, 1e-2]}}, 2)
    assert new.keep_checkpoints == "unfinished"
    raw = new.model_dump(mode="json")
    assert build_sweep({**raw, "keep_checkpoints": "all"}).keep_checkpoints == "all"
    with pytest.raises(UserError, match=r"^keep_checkpoints: "):
        build_sweep({**raw, "keep_checkpoints": "none"})
    del raw["keep_checkpoints"]
    old = SearchSpec.model_validate(raw)  # of a ledger without the field
    assert old.keep_checkpoints == "all"
    assert as_begun(new, old).hash() == old.hash(), "its file is the one that it was started with"
    assert new.trial({}, 0).signature() == old.trial({}, 0).signature()
    assert study(GAMMA).keep_checkpoints == "unfinished"
    whole = study(GAMMA, keep_checkpoints="all", retune=2)
    assert {search.keep_checkpoints for search in searches(whole).values()} == {"all"}
