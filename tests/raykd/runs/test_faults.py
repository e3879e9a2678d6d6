"""Parts of a live sweep die, and trials go bad; the sweep ends as if the others knew nothing of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from invariants import all_gone, check
from kills import Sweep

from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.searching.proposer import Proposer
from raykd.spec.search import SearchSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# One lane, so that trials come one after the other; each point is one of the faults.
FAULTS = """\
name: faults
method: disco
preset: digits
student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 1}}
data: {name: digits, image_size: 16}
epochs: 12
samples: 6
lanes: 1
references: []
scheduler: {name: none}
axes:
  lr: {log: [1e-4, 1e20]}
  hidden: [64, 96, 128, 4398046511104]
points:
  - {lr: 1e20, hidden: 64}
  - {lr: 1e-3, hidden: 4398046511104}
  - {lr: 1e-3, hidden: 64}
  - {lr: 1e-3, hidden: 96}
  - {lr: 1e-3, hidden: 128}
  - {lr: 2e-3, hidden: 64}
"""
NAN, GREEDY, NO_ACTOR, NO_WORKER, NO_CONTROLLER, LAST = range(6)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path_factory.mktemp("faults"), "faults", FAULTS)
    driver = sweep.go_on()
    try:
        assert sweep.wait(lambda h: _epochs(h, NO_ACTOR) >= 2), sweep.text()
        assert sweep.kill_parts("proxy"), "no Tune actor was at work"
        sweep.wait(lambda h: _epochs(h, NO_ACTOR) >= 5)
        assert sweep.kill_parts("proxy"), "no Tune actor was at work"
        sweep.wait(lambda h: _ended(h, NO_ACTOR))
        sweep.kill_parts("proxy")  # idle, or about to begin the next trial
        sweep.wait(lambda h: _epochs(h, NO_WORKER) >= 3)
        time.sleep(0.1)  # into the next epoch
        assert sweep.kill_parts("worker") == 1
        sweep.wait(lambda h: _epochs(h, NO_CONTROLLER) >= 3)
        assert sweep.kill_parts("controller") == 1
        assert driver.wait(240) == 0, sweep.text()
        yield sweep
    finally:
        if sweep.alive():
            sweep.kill()


def _epochs(history: History, number: int) -> int:
    return max((t.epoch for t in history.trials.values() if t.number == number), default=0)


def _ended(history: History, number: int) -> bool:
    return any(t.ended for t in history.trials.values() if t.number == number)


def _lanes(sweep: Sweep) -> dict[int, list[str]]:
    """The lanes of each trial's attempts."""
    numbers = {trial.trial: trial.number for trial in sweep.history.trials.values()}
    lanes: dict[int, list[str]] = {number: [] for number in numbers.values()}
    for record in Ledger.read(sweep.folder):
        if record["kind"] == "start":
            lanes[numbers[record["trial"]]].append(record["lane"])
    return lanes


def test_the_sweep_ends_whole_and_leaves_nothing(sweep: Sweep) -> None:
    history = check(sweep.folder)
    assert history.counts() == {"finished": 4, "stopped": 0, "failed": 2, "running": 0, "waiting": 0}
    all_gone(sweep.mark)


def test_killed_tune_actors_cost_nothing(sweep: Sweep) -> None:
    lanes = _lanes(sweep)
    assert len(lanes[NO_ACTOR]) == 1, "the same worker went on, at the same epoch"
    assert lanes[LAST] == [lanes[NO_CONTROLLER][-1]]


def test_a_killed_worker_costs_an_epoch_at_most_and_keeps_its_lane(sweep: Sweep) -> None:
    lanes = _lanes(sweep)
    assert lanes[NO_WORKER] == [lanes[NO_ACTOR][0]] * 2


def test_a_killed_controller_moves_its_trial_to_a_new_lane(sweep: Sweep) -> None:
    before, after = _lanes(sweep)[NO_CONTROLLER]
    assert before != after


def test_numbers_gone_bad_fail_their_trial_and_the_sampler_hears_of_it(sweep: Sweep) -> None:
    trial = next(t for t in sweep.history.trials.values() if t.number == NAN)
    assert trial.status == "failed" and trial.reason is not None
    assert "the loss is not finite at epoch 1, step 2/7: total nan" in trial.reason
    assert trial.reason in " ".join(sweep.text().split()), "the user sees it"
    spec = SearchSpec.model_validate(sweep.history.spec)
    proposer = Proposer(spec)
    proposer.replay(sweep.history)
    states = [told.state.name for told in proposer.study.trials]
    assert states == ["FAIL", "FAIL", *["COMPLETE"] * 4]


def test_a_trial_that_asks_for_too_much_memory_fails_with_a_plain_reason(sweep: Sweep) -> None:
    trial = next(t for t in sweep.history.trials.values() if t.number == GREEDY)
    assert trial.status == "failed" and trial.attempts == 1 and trial.reason is not None
    assert trial.reason.startswith("out of memory with optim.batch_size 128: it asked for ")
    lanes = _lanes(sweep)
    assert lanes[GREEDY] == lanes[NAN] == lanes[NO_ACTOR], "the lane goes on"


ALIKE = """\
name: alike
method: disco
preset: digits
student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 1}}
data: {name: digits, image_size: 16}
epochs: 2
samples: 6
lanes: 1
references: []
failures_in_a_row: 2
sampler: random
axes:
  lr: {log: [1e20, 1e22]}
"""


def test_trials_that_fail_alike_stop_a_sweep_which_tries_them_once_more(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    sweep = Sweep(tmp_path_factory.mktemp("alike"), "alike", ALIKE)
    driver = sweep.go_on()
    assert driver.wait(240) == 1, sweep.text()
    said = " ".join(sweep.text().split())
    assert "2 trials in a row failed alike, all on lane-0: the loss is not finite at epoch 1" in said
    assert "2 trials of these will be tried again, once, by the next driver" in said
    assert "raykd resume alike" in said and not sweep.history.done
    assert sweep.history.counts() == {"finished": 0, "stopped": 0, "failed": 0, "running": 0, "waiting": 2}
    assert sweep.go_on().wait(240) == 1
    assert sweep.history.counts()["failed"] == 2, "they failed again, and no other was begun"
    assert "also when they were tried again" in " ".join(sweep.text().split())
    all_gone(sweep.mark)
