"""A ledger that was damaged in the middle goes on, and nothing wrong is computed from it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from histories import AXES, a_sweep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import Engine, drive, score

from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger, parse_lines
from raykd.records.views import repaired
from raykd.runs.kinds import run_of
from raykd.runs.repair import repair
from raykd.spec.search import SearchSpec, build_sweep
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError

SPEC = {
    "name": "sweep",
    "method": "retro",
    "student": {"arch": "test_efficientnet"},
    "teacher": {"arch": "test_resnet", "train": {"method": "moco", "epochs": 2}},
    "epochs": 4,
    "samples": 6,
    "seeds": [0, 1],
    "sampler": {"name": "tpe", "n_startup_trials": 2},
    "scheduler": {"name": "asha", "grace": 1, "factor": 2},
    "axes": {"gamma": {"log": [0.01, 1]}, "adapter": ["linear", "mlp"], "queue_size": [256, 512]},
}


@pytest.fixture(scope="module")
def spec() -> SearchSpec:
    return build_sweep({**SPEC, "warm_start": ["earlier"]})


@pytest.fixture(scope="module")
def whole(spec: SearchSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 6 configurations, extended by 2, 2 seeds each, whose sampler was told of another sweep."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    drive(
        folder.with_name("earlier"),
        build_sweep({**SPEC, "name": "earlier", "samples": 3, "sampler": "random"}),
    )
    drive(folder, spec)
    assert len(History.of(Ledger.read(folder)).earlier.told) == 6  # type: ignore[union-attr]
    history = drive(folder, spec, extend=2)
    assert history.done and len(history.trials) == 16
    return folder


def copy(whole: Path, to: Path, lines: list[bytes]) -> Path:
    folder = to / "sweep"
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    (folder / LEDGER).write_bytes(b"".join(lines))
    return folder


def flipped(line: bytes, where: int) -> bytes:
    return line[:where] + bytes([line[where] ^ 1]) + line[where + 1 :]


def check(folder: Path, before: History) -> History:
    """What holds of every sweep that was run to its end."""
    records = Ledger.read(folder)
    history = History.of(records)
    assert history.done
    for trial in history.trials.values():
        assert list(trial.reports) == list(range(1, trial.epoch + 1)), "no epoch is missing"
        assert {e: m["score"] for e, m in trial.reports.items()} == {
            epoch: score(trial.trial, epoch) for epoch in trial.reports
        }
        assert trial.status == ("finished" if trial.epoch == 4 else "stopped")
        if trial.trial in before.trials:
            assert trial.params == before.trials[trial.trial].params
    ends = [r["trial"] for r in records if r["kind"] == "end"]
    assert sorted(ends) == sorted(history.trials), "each trial ends exactly once"
    numbers = sorted([t.number for t in history.trials.values()] + [r["number"] for r in history.repeats])
    assert numbers == list(range(len(numbers)))
    return history


def test_any_one_damaged_line_costs_no_trial_and_no_number(
    whole: Path, spec: SearchSpec, tmp_path: Path
) -> None:
    before = History.of(Ledger.read(whole))
    lines = (whole / LEDGER).read_bytes().splitlines(keepends=True)
    kinds = [record["kind"] for record in Ledger.read(whole)]
    pick = random.Random(0)
    wanted = {kind: [at for at, k in enumerate(kinds[:-1]) if k == kind] for kind in set(kinds)}
    for kind, places in wanted.items():
        for at in pick.sample(places, min(4, len(places))):
            damaged = list(lines)
            damaged[at] = flipped(lines[at], pick.randrange(len(lines[at]) - 1))
            folder = copy(whole, tmp_path / str(at), damaged)
            with pytest.raises(UserError, match=rf"line {at + 1} is damaged.*resume sweep --repair"):
                Ledger.read(folder)
            said = repair(open_sweep(folder))
            assert said is not None and f"line {at + 1} of the ledger was damaged" in said, said
            (kept,) = folder.glob("ledger.damaged-*")
            assert kept.read_bytes() == b"".join(damaged)
            assert repair(open_sweep(folder)) is None, "once is enough"
            drive(folder, spec)
            after = check(folder, before)
            assert set(after.trials) >= set(before.trials), f"a {kind} was lost"
            assert [r["lines"] for r in after.repairs] == [[at + 1]]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12), block=st.booleans(), gone=st.booleans())
def test_however_many_lines_are_damaged_or_gone_the_sweep_ends_in_order(
    whole: Path,
    spec: SearchSpec,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    count: int,
    block: bool,
    gone: bool,
) -> None:
    before = History.of(Ledger.read(whole))
    lines = (whole / LEDGER).read_bytes().splitlines(keepends=True)
    pick = random.Random(seed)
    start = pick.randrange(2, len(lines))
    places = range(start, min(start + count, len(lines))) if block else pick.sample(range(len(lines)), count)
    if {0, 1} <= set(places) or {2, 3} <= set(places):
        return  # both copies of the head, or of what the sampler was told: refused, below
    damaged: list[bytes] = list(lines)
    for at in places:
        damaged[at] = b"" if gone else flipped(lines[at], pick.randrange(len(lines[at])))
    folder = copy(whole, tmp_path_factory.mktemp("many"), damaged)
    repair(open_sweep(folder))
    history = History.of(Ledger.read(folder))
    run_of(spec).proposer(history)
    drive(folder, spec)
    check(folder, before)


@pytest.mark.parametrize("lost", [("retry",), ("retry", "start"), ("retry", "start", "report", "verdict")])
@pytest.mark.parametrize("gone", [False, True])
def test_a_lost_retry_costs_no_trial_that_went_on(tmp_path: Path, lost: tuple[str, ...], gone: bool) -> None:
    """Three trials fail, are tried again and end well; the `retry`, and what follows it, is damaged."""
    spec, folder = a_sweep(AXES, 6, scheduler={"name": "none"}), tmp_path / "known"
    with Ledger.create(folder) as ledger:
        engine = Engine(ledger, spec)
        decider = engine.begin()
        failed = [name for _ in range(3) if (name := engine.next_trial("lane-0"))]
        for name in failed:
            decider.end(name, "failed", "it fails")
        engine.record("retry", trials=failed)
    before = drive(folder, spec)
    assert before.counts()["finished"] == 6
    records = Ledger.read(folder)
    retry = next(at for at, record in enumerate(records) if record["kind"] == "retry")
    places = {next(at for at in range(retry, len(records)) if records[at]["kind"] == kind) for kind in lost}
    lines = (folder / LEDGER).read_bytes().splitlines(keepends=True)
    for at in places:
        lines[at] = b"" if gone else flipped(lines[at], 20)
    (folder / LEDGER).write_bytes(b"".join(lines))
    said = repair(open_sweep(folder))
    assert said is not None and "taken up again after they had failed" in said, said
    history = History.of(Ledger.read(folder))
    assert sorted(history.repairs[0]["retried"]) == sorted(failed) and all(name in said for name in failed)
    assert history.counts()["failed"] == 0
    assert f"taken up again {', '.join(history.repairs[0]['retried'])}" in repaired(history.repairs[0])
    assert repair(open_sweep(folder)) is None, "once is enough"
    after = drive(folder, spec)
    assert after.done and after.counts() == before.counts()
    curves = [{name: trial.reports for name, trial in one.trials.items()} for one in (before, after)]
    assert curves[0] == curves[1]


@pytest.mark.parametrize(("at", "lost"), [(0, "what is searched"), (2, "what the sampler was told")])
def test_without_its_head_a_ledger_means_nothing(whole: Path, tmp_path: Path, at: int, lost: str) -> None:
    lines = (whole / LEDGER).read_bytes().splitlines(keepends=True)
    for line in (at, at + 1):
        lines[line] = flipped(lines[line], 20)
    folder = copy(whole, tmp_path, lines)
    damaged = (folder / LEDGER).read_bytes()
    with pytest.raises(UserError, match=rf"{lost}.* is lost.*backup"):
        repair(open_sweep(folder))
    assert (folder / LEDGER).read_bytes() == damaged and not list(folder.glob("ledger.damaged-*"))
    Ledger.create(tmp_path / "other").close()  # and a refused repair has let its own lock go


def test_a_repair_waits_for_no_driver(whole: Path, tmp_path: Path) -> None:
    folder = copy(whole, tmp_path, (whole / LEDGER).read_bytes().splitlines(keepends=True))
    with Ledger.open(folder), pytest.raises(UserError, match="is being run by"):
        repair(open_sweep(folder))


@pytest.mark.parametrize("left", [b"", b"\0" * 3000, b'00000000 {"kind":"sweep"}\n'])
def test_an_emptied_ledger_is_not_taken_for_a_new_sweep(whole: Path, tmp_path: Path, left: bytes) -> None:
    folder = copy(whole, tmp_path, [left])
    (folder / "trials").mkdir()
    for verb in (Ledger.read, Ledger.open, Ledger.create):
        with pytest.raises(UserError, match=r"ledger.jsonl holds no whole record, and there are trials"):
            verb(folder)
    assert list(parse_lines((folder / LEDGER).read_bytes())) in ([], [None])
    (folder / LEDGER).unlink()
    with pytest.raises(UserError, match=r"ledger.jsonl is gone, and there are trials"):
        Ledger.create(folder)
