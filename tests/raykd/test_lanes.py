"""Lanes on a real Ray: warm groups, deaths of every part, growth with the cluster, nothing left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raykd.cluster import connected, quiet
from raykd.mailbox import Message, Task
from raykd.spec import WorkersSpec
from trainables.errors import UserError
from trainables.trial import ModelSpec, TrialSpec

ACTIONS = {name: f"quick:{name}" for name in ("count", "nothing", "die", "stumble", "train_and_weigh")}
TRIAL = TrialSpec(method="none", config={"gamma": 1.0}, student=ModelSpec(arch="none"), epochs=5)


def until(condition: Callable[[], Any], seconds: float = 60, said: str = "") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain {said}"
        time.sleep(0.05)
    return found


@contextmanager
def pool_of(tmp_path: Path, workers: WorkersSpec, limit: int) -> Iterator[Any]:
    from raykd.lanes import LanePool

    pool = LanePool(
        workers,
        limit,
        storage=tmp_path / "ray",
        cache=Path(os.environ["RAYKD_CACHE"]),
        teachers=tmp_path / "teachers",
        actions=ACTIONS,
        on_event=lambda text: None,
    )
    pool.start()
    try:
        yield pool
    finally:
        pool.stop()


@pytest.fixture(scope="module")
def ray_here(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        here = str(Path(__file__).parent)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])))
        with connected("local"):
            yield


@pytest.fixture(scope="module")
def pool(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pool_of(tmp_path_factory.mktemp("pool"), WorkersSpec(cpus=1), limit=1) as pool:
        until(lambda: pool.warm == 1)
        yield pool


def task(folder: Path, name: str, action: str = "count", **config: Any) -> Task:
    trial = TRIAL.model_copy(update={"config": {**TRIAL.config, **config}})
    return Task(name, action, [trial.model_dump(mode="json")], str(folder / name))


def run(pool: Any, task: Task) -> list[Message]:
    said: list[Message] = []
    pool.run(task, said.append)
    return said


def test_trials_pass_through_one_warm_group(pool: Any, tmp_path: Path) -> None:
    pids = set()
    for n in range(5):
        said = run(pool, task(tmp_path, f"trial{n}"))
        assert [m.metrics["score"] for m in said] == [2.0, 3.0, 4.0, 5.0, 6.0]
        pids.add((tmp_path / f"trial{n}" / "pid").read_text())
    assert len(pids) == 1


def test_a_stopped_trial_frees_its_lane_at_once(pool: Any, tmp_path: Path) -> None:
    import ray

    box = pool.mailbox
    ray.get(box.post.remote(task(tmp_path, "stopped", pause=0.2)))
    ray.get(box.heard.remote("stopped", 1))
    said = ray.get(box.listen.remote("stopped"))
    began = time.monotonic()
    ray.get([box.judge.remote("stopped", said.epoch, False), box.forget.remote("stopped")])
    run(pool, task(tmp_path, "next"))
    # The stopped trial had four epochs of 0.2 s left; the next one has none of them to wait for.
    assert time.monotonic() - began < 0.7
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
    with pytest.raises(UserError, match="died 2 times"):
        run(pool, doomed)
    assert run(pool, task(tmp_path, "after"))[-1].epoch == 5


def test_a_bug_in_a_trainable_fails_the_trial_with_its_reason(pool: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ZeroDivisionError: a bug in a trainable"):
        run(pool, task(tmp_path, "buggy", "stumble"))
    assert "quick.py" in (tmp_path / "buggy" / "error-rank0.txt").read_text()
    assert run(pool, task(tmp_path, "after"))[-1].epoch == 5


def test_a_killed_controller_costs_no_epoch(pool: Any, tmp_path: Path) -> None:
    import ray

    before = list(pool.state)

    def kill_at_two(message: Message) -> None:
        if message.epoch == 2:
            ray.kill(ray.get(pool.mailbox.take_controller.remote(before[0])))

    said: list[Message] = []
    pool.run(task(tmp_path, "moved", pause=0.2), lambda m: (said.append(m), kill_at_two(m)))  # type: ignore[func-returns-value]
    assert [m.epoch for m in said] == [1, 2, 3, 4, 5]
    until(lambda: pool.warm == 1)
    assert list(pool.state) != before, "a new lane took the trial"


def test_a_group_of_two_workers_is_one_lane(ray_here: None, tmp_path: Path) -> None:
    with pool_of(tmp_path, WorkersSpec(count=2, cpus=0.5), limit=1) as pool:
        until(lambda: pool.warm == 1)
        for name in ("a", "b"):
            assert [m.epoch for m in run(pool, task(tmp_path, name))] == [1, 2, 3, 4, 5]


def test_the_pool_grows_and_shrinks_with_the_cluster(tmp_path: Path) -> None:
    quiet()
    import ray
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        ray.shutdown()
    here = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
        try:
            with connected(cluster.address), pool_of(tmp_path, WorkersSpec(cpus=1), limit=4) as pool:
                until(lambda: pool.warm == 1)
                assert pool.target() == 1
                node = cluster.add_node(num_cpus=1)
                until(lambda: pool.warm == 2, 90, "for the lane on the new node")
                said: list[Message] = []
                trials = [task(tmp_path, name, pause=0.5) for name in ("one", "two")]
                threads = [threading.Thread(target=pool.run, args=(t, said.append)) for t in trials]
                for thread in threads:
                    thread.start()
                until(lambda: len(said) >= 2)
                cluster.remove_node(node, allow_graceful=False)
                until(lambda: len(pool.state) == 1, 90, "for the lost lane to retire")
                for thread in threads:
                    thread.join(90)
                assert sorted(m.epoch for m in said) == sorted(2 * [1, 2, 3, 4, 5]), (
                    "both trials end, each epoch once"
                )
        finally:
            cluster.shutdown()
