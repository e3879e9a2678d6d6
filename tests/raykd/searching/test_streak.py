"""Trials that fail alike stop a sweep; the next driver tries them again, and only once."""

from __future__ import annotations

from pathlib import Path

import pytest
from histories import AXES, a_sweep
from hypothesis import given
from hypothesis import strategies as st
from simulated import Engine, drive

from raykd.console.live import Console
from raykd.records.history import History, TrialRecord
from raykd.records.ledger import Ledger
from raykd.records.recorder import Recorder
from raykd.runs.drive import Drive
from raykd.searching.streak import FailureStreak
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import SweepFailed

GONE = "FileNotFoundError: [Errno 2] No such file or directory: '/data/{:08x}/train.arrow'"


def ended(number: int, reason: str | None, arm: str | None = None, lane: str = "lane-0") -> TrialRecord:
    """A trial that failed for this reason; None: one that ended well."""
    trial = TrialRecord(f"{number:08x}", number, arm or f"arm{number}", 0, {}, {}, "sampler", {}, 0.0)
    trial.status, trial.reason, trial.lane = "failed" if reason else "stopped", reason, lane
    return trial


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (GONE.format(17), GONE.format(2**31)),
        (
            "the loss is not finite at epoch 1, step 2/7: nan",
            "the loss is not finite at epoch 9, step 3/7: inf",
        ),
        (
            "out of memory with optim.batch_size 64: 3.1 GiB",
            "out of memory with optim.batch_size 128: 12 GiB",
        ),
    ],
)
def test_trials_that_fail_alike_stop_a_sweep(one: str, other: str) -> None:
    streak = FailureStreak(4, 100)
    for number, reason in enumerate([one, other, one]):
        streak.add(ended(number, reason))
        streak.check()
    streak.add(ended(3, other))
    assert streak.reason == f"4 trials in a row failed alike, all on lane-0: {other}"
    with pytest.raises(SweepFailed, match=r"^4 trials in a row"):
        streak.check()
    streak.add(ended(4, one, lane="lane-1"))
    assert streak.reason == f"5 trials in a row failed alike: {one}"


@given(st.lists(st.sampled_from(["fails", "breaks", ""]), max_size=40), st.integers(1, 4))
def test_other_ends_between_them_stop_none(ends: list[str], most: int) -> None:
    streak = FailureStreak(most, 100)
    for number, reason in enumerate(ends):
        streak.add(ended(number, reason or None))
        before = ends[: number + 1]
        needed = most * (3 if "" in before else 1)
        last = before[-needed:]
        alike = len(last) == needed and len(set(last)) == 1 and last[0] != ""
        assert (streak.reason is not None) is alike


def test_a_sweep_that_works_is_given_more_time() -> None:
    streak = FailureStreak(2, 100)
    streak.add(ended(9, None))
    for number in range(6):
        assert streak.reason is None
        streak.add(ended(number, "it fails"))
    assert streak.reason is not None


def test_the_seeds_of_one_setting_count_once_and_a_study_has_few_settings() -> None:
    search, study = FailureStreak(3, 100), FailureStreak(3, 2)
    for number in range(10):
        search.add(ended(number, "it fails", arm="the same"))
    assert search.reason is None
    for number, arm in enumerate(["a", "b", "a"]):
        assert study.reason is None
        study.add(ended(number, "it fails", arm=arm))
    assert study.reason is not None


def test_null_lets_all_fail() -> None:
    streak = FailureStreak(None, 100)
    for number in range(1000):
        streak.add(ended(number, "it fails"))
    assert streak.reason is None


def test_what_failed_alike_is_tried_again_by_the_next_driver_and_only_once(tmp_path: Path) -> None:
    spec = a_sweep(AXES, 8, seeds=[0, 1])
    sweep = open_sweep(tmp_path / "known")

    def fails(times: int) -> list[str]:
        """A driver under which this many trials fail, and which then stops; its trials."""
        with Ledger.open(sweep) if sweep.has_ledger() else Ledger.create(sweep) as ledger:
            engine = Engine(ledger, spec)
            decider, failed = engine.begin(), []
            for _ in range(times):
                name = engine.next_trial("lane-0")
                assert name is not None
                decider.end(name, "failed", "it fails")
                failed.append(name)
            driver = Drive(spec, engine.record, Console(), sweep, {})
            said.append(driver._try_again([engine.history.trials[name] for name in failed]))
        return failed

    said: list[str] = []
    first = fails(3)
    assert "3 trials of these will be tried again, once" in said[0]
    history = History.of(Ledger.read(sweep))
    assert [history.trials[name].status for name in first] == ["waiting"] * 3 and not history.done
    assert all(history.trials[name].ended is None for name in first)
    second = fails(4)
    assert second[:3] == first, "before any other"
    assert "1 trial of these" in said[1]
    history = drive(sweep, spec)
    assert history.done and history.counts()["failed"] == 3, "they had their second try"
    assert history.trials[second[3]].status != "failed"
    again = History.of(Ledger.read(sweep))
    assert again.trials == history.trials


def test_drivers_that_end_early_count_on_where_the_last_one_was(tmp_path: Path) -> None:
    """Each driver is interrupted after two trials, fewer than make a streak."""
    spec = a_sweep(AXES, 12, failures_in_a_row=5)
    sweep = open_sweep(tmp_path / "known")

    def driver(reasons: list[str | None]) -> tuple[int, str | None]:
        """How many trials the streak begins with, and why the driver stops, if it does."""
        with Ledger.open(sweep) if sweep.has_ledger() else Ledger.create(sweep) as ledger:
            engine = Engine(ledger, spec)
            decider, drive = engine.begin(), Drive(spec, engine.record, Console(), sweep, {})
            streak = drive._streak()
            began = len(streak.trials)
            decider._on_end = streak.add
            for reason in reasons:
                name = engine.next_trial("lane-0")
                assert name is not None and streak.reason is None
                decider.end(name, "failed" if reason else "finished", reason)
            if streak.reason is not None:
                drive._try_again(streak.trials)
            return began, streak.reason

    assert driver(["it breaks", GONE.format(1)]) == (0, None)
    assert driver([GONE.format(2), GONE.format(3)]) == (1, None)
    began, said = driver([GONE.format(4), GONE.format(5)])
    assert began == 3 and said is not None and said.startswith("5 trials in a row failed alike")
    # These five are tried again. The one before them failed otherwise, and has its second try left.
    assert driver([GONE.format(6)] * 4) == (1, None)
    assert driver([GONE.format(7), GONE.format(8)]) == (1, None), "no second failure counts"
    assert driver([None]) == (1, None), "this one worked"
    assert driver([]) == (0, None)
    history = History.of(Ledger.read(sweep))
    assert list(history.ends)[-1] == list(history.trials)[7] and len(history.ends) == 8


def test_a_retry_of_what_did_not_fail_changes_nothing(tmp_path: Path) -> None:
    history = drive(tmp_path / "known", a_sweep(AXES, 2))
    before = {name: trial.status for name, trial in history.trials.items()}
    with Ledger.open(tmp_path / "known") as ledger:
        Recorder(ledger, history)("retry", trials=[*before, "ffffffff"])
    assert {name: trial.status for name, trial in history.trials.items()} == before
