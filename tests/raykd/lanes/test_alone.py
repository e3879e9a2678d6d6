"""Which lane takes what while a task has to be alone on its GPU: the rules, without their actor."""

from __future__ import annotations

import pytest

from raykd.lanes import assignments
from raykd.lanes.assignments import Assignments
from raykd.lanes.messages import Task


class Lanes(Assignments):
    """Assignments with lanes of one worker, which ask for a task as soon as they have none."""

    def __init__(self, **gpus: str) -> None:
        super().__init__()
        for lane, gpu in gpus.items():
            self.place(lane, 0, 1, gpu, f"GPU {gpu}")
            self.register(lane, "g0", 0, 1, "node")
        self.ask()

    def ask(self) -> None:
        """Let every lane without a task ask for one."""
        for lane in self.lanes.values():
            lane.waiting = {0}
        self.assign()

    def want(self, name: str, background: bool = False) -> None:
        """Post a task that goes on from a checkpoint."""
        self.post(Task(name, "train", [], "/nowhere", background=background))

    def crowd(self, name: str) -> None:
        """Let the task run out of memory where it is."""
        lane = self.boxes[name].lane
        assert lane is not None
        self.crowded(lane, name, "g0", "out of memory")
        self.ask()

    def end(self, name: str) -> None:
        """Let the task end, or leave its lane."""
        lane = self.boxes[name].lane
        assert lane is not None
        self.finish(lane, "g0", 0, name, None, None)
        self.ask()

    def leaves(self, name: str, epoch: int) -> bool:
        """Whether the task leaves its lane after this epoch."""
        lane = self.boxes[name].lane
        assert lane is not None
        self.deliver(name, epoch, True)
        left = self.lanes[lane].left == (name, epoch)
        if left:
            self.end(name)
        return left

    @property
    def at_work(self) -> dict[str, tuple[str | None, int]]:
        """Each lane's task, and how many workers share the GPU that it has alone."""
        return {
            name: (lane.work.id, lane.work.alone)
            for name, lane in self.lanes.items()
            if lane.work is not None
        }


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane that has no task takes one of the background at once."""
    monkeypatch.setattr(assignments, "_SPARE_S", 0.0)


# --- a background task -------------------------------------------------------------------------------------


def test_a_baseline_that_has_to_be_alone_makes_no_trial_leave(at_once: None) -> None:
    lanes = Lanes(a="0", b="0")
    lanes.want("t1")
    lanes.want("baseline", background=True)
    assert lanes.at_work == {"a": ("t1", 0), "b": ("baseline", 0)}
    lanes.crowd("baseline")
    assert lanes.at_work == {"a": ("t1", 0)}, "it waits for the whole GPU"
    assert not any(lanes.leaves("t1", epoch) for epoch in range(1, 9))
    lanes.want("t2")
    assert lanes.at_work == {"a": ("t1", 0), "b": ("t2", 0)}, "no lane is kept free for it"
    lanes.end("t1")
    assert lanes.at_work == {"b": ("t2", 0)}
    lanes.end("t2")
    assert list(lanes.at_work.values()) == [("baseline", 2)]


def test_a_baseline_that_is_alone_leaves_for_a_trial(at_once: None) -> None:
    lanes = Lanes(a="0", b="0")
    lanes.want("baseline", background=True)
    lanes.crowd("baseline")
    assert list(lanes.at_work.values()) == [("baseline", 2)]
    assert not lanes.leaves("baseline", 1), "nobody waits"
    lanes.want("t1")
    lanes.want("t2")
    assert lanes.leaves("baseline", 2)
    assert sorted(lanes.at_work.values()) == [("t1", 0), ("t2", 0)]


def test_a_baseline_that_is_alone_leaves_for_a_trial_that_has_to_be(at_once: None) -> None:
    lanes = Lanes(a="0", b="0")
    lanes.want("t1")
    lanes.want("baseline", background=True)
    lanes.crowd("baseline")
    lanes.crowd("t1")
    assert list(lanes.at_work.values()) == [("t1", 2)]
    lanes.end("t1")
    assert list(lanes.at_work.values()) == [("baseline", 2)]


def test_a_baseline_stays_where_the_waiting_trial_may_not_go(at_once: None) -> None:
    lanes = Lanes(a="0", b="0", c="1", d="1")
    for name in ("t1", "t2", "t3"):
        lanes.want(name)
    lanes.want("baseline", background=True)
    lanes.crowd("baseline")
    lanes.end("t3")
    assert lanes.at_work["c"] == ("baseline", 2) or lanes.at_work["d"] == ("baseline", 2)
    lanes.crowd("t1")
    assert not lanes.leaves("baseline", 1), "the trial waits for another GPU"
    assert lanes.leaves("t2", 1), "where it is kept free"
    assert ("t1", 2) in lanes.at_work.values()
    assert lanes.leaves("baseline", 2) and ("t2", 0) in lanes.at_work.values()


def test_a_gpu_is_not_taken_for_a_baseline_while_a_trial_may_be_about_to_come() -> None:
    lanes = Lanes(a="0", b="0")
    lanes.trials_over = True
    lanes.want("baseline", background=True)
    lanes.trials_over = False
    lane = lanes.boxes["baseline"].lane
    lanes.crowd("baseline")
    assert lanes.at_work == {}
    for name, state in lanes.lanes.items():
        state.free_since -= 60 if name == lane else 0
    lanes.assign()
    assert lanes.at_work == {}, "the other lane has only just become free"
    for state in lanes.lanes.values():
        state.free_since -= 60
    lanes.assign()
    assert list(lanes.at_work.values()) == [("baseline", 2)]


# --- a GPU that has gone -----------------------------------------------------------------------------------


def six(*trials: str) -> Lanes:
    """Two lanes on each of three GPUs, with these trials."""
    lanes = Lanes(a="0", b="0", c="1", d="1", e="2", f="2")
    for name in trials:
        lanes.want(name)
    return lanes


def test_a_trial_whose_gpu_has_gone_keeps_one_other_gpu_free() -> None:
    lanes = six("t1", "t2", "t3", "t4", "t5", "t6")
    lanes.crowd("t1")
    lanes.lost("a")
    assert lanes.boxes["t1"].alone_on == {"0"}, "a lane is still there"
    lanes.lost("b")
    (gpu,) = lanes.boxes["t1"].alone_on
    here, far = (("t3", "t4"), ("t5", "t6")) if gpu == "1" else (("t5", "t6"), ("t3", "t4"))
    assert not any(lanes.leaves(name, 1) for name in far)
    lanes.end(far[0])
    assert len(lanes.at_work) == 4, "a lane that is free elsewhere takes the next trial"
    assert all(lanes.leaves(name, 1) for name in here)
    assert ("t1", 2) in lanes.at_work.values() and len(lanes.at_work) == 3


def test_a_trial_whose_gpu_has_gone_goes_where_fewest_are_at_work() -> None:
    lanes = six("t1", "t2", "t3", "t4", "t5")
    lanes.crowd("t1")
    assert "f" not in lanes.at_work
    lanes.lost("a")
    lanes.lost("b")
    assert lanes.boxes["t1"].alone_on == {"2"}
    assert not lanes.leaves("t3", 1) and lanes.leaves("t5", 1)
    assert ("t1", 2) in lanes.at_work.values()


@pytest.mark.parametrize("why", ["closing", "quarantine"])
def test_a_trial_waits_for_no_gpu_that_takes_no_tasks_any_more(why: str) -> None:
    lanes = six("t1", "t2", "t3", "t4", "t5", "t6")
    lanes.crowd("t1")
    for lane in "ab":
        lanes.lanes[lane].closing = why == "closing"
    if why == "quarantine":
        lanes.gpu_failed("b", 0, "torch sees no GPU there", "t2", "g0", True)
    lanes.assign()
    assert lanes.boxes["t1"].alone_on in ({"1"}, {"2"})


def test_a_trial_that_no_lane_is_left_for_is_like_all_others() -> None:
    lanes = Lanes(a="0", b="0")
    lanes.want("t1")
    lanes.want("t2")
    lanes.crowd("t1")
    lanes.lost("a")
    lanes.lost("b")
    assert not lanes.boxes["t1"].alone_on
    for lane in "cd":
        lanes.place(lane, 0, 1, "1", "GPU 1")
        lanes.register(lane, "g0", 0, 1, "node")
    lanes.ask()
    assert sorted(lanes.at_work.values()) == [("t1", 0), ("t2", 0)]
    lanes.crowd("t1")
    assert lanes.leaves("t2", 1) and list(lanes.at_work.values()) == [("t1", 2)]
