"""SIGKILL at any moment, then `raykd resume`: nothing lost, nothing twice, curves as if uninterrupted."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from command import SMALL, raykd, start

from raykd.history import ENDED, History
from raykd.ledger import LEDGER, Ledger
from raykd.spec import SweepSpec
from trainables.loop import EpochReport, Workspace, train
from trainables.trial import TrialSpec

pytestmark = pytest.mark.ray

TIMING = ("images_per_s", "train_s")


def kill_when(folder: Path, process: object, kind: str, count: int, seconds: float = 120) -> int:
    """SIGKILL the driver as soon as its ledger holds `count` records of a kind. Returns how many it had."""
    deadline = time.monotonic() + seconds
    found = 0
    while time.monotonic() < deadline and process.poll() is None:  # type: ignore[attr-defined]
        if (folder / LEDGER).exists():
            found = sum(record["kind"] == kind for record in Ledger.read(folder))
        if found >= count:
            os.kill(process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
            process.wait()  # type: ignore[attr-defined]
            return found
        time.sleep(0.003)
    raise AssertionError(f"{count} records of {kind} never came: {(folder.parent / 'out.txt').read_text()}")


def alone(trial: TrialSpec, workspace: Workspace) -> dict[int, dict[str, float]]:
    """The curve of a trial that is trained by itself, without an engine."""
    import torch

    torch.set_num_threads(1)
    curve: dict[int, dict[str, float]] = {}

    def keep(said: EpochReport) -> bool:
        curve[said.epoch] = dict(said.metrics)
        return True

    train(trial, keep, workspace)
    return curve


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in TIMING}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep, killed before its first report, twice in the middle, and in a write; then resumed."""
    storage = tmp_path_factory.mktemp("killed")
    spec = storage / "small.yaml"
    spec.write_text(SMALL.replace("samples: 4", "samples: 5"))
    out = storage / "out.txt"
    folder = storage / "small"
    kill_when(folder, start("run", spec, "--storage", storage, output=out), "suggest", 1)
    moments = random.Random(time.time_ns())
    reports = 0
    for least, most in ((1, 4), (1, 5)):
        resumed = start("resume", "small", "--storage", storage, output=out)
        reports = kill_when(folder, resumed, "report", reports + moments.randint(least, most))
    with (folder / LEDGER).open("ab") as ledger:
        ledger.write(b'00000000 {"kind":"report","time":1.0,"tri')  # the write that the kill interrupted
    status = json.loads(raykd("status", "small", "--storage", storage, "--json").stdout)
    assert status["state"] == "interrupted" and status["driver"] is None
    last = raykd("resume", "small", "--storage", storage)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "ledger.cut-" in last.stdout, "the damaged tail is said"
    return folder


def test_every_trial_once_and_every_curve_continuous(killed: Path) -> None:
    records = Ledger.read(killed)
    history = History.of(records)
    assert len(history.trials) == 5 and history.done
    ends = [r["trial"] for r in records if r["kind"] == "end"]
    assert sorted(ends) == sorted(history.trials), "each trial ends exactly once"
    reports = [(r["trial"], r["epoch"]) for r in records if r["kind"] == "report"]
    assert len(reports) == len(set(reports)), "no epoch is recorded twice"
    for trial in history.trials.values():
        assert list(trial.reports) == list(range(1, trial.epoch + 1))
        assert trial.status in ENDED and trial.attempts >= 1
        assert set(trial.verdicts) == set(trial.reports), "each epoch was judged"
    assert set(history.references) == {"raw_pixels", "untrained", "teacher", "baseline"}


def test_each_curve_is_that_of_the_same_configuration_alone(killed: Path, tmp_path: Path) -> None:
    history = History.of(Ledger.read(killed))
    spec = SweepSpec.model_validate(history.spec)
    interrupted = [t for t in history.trials.values() if t.attempts > 1] or list(history.trials.values())
    whole = max(interrupted, key=lambda t: t.epoch)
    trial = spec.trial(whole.params, whole.replicate)
    workspace = Workspace(tmp_path / "alone", Path(os.environ["RAYKD_CACHE"]), killed.parent / ".teachers")
    curve = alone(trial, workspace)
    for epoch, metrics in whole.reports.items():
        assert untimed(metrics) == untimed(curve[epoch]), f"epoch {epoch} differs"


def test_sampler_and_rungs_are_what_an_uninterrupted_sweep_would_have(killed: Path) -> None:
    from raykd.judge import Judge
    from raykd.proposer import Proposer

    history = History.of(Ledger.read(killed))
    spec = SweepSpec.model_validate(history.spec)
    proposer = Proposer(spec, samples=history.samples)
    proposer.replay(history)
    assert not proposer.running
    judge = Judge(spec.scheduler, spec.epochs)
    for trial, epoch in history.arrivals:
        record = history.trials[trial]
        go = judge.judge(trial, record.number, epoch, record.reports[epoch].get("score"))
        assert record.verdicts[epoch] == ("go" if go else "stop"), (
            "a verdict that an unbroken judge would not give"
        )


def test_a_kill_after_any_record_loses_no_end(killed: Path, tmp_path: Path) -> None:
    """Whatever record was the last, the next driver settles what the scheduler had decided, and only that."""
    from raykd.judge import Judge, TuneJudge
    from raykd.proposer import Proposer
    from raykd.recorder import Recorder

    class Deaf:
        """In place of the mailbox, which a driver that only settles has nothing to ask."""

        def __getattr__(self, name: str) -> Deaf:
            return self

        def remote(self, *_: object) -> None: ...

    records = Ledger.read(killed)
    final = History.of(records)
    spec = SweepSpec.model_validate(final.spec)
    for cut in range(2, len(records), 3):
        history = History.of(records[:cut])
        stopped = [t.trial for t in history.trials.values() if "stop" in t.verdicts.values()]
        proposer = Proposer(spec, samples=history.samples)
        proposer.replay(history)
        with Ledger.create(tmp_path / str(cut)) as ledger:
            judge = Judge(spec.scheduler, spec.epochs)
            TuneJudge(judge, Recorder(ledger, history), proposer, Deaf(), spec.epochs).catch_up()
        for name in stopped:
            assert history.trials[name].status == final.trials[name].status, f"after record {cut}"
        for trial in history.trials.values():
            assert set(trial.verdicts) == set(trial.reports)


def test_a_second_driver_is_refused_while_one_is_at_work(tmp_path: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL)
    first = start("run", spec, "--storage", tmp_path, output=tmp_path / "out.txt")
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "small" / LEDGER).exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        second = raykd("resume", "small", "--storage", tmp_path)
        assert second.returncode == 2 and str(first.pid) in second.stderr, second.stderr
        status = json.loads(raykd("status", "small", "--storage", tmp_path, "--json").stdout)
        assert status["state"] == "running" and status["driver"]["pid"] == first.pid
    finally:
        first.send_signal(signal.SIGINT)
        first.wait(60)
