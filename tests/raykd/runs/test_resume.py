"""SIGKILL at any moment, then `raykd resume`: nothing lost, nothing twice, curves as if uninterrupted."""

from __future__ import annotations

import json
import os
import random
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command import SMALL, raykd
from invariants import all_gone, check
from kills import Sweep
from tracker_stores import mlflow_runs, wandb_runs

from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger
from raykd.spec.search import SearchSpec
from trainables.spec.trial import TrialSpec
from trainables.training.loop import train
from trainables.training.workspace import EpochReport, Workspace

pytestmark = pytest.mark.ray

TRACKERS = ("mlflow", "wandb")
TIMING = ("images_per_s", "train_s")


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
    """A sweep that is killed in the middle and in a write; then resumed.

    While its first driver is at work, a second one is refused.
    """
    told = f"track: [{', '.join(name for name in TRACKERS if find_spec(name))}]\n"
    text = SMALL.replace("samples: 4", "samples: 5") + told
    sweep = Sweep(tmp_path_factory.mktemp("killed"), "small", text)
    storage, moments = sweep.storage, random.Random(time.time_ns())
    first = sweep.go_on()
    assert sweep.wait(lambda h: bool(h.sweep)), sweep.text()
    second = raykd("resume", "small", "--storage", storage)  # while the lanes of the first one start
    assert second.returncode == 2 and str(first.pid) in second.stderr, "one driver at a time"
    status = json.loads(raykd("status", "small", "--storage", storage, "--json").stdout)
    assert status["state"] == "running" and status["driver"]["pid"] == first.pid
    reports = moments.randint(1, 5)
    assert sweep.wait(lambda h: len(h.arrivals) >= reports), sweep.text()
    sweep.kill()
    with (sweep.folder / LEDGER).open("ab") as ledger:
        ledger.write(b'00000000 {"kind":"report","time":1.0,"tri')  # the write that the kill interrupted
    status = json.loads(raykd("status", "small", "--storage", storage, "--json").stdout)
    assert status["state"] == "interrupted" and status["driver"] is None
    last = raykd("resume", "small", "--storage", storage)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "ledger.cut-" in last.stdout + last.stderr, "the damaged tail is said"
    all_gone(sweep.mark)
    return sweep.folder


def kill_when(sweep: Sweep, condition: Any, later: float = 0.0) -> None:
    """Start the sweep's driver, or the next one, and SIGKILL it `later` seconds after its ledger says so."""
    sweep.go_on()
    assert sweep.wait(condition), sweep.text()
    time.sleep(later)
    sweep.kill()


def test_every_trial_once_and_every_curve_continuous(killed: Path) -> None:
    history = check(killed)
    assert len(history.trials) == 5
    assert set(history.references) == {"raw_pixels", "untrained", "teacher", "baseline"}
    assert history.counts()["failed"] == 0


@pytest.mark.parametrize("tracker", TRACKERS)
def test_the_trackers_hold_each_trial_and_reference_once(killed: Path, tracker: str) -> None:
    """As the ledger has them, after a kill and a resume."""
    pytest.importorskip(tracker, reason=f"needs `pip install raykd[{tracker}]`")
    history = History.of(Ledger.read(killed))
    found: dict[str, tuple[str, dict[int, float]]] = {}  # trial | reference -> status and scores
    if tracker == "mlflow":
        runs = mlflow_runs(f"sqlite:///{killed}/tracking/mlflow.db", "small")
        for run in runs.values():
            tags, scores = run["tags"], run["metrics"].get("last", [])
            name = tags.get("raykd.trial") or tags["raykd.reference"]
            found[name] = tags["raykd.status"], {step: value for step, _, value in scores}
    else:
        runs = wandb_runs(killed / "tracking" / "wandb")
        for run in runs.values():
            facts, epochs = run["config"]["raykd"], run["epochs"]
            name = facts.get("trial") or facts["reference"]
            found[name] = run["summary"]["status"], {step: row["last"] for step, row in epochs if step}
    assert len(found) == len(runs) and set(found) == {*history.trials, *history.references}
    for name, trial in history.trials.items():
        assert found[name] == (trial.status, {epoch: m["score"] for epoch, m in trial.reports.items()})
    assert "cannot be written" not in (killed / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_a_driver_killed_at_random_moments(number: int, tmp_path: Path) -> None:
    """Five kills a sweep: one in its first seconds, three at any time, one in its last second."""
    seed = time.time_ns()
    print("seed", seed)
    moments = random.Random(seed)
    scheduler = "asha" if number % 2 else "hyperband"
    spec = SMALL.replace("name: asha", f"name: {scheduler}").replace("lanes: 1", "lanes: 2")
    sweep = Sweep(tmp_path, "small", spec)
    sweep.go_on()
    time.sleep(moments.uniform(0, 4))
    sweep.kill()
    for _ in range(3):
        # A third of them before a lane is warm; for the others a driver lives until it has made some headway.
        headway = len(sweep.history.arrivals) + moments.choice([0, 1, 3])
        kill_when(sweep, lambda h, headway=headway: len(h.arrivals) >= headway, moments.uniform(0, 2))
    kill_when(sweep, lambda h: h.done, moments.uniform(0, 1))
    last = raykd("resume", "small", "--storage", tmp_path)
    assert last.returncode == 0, last.stdout + last.stderr
    all_gone(sweep.mark)
    assert check(sweep.folder).counts()["failed"] == 0


def test_each_curve_is_that_of_the_same_configuration_alone(killed: Path, tmp_path: Path) -> None:
    history = History.of(Ledger.read(killed))
    spec = SearchSpec.model_validate(history.spec)
    interrupted = [t for t in history.trials.values() if t.attempts > 1] or list(history.trials.values())
    whole = max(interrupted, key=lambda t: t.epoch)
    trial = spec.trial(whole.params, whole.replicate)
    workspace = Workspace(tmp_path / "alone", Path(os.environ["RAYKD_CACHE"]), killed.parent / ".teachers")
    curve = alone(trial, workspace)
    for epoch, metrics in whole.reports.items():
        assert untimed(metrics) == untimed(curve[epoch]), f"epoch {epoch} differs"


def test_a_kill_after_any_record_loses_no_end(killed: Path, tmp_path: Path) -> None:
    """Whatever record was the last, the next driver settles what the scheduler had decided, and only that."""
    from raykd.records.recorder import Recorder
    from raykd.searching.decisions import Decider, TuneDecider
    from raykd.searching.proposer import Proposer

    class Deaf:
        """In place of the broker, which a driver that only settles has nothing to ask."""

        def __getattr__(self, name: str) -> Deaf:
            return self

        def remote(self, *_: object) -> None: ...

    records = Ledger.read(killed)
    final = History.of(records)
    spec = SearchSpec.model_validate(final.spec)
    for cut in range(2, len(records), 3):
        history = History.of(records[:cut])
        stopped = [t.trial for t in history.trials.values() if "stop" in t.verdicts.values()]
        proposer = Proposer(spec, samples=history.samples)
        proposer.replay(history)
        with Ledger.create(tmp_path / str(cut)) as ledger:
            decider = Decider(spec.scheduler, spec.epochs)
            TuneDecider(decider, Recorder(ledger, history), proposer, Deaf(), spec.epochs).catch_up()
        for name in stopped:
            assert history.trials[name].status == final.trials[name].status, f"after record {cut}"
        for trial in history.trials.values():
            assert set(trial.verdicts) == set(trial.reports)
