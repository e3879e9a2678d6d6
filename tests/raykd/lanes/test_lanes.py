"""Lanes on a real Ray: warm groups, deaths of every part, nothing left behind from trial to trial."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pools import pool_of, quick_importable, run, task, until

from raykd.lanes.cluster import LOCAL, connected, on_loopback
from raykd.lanes.messages import Message, Task
from raykd.spec.sections import WorkersSpec
from trainables.core.errors import SweepFailed, UserError
from trainables.training.resolve import resolve

pytestmark = pytest.mark.ray(second=True)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with quick_importable(), connected(LOCAL):
        yield


@pytest.fixture(scope="module")
def pool(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pool_of(tmp_path_factory.mktemp("pool"), WorkersSpec(cpus=1), limit=1) as pool:
        until(lambda: pool.warm == 1)
        yield pool


def test_trials_pass_through_one_warm_group(pool: Any, tmp_path: Path) -> None:
    pids = set()
    for n in range(5):
        said = run(pool, task(tmp_path, f"trial{n}"))
        assert [m.metrics["score"] for m in said] == [2.0, 3.0, 4.0, 5.0, 6.0]
        pids.add((tmp_path / f"trial{n}" / "pid").read_text())
    assert len(pids) == 1


def test_the_task_broker_is_not_the_first_to_go_when_memory_is_short(pool: Any, tmp_path: Path) -> None:
    def willing(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    run(pool, task(tmp_path, "one"))
    found = [p for p in psutil.process_iter() if p.name().startswith("ray::TaskBroker")]
    (broker,) = [p for p in found if p.environ().get("RAY_TMPDIR") == os.environ["RAY_TMPDIR"]]
    worker = int((tmp_path / "one" / "pid").read_text())
    assert willing(broker.pid) == willing(broker.ppid()) < willing(worker)


def test_a_stopped_trial_frees_its_lane_at_once(pool: Any, tmp_path: Path) -> None:
    import ray

    box = pool.broker
    ray.get(box.post.remote(task(tmp_path, "stopped", pause=1.5)))
    ray.get(box.heard.remote("stopped", 1))
    said = ray.get(box.listen.remote("stopped"))
    began = time.monotonic()
    ray.get([box.deliver.remote("stopped", said.epoch, False), box.forget.remote("stopped")])
    run(pool, task(tmp_path, "next"))
    # The stopped trial had four epochs of 1.5 s left; the next one has none of them to wait for.
    assert time.monotonic() - began < 4
    assert (tmp_path / "stopped" / "epoch").read_text() == "1"


def test_a_killed_worker_goes_on_where_it_was(pool: Any, tmp_path: Path) -> None:
    killed = []

    def kill_at_three(message: Message) -> None:
        if message.epoch == 3 and not killed:
            killed.append(int((tmp_path / "killed" / "pid").read_text()))
            os.kill(killed[0], signal.SIGKILL)

    said: list[Message] = []
    pool.run(task(tmp_path, "killed", pause=0.3), lambda m: (said.append(m), kill_at_three(m)))  # type: ignore[func-returns-value]
    assert said[-1].epoch == 5
    assert [m.epoch for m in said] == sorted({m.epoch for m in said}), "an epoch was heard twice"
    starts = (tmp_path / "killed" / "starts").read_text().split()
    assert len(starts) == 2 and int(starts[1]) >= 3, starts
    assert int((tmp_path / "killed" / "pid").read_text()) != killed[0]


def test_a_trial_that_kills_its_worker_is_given_up_and_the_lane_lives(pool: Any, tmp_path: Path) -> None:
    doomed = task(tmp_path, "doomed", "die")
    doomed = Task(doomed.id, doomed.action, doomed.trials, doomed.folder, attempts=2)
    with pytest.raises(SweepFailed, match=r"given up after 2 tries.* killed"):
        run(pool, doomed)
    assert run(pool, task(tmp_path, "after"))[-1].epoch == 5


def test_a_bug_in_a_trainable_fails_the_trial_with_its_reason(pool: Any, tmp_path: Path) -> None:
    with pytest.raises(SweepFailed, match="ZeroDivisionError: a bug in a trainable"):
        run(pool, task(tmp_path, "buggy", "stumble"))
    assert "quick.py" in (tmp_path / "buggy" / "error-rank0.txt").read_text()
    assert run(pool, task(tmp_path, "after"))[-1].epoch == 5


def test_what_the_data_shows_to_be_a_user_s_mistake_is_told_as_one(pool: Any, tmp_path: Path) -> None:
    """And so nobody is told to go on with a sweep that would end there again."""
    with pytest.raises(
        UserError, match=r"^config\.anchors_per_class: too many: .* Expected at most 5\.$"
    ) as told:
        run(pool, task(tmp_path, "wrong", "refuse"))
    assert (told.value.field, told.value.value, told.value.expected) == (
        "config.anchors_per_class",
        9,
        "at most 5",
    ), "all of it has passed through the broker"


def test_asking_for_too_much_memory_fails_the_trial_and_not_its_lane(pool: Any, tmp_path: Path) -> None:
    for what, asked in (("torch", "4194304.0 GiB"), ("numpy", "8.00 PiB")):
        with pytest.raises(SweepFailed, match=f"out of memory with optim.batch_size 128: .* {asked}"):
            run(pool, task(tmp_path, what, "ask_for", what=what))
    said = run(pool, task(tmp_path, "after"))
    assert said[-1].epoch == 5 and len(pool.state) == 1


def test_a_killed_controller_costs_no_epoch(pool: Any, tmp_path: Path) -> None:
    import ray

    before = list(pool.state)

    def kill_at_two(message: Message) -> None:
        if message.epoch == 2:
            ray.kill(ray.get(pool.broker.take_controller.remote(before[0])))

    said: list[Message] = []
    pool.run(task(tmp_path, "moved", pause=0.2), lambda m: (said.append(m), kill_at_two(m)))  # type: ignore[func-returns-value]
    assert [m.epoch for m in said] == [1, 2, 3, 4, 5]
    until(lambda: pool.warm == 1)
    assert list(pool.state) != before, "a new lane took the trial"


@pytest.mark.parametrize("others", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_trial_leaves_nothing_behind(others: int, pool: Any, tmp_path: Path) -> None:
    """The same real trial gives the same bits first and after others, and memory stays flat over fifty."""

    def real(name: str, seed: int) -> list[Message]:
        trial = resolve(
            {
                "method": "moco",
                "preset": "digits",
                "student": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5}},
                "data": {"name": "digits", "image_size": 16},
                "probe": {"record": [], "every": 2},
                "epochs": 2,
                "seed": seed,
            }
        )
        said = run(pool, Task(name, "train_and_weigh", [trial.model_dump(mode="json")], str(tmp_path / name)))
        shutil.rmtree(tmp_path / name / "checkpoints")
        return said

    def bits(said: list[Message]) -> list[dict[str, float]]:
        timing = ("rss_mib", "images_per_s", "train_s")
        return [{k: v for k, v in m.metrics.items() if k not in timing} for m in said]

    first = bits(real("first", seed=0))
    memory = [real(f"other{n}", seed=n + 1)[-1].metrics["rss_mib"] for n in range(others)]
    assert bits(real("again", seed=0)) == first
    if others < 50:
        return
    early, late = statistics.median(memory[5:15]), statistics.median(memory[-10:])
    assert late - early < 20, f"{late - early:.0f} MiB more after 40 trials: {memory}"


def test_a_group_of_two_workers_is_one_lane(ray_here: None, tmp_path: Path) -> None:
    held = _held()  # by the pool of the other tests
    with pool_of(tmp_path, WorkersSpec(count=2, cpus=0.5, hang_after=5), limit=1) as pool:
        until(lambda: pool.warm == 1)
        for name, action in (("a", "count"), ("b", "count_together")):
            assert [m.epoch for m in run(pool, task(tmp_path, name, action))] == [1, 2, 3, 4, 5]
        _all_listen_on_loopback_alone()

        def kill_one_rank(message: Message) -> None:
            if message.epoch == 2:
                os.kill(int((tmp_path / "c" / "pid").read_text()), signal.SIGKILL)

        said: list[Message] = []
        slow = task(tmp_path, "c", "count_together", pause=0.3)
        pool.run(slow, lambda m: (said.append(m), kill_one_rank(m)))  # type: ignore[func-returns-value]
        assert [m.epoch for m in said] == [1, 2, 3, 4, 5], "one dead rank restarts the group"
    until(lambda: _held() == held)


@pytest.mark.slow
def test_one_rank_of_a_group_spoils_runs_out_of_memory_or_hangs(ray_here: None, tmp_path: Path) -> None:
    with pool_of(tmp_path, WorkersSpec(count=2, cpus=0.5, hang_after=5), limit=1) as pool:
        until(lambda: pool.warm == 1)
        # A damaged image is decoded again by a group that starts again; the other rank waits in a collective.
        assert [m.epoch for m in run(pool, task(tmp_path, "spoilt", "spoil"))] == [1, 2, 3, 4, 5]
        starts = (tmp_path / "spoilt" / "starts").read_text().split()
        assert len(starts) == 4 and set(starts[2:]) in ({"2"}, {"3"}), "both ranks, from the checkpoint"

        # What asks for more memory than there is would do so again.
        with pytest.raises(SweepFailed, match="ask_for: out of memory with"):
            run(pool, task(tmp_path, "greedy", "ask_for", what="torch"))
        assert run(pool, task(tmp_path, "d"))[-1].epoch == 5

        # One rank stops answering, and on the second try goes round in circles; the other one waits for it.
        said: list[Message] = []
        stuck = dataclasses.replace(task(tmp_path, "stuck", "hang"), attempts=2)
        with pytest.raises(SweepFailed, match=r"2 tries.*no progress for \d+ s, last seen at epoch 3"):
            pool.run(stuck, said.append)
        assert [m.epoch for m in said] == [1, 2]
        starts = (tmp_path / "stuck" / "starts").read_text().split()
        assert starts == ["0", "0", "3", "3"], "both ranks went on from the checkpoint"
        assert not psutil.pid_exists(int((tmp_path / "stuck" / "stopped").read_text()))


def _all_listen_on_loopback_alone() -> None:
    """The sockets of a local Ray, its lanes, and two workers that have trained together."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    assert on_loopback() and is_token_auth_enabled()
    listeners = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for socket in process.net_connections("inet"):
                if socket.status == psutil.CONN_LISTEN:
                    listeners[socket.laddr] = " ".join(process.cmdline()[:4])
    assert len(listeners) > 8, "Ray has more than that"
    open_to_others = {at: who for at, who in listeners.items() if not at.ip.endswith("127.0.0.1")}
    assert not open_to_others, open_to_others


def _held() -> set[str]:
    """The placement groups that hold resources, or wait for some."""
    import ray

    groups = ray.util.placement_group_table()
    return {name for name, group in groups.items() if group["state"] != "REMOVED"}
