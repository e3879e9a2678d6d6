"""The broker by itself: who gets which task, what is told again after a death, when a task is given up."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pytest

from raykd.lanes import assignments
from raykd.lanes.messages import Message, Task
from raykd.lanes.task_broker import TaskBroker

T = TypeVar("T")
P = ParamSpec("P")


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The test as a plain function."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def box() -> TaskBroker:
    return TaskBroker()


def task(name: str, attempts: int = 3) -> Task:
    return Task(name, "train", [], "/nowhere", attempts)


async def soon(waiting: Awaitable[T]) -> T:
    """The answer to a call that must not block."""
    return await asyncio.wait_for(waiting, 2)


async def blocked(call: asyncio.Task[Any]) -> bool:
    await asyncio.sleep(0.02)
    return not call.done()


async def ask(box: TaskBroker, lane: str, generation: str = "g0", rank: int = 0, turn: int = 0) -> Any:
    call = asyncio.ensure_future(box.next_task(lane, generation, rank, turn))
    await asyncio.sleep(0)
    return call


async def warm(box: TaskBroker, lane: str, generation: str = "g0") -> Any:
    """A lane of one worker that asks for its first task."""
    await box.register(lane, generation, 0, 1, "node")
    return await ask(box, lane, generation)


async def busy(box: TaskBroker) -> int:
    """Lane a, whose worker has taken task t1; the turn it asks for next."""
    waiting = await warm(box, "a")
    await box.post(task("t1"))
    turn, _ = await soon(waiting)
    return int(turn)


@in_a_loop
async def test_a_trial_from_post_to_end(box: TaskBroker) -> None:
    waiting = await warm(box, "a")
    assert await blocked(waiting)
    await box.post(task("t1"))
    turn, given = await soon(waiting)
    assert given.id == "t1"
    assert await soon(box.listen("t1")) == Message(attempt=1, lane="a")
    await box.heard("t1", 1)
    reporting = asyncio.ensure_future(
        box.report("a", "g0", 0, "t1", Message(epoch=1, metrics={"score": 5.0}))
    )
    said = await soon(box.listen("t1"))
    assert (said.epoch, said.metrics) == (1, {"score": 5.0})
    assert await blocked(reporting), "a worker must wait for the verdict"
    await box.deliver("t1", 1, False)
    assert await soon(reporting) is False
    await box.finish("a", "g0", 0, "t1", None)
    assert (await soon(box.listen("t1"))).ended
    await box.forget("t1")
    again = await ask(box, "a", turn=turn)
    await box.post(task("t2"))
    assert (await soon(again))[1].id == "t2"


@in_a_loop
async def test_a_report_that_nobody_decided_on_is_told_again(box: TaskBroker) -> None:
    await busy(box)
    await box.heard("t1", 1)
    reporting = asyncio.ensure_future(box.report("a", "g0", 0, "t1", Message(epoch=3)))
    first = await soon(box.listen("t1"))  # this proxy dies before the driver hears
    await box.post(task("t1"))  # its successor posts the same task
    assert await soon(box.listen("t1")) == first
    await box.deliver("t1", 3, True)
    assert await soon(reporting) is True
    # A worker that resumed from a checkpoint repeats an epoch: it gets the same answer at once.
    assert await soon(box.report("a", "g0", 0, "t1", Message(epoch=3))) is True


@in_a_loop
async def test_a_restarted_group_gets_its_task_again_and_only_so_often(box: TaskBroker) -> None:
    await warm(box, "a", "g0")
    await box.post(task("t1", attempts=3))
    for attempt, generation in ((2, "g1"), (3, "g2")):
        given = await soon(await warm(box, "a", generation))
        assert given[1].id == "t1"
        assert (await soon(box.listen("t1"))).attempt == attempt
        await box.heard("t1", attempt)
    idle = await warm(box, "a", "g3")
    assert await blocked(idle), "after three deaths the trial is given up, and the lane is free"
    said = await soon(box.listen("t1"))
    assert said.ended and said.failed is not None and "3 tries" in said.failed


@in_a_loop
async def test_progress_forgives_earlier_deaths(box: TaskBroker) -> None:
    await warm(box, "a", "g0")
    await box.post(task("t1", attempts=2))
    for epoch in range(1, 6):
        await warm(box, "a", f"g{epoch}")
        said = asyncio.ensure_future(box.report("a", f"g{epoch}", 0, "t1", Message(epoch=epoch)))
        await blocked(said)
        await box.deliver("t1", epoch, True)
    state = (await box.lanes())["a"]
    assert state["task"] == "t1"


@in_a_loop
async def test_a_lost_lane_passes_its_task_to_the_next_idle_one(box: TaskBroker) -> None:
    await warm(box, "a")
    await box.post(task("t1"))
    await box.post(task("t2"))
    await box.lost("a")
    given = await soon(await warm(box, "b"))
    assert given[1].id == "t1", "the interrupted task goes before the waiting one"
    assert (await soon(box.listen("t1"))).attempt == 2


@in_a_loop
async def test_a_stale_worker_is_sent_home(box: TaskBroker) -> None:
    old = await warm(box, "a", "old")
    await warm(box, "a", "new")
    assert await soon(old) is None
    assert await soon(box.report("a", "old", 0, "t1", Message(epoch=1))) is False
    await box.finish("a", "old", 0, "t1", "boom")  # says nothing about the new generation's task


@in_a_loop
async def test_all_ranks_take_the_same_tasks(box: TaskBroker) -> None:
    for rank in (0, 1):
        await box.register("a", "g0", rank, 2, f"node{rank}")
    await box.post(task("t1"))
    first = await ask(box, "a", rank=0)
    assert await blocked(first), "half a group is no lane"
    second = await ask(box, "a", rank=1)
    turn, given = await soon(first)
    assert (await soon(second)) == (turn, given)
    reports = [asyncio.ensure_future(box.report("a", "g0", r, "t1", Message(epoch=1))) for r in (1, 0)]
    await box.heard("t1", 1)
    await soon(box.listen("t1"))
    await box.deliver("t1", 1, False)
    assert [await soon(r) for r in reports] == [False, False]


@in_a_loop
async def test_a_closing_lane_finishes_what_it_has(box: TaskBroker) -> None:
    turn = await busy(box)
    await box.close("a")
    await box.post(task("t2"))
    await box.finish("a", "g0", 0, "t1", None)
    assert await soon(await ask(box, "a", turn=turn)) is None
    assert not (await box.lanes())["a"]["task"]


@in_a_loop
async def test_only_workers_that_have_to_get_on_can_be_stuck(box: TaskBroker) -> None:
    async def stuck() -> bool:
        await asyncio.sleep(0.02)
        return bool((await box.lanes())["a"]["stuck_s"] > 0.01)

    waiting = await warm(box, "a")
    assert not await stuck(), "it has nothing to do"
    await box.post(task("t1"))
    await soon(waiting)
    assert await stuck()
    await box.heartbeat("a", "g0", "epoch 1, step 2/7")
    state = (await box.lanes())["a"]
    assert state["stuck_s"] < 0.01 and state["where"] == "epoch 1, step 2/7"
    await box.heartbeat("a", "older", "epoch 9")
    assert await stuck(), "another generation's progress is none"
    await box.heard("t1", 1)
    report = asyncio.ensure_future(box.report("a", "g0", 0, "t1", Message(epoch=1)))
    assert not await stuck(), "it waits for the verdict"
    await box.deliver("t1", 1, True)
    await soon(report)
    assert (await box.lanes())["a"]["stuck_s"] < 0.01 and await stuck()
    await box.down("a", "its worker was killed")
    state = (await box.lanes())["a"]
    assert not await stuck() and not state["warm"], "its group is being started again"
    await warm(box, "a", "g1")
    assert await stuck()


@in_a_loop
async def test_a_trial_given_up_says_why_its_last_try_broke(box: TaskBroker) -> None:
    await warm(box, "a")
    await box.post(task("t1", attempts=1))
    await box.broke("a", "no progress for 900 s, last seen at epoch 3, step 41/70")
    await box.broke("a", "said too late", "older")
    await box.lost("a")
    await box.heard("t1", 1)
    said = await soon(box.listen("t1"))
    assert said.failed == (
        "given up after 1 try without a new epoch; the last: no progress for 900 s, last seen at "
        "epoch 3, step 41/70"
    )


@pytest.mark.parametrize("settled", ["before", "after"])
@in_a_loop
async def test_a_forgotten_task_sets_everyone_free(box: TaskBroker, settled: str) -> None:
    await busy(box)
    if settled == "before":
        await box.forget("t1")
    reporting = asyncio.ensure_future(box.report("a", "g0", 0, "t1", Message(epoch=1)))
    await asyncio.sleep(0)
    if settled == "after":
        await box.forget("t1")
    assert await soon(reporting) is False
    assert (await soon(box.listen("t1"))).ended


@in_a_loop
async def test_a_lane_whose_node_will_go_hands_its_task_on_after_the_epoch(box: TaskBroker) -> None:
    await busy(box)
    await box.heard("t1", 1)
    await box.leave("a")
    reporting = asyncio.ensure_future(box.report("a", "g0", 0, "t1", Message(epoch=1)))
    assert (await soon(box.listen("t1"))).epoch == 1
    await box.deliver("t1", 1, True)
    assert await soon(reporting) is False, "the worker leaves the task, which its checkpoint holds"
    other = await warm(box, "b")
    await box.finish("a", "g0", 0, "t1", None)
    assert (await soon(other))[1].id == "t1"
    assert await soon(await ask(box, "a", turn=1)) is None, "the lane ends"
    assert await soon(box.listen("t1")) == Message(attempt=2, lane="b")
    await box.heard("t1", 2)
    assert await soon(box.report("b", "g0", 0, "t1", Message(epoch=1))) is True, "decided already: go on"


async def on_gpu(box: TaskBroker, lane: str, gpu: str, generation: str = "g0") -> Any:
    """A lane of one worker on this GPU, that asks for its first task."""
    assert await box.place(lane, 0, 1, gpu, f"GPU {gpu}")
    return await warm(box, lane, generation)


@in_a_loop
async def test_a_trial_under_which_a_gpu_fails_goes_to_another_and_loses_no_try(box: TaskBroker) -> None:
    first = await on_gpu(box, "a", "0")
    await box.post(task("t1", attempts=1))
    assert (await soon(first))[1].id == "t1"
    other = await on_gpu(box, "b", "1")
    await box.post(task("t2"))
    turn, _ = await soon(other)
    await box.sick("a", 0, "an illegal memory access", "t1", "g0")
    again = await on_gpu(box, "a", "0", "g1")
    assert await blocked(again), "lane b, on another GPU, is to take it"
    await box.finish("b", "g0", 0, "t2", None)
    assert (await soon(await ask(box, "b", turn=turn)))[1].id == "t1"
    said = await soon(box.listen("t1"))
    assert (said.attempt, said.lane, said.failed) == (2, "b", None)
    assert await box.quarantined() == {} and "GPU 0 failed under t1" in (await box.said())[0]
    await box.post(task("t3"))
    assert (await soon(again))[1].id == "t3", "once is no quarantine"
    await box.sick("a", 0, "an ECC error", "t3", "g0")
    assert await box.quarantined() == {}, "said by an older generation, too late"
    await box.sick("a", 0, "an ECC error", "t3", "g1")
    assert await box.quarantined() == {"0": ("GPU 0", "an ECC error")}
    assert not await box.place("a", 0, 1, "0", "GPU 0"), "who gets it is told to leave it"
    assert await blocked(await warm(box, "a", "g2")), "no task goes there any more"


@in_a_loop
async def test_where_there_is_one_gpu_the_trial_is_tried_there_again(box: TaskBroker) -> None:
    await on_gpu(box, "a", "0")
    await box.post(task("t1"))
    await box.sick("a", 0, "an ECC error", "t1", "g0")
    assert not (await box.lanes())["a"]["warm"]
    assert (await soon(await on_gpu(box, "a", "0", "g1")))[1].id == "t1"


@in_a_loop
async def test_a_trial_under_which_every_gpu_fails_has_failed(box: TaskBroker) -> None:
    for gpu in ("0", "1", "2"):
        await on_gpu(box, f"lane-{gpu}", gpu)
    await box.post(task("t1", attempts=3))
    for attempt in (1, 2, 3):
        said = await soon(box.listen("t1"))
        assert said.attempt == attempt
        await box.heard("t1", attempt)
        await box.sick(said.lane, 0, "an illegal memory access", "t1", "g0")
    said = await soon(box.listen("t1"))
    assert said.failed is not None and said.failed.startswith("given up: 3 GPUs failed under it")
    assert await box.quarantined() == {}


@in_a_loop
async def test_a_worker_whose_gpu_does_not_start_says_so_before_it_registers(box: TaskBroker) -> None:
    assert await box.place("a", 0, 2, "0", "GPU 0") and await box.place("a", 1, 2, "1", "GPU 1")
    await box.sick("a", 1, "torch sees no GPU there", certain=True)
    assert await box.quarantined() == {"1": ("GPU 1", "torch sees no GPU there")}
    state = (await box.lanes())["a"]
    assert state["gpus"] == ["0", "1"] and not state["warm"]


@in_a_loop
async def test_a_trial_that_ran_out_of_memory_beside_another_is_tried_alone(box: TaskBroker) -> None:
    first, second = await on_gpu(box, "a", "0"), await on_gpu(box, "b", "0")
    other = await on_gpu(box, "c", "1")
    for name in ("t1", "t2", "t3"):
        await box.post(task(name))
    turn, given = await soon(first)
    beside_turn, beside = await soon(second)
    assert (given.id, beside.id, given.alone) == ("t1", "t2", 0) and (await soon(other))[1].id == "t3"
    await box.post(task("t4"))

    await box.crowded("a", "t1", "g0", "out of memory")
    assert (await box.said())[0] == "t1 is tried alone on GPU 0: out of memory"
    again = await ask(box, "a", turn=turn)
    assert await blocked(again), "its neighbour still trains"
    report = asyncio.ensure_future(box.report("b", "g0", 0, "t2", Message(epoch=1)))
    await box.heard("t2", 1)
    assert (await soon(box.listen("t2"))).epoch == 1
    await box.deliver("t2", 1, True)
    assert not await soon(report), "it leaves the GPU after this epoch"
    await box.finish("b", "g0", 0, "t2", None)
    turn, given = await soon(again)
    assert (given.id, given.alone) == ("t1", 2), "two workers have a context there"
    beside = await ask(box, "b", turn=beside_turn)
    assert await blocked(beside), "nothing is put beside it"
    await box.finish("c", "g0", 0, "t3", None)
    assert (await soon(await ask(box, "c", turn=1)))[1].id == "t2", "on another GPU it goes on at once"

    await box.finish("a", "g0", 0, "t1", "out of memory, alone")
    said = await soon(box.listen("t1"))
    assert said.attempt == 2
    await box.heard("t1", 2)
    assert (await soon(box.listen("t1"))).failed == "out of memory, alone", "now it has failed"
    taken = {(await soon(beside))[1].id} if not await blocked(beside) else set()
    again = await ask(box, "a", turn=turn)
    taken |= {(await soon(again))[1].id} if not await blocked(again) else set()
    assert taken == {"t4"} and await box.quarantined() == {}


@in_a_loop
async def test_a_trial_to_be_alone_goes_anywhere_once_its_gpu_has_no_lane(box: TaskBroker) -> None:
    await on_gpu(box, "a", "0")
    await box.post(task("t1"))
    other = await on_gpu(box, "b", "1")
    await box.crowded("a", "t1", "other generation", "said too late")
    assert (await box.lanes())["a"]["task"] == "t1"
    await box.crowded("a", "t1", "g0", "out of memory")
    assert await blocked(other)
    await box.lost("a")
    given = (await soon(other))[1]
    assert (given.id, given.alone) == ("t1", 1)
    await box.post(task("t2"))
    assert await blocked(await on_gpu(box, "c", "1")), "it is alone there"


@in_a_loop
async def test_of_two_trials_to_be_alone_on_one_gpu_each_is_left_in_peace(box: TaskBroker) -> None:
    first, second = await on_gpu(box, "a", "0"), await on_gpu(box, "b", "0")
    far = await on_gpu(box, "c", "1")
    for name in ("t1", "t2", "t3"):
        await box.post(task(name))
    turns = [(await soon(waiting))[0] for waiting in (first, second, far)]
    await box.crowded("a", "t1", "g0", "out of memory")
    await box.crowded("b", "t2", "g0", "out of memory")
    again, beside = await ask(box, "a", turn=turns[0]), await ask(box, "b", turn=turns[1])
    taken = {name for name, lane in (await box.lanes()).items() if lane["task"] in ("t1", "t2")}
    assert len(taken) == 1 and await blocked(beside if taken == {"a"} else again)
    lane = taken.pop()
    now = (await box.lanes())[lane]["task"]
    assert await reported(box, lane, now, 1), "the other one waits until it has ended"
    assert await reported(box, "c", "t3", 1), "this is another GPU"
    await box.finish(lane, "g0", 0, now, None)
    await ask(box, lane, turn=turns[0] + 1)
    tasks = {lane["task"] for lane in (await box.lanes()).values()}
    assert tasks == {"t3", "t1" if now == "t2" else "t2", None}


async def reported(box: TaskBroker, lane: str, name: str, epoch: int) -> bool:
    """The answer to a report for which the verdict is to go on."""
    report = asyncio.ensure_future(box.report(lane, "g0", 0, name, Message(epoch=epoch)))
    while not (said := await soon(box.listen(name))).epoch:
        await box.heard(name, said.attempt)
    await box.deliver(name, epoch, True)
    return bool(await soon(report))


@in_a_loop
async def test_work_of_the_background_waits_for_a_lane_that_has_nothing_to_do(
    box: TaskBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignments, "_SPARE_S", 0.05)
    waiting = await warm(box, "a")
    await box.post(dataclasses.replace(task("baseline"), background=True))
    await box.post(task("t1"))
    turn, given = await soon(waiting)
    assert given.id == "t1", "trials come first"
    await box.finish("a", "g0", 0, "t1", None)
    waiting = await ask(box, "a", turn=turn)
    assert await blocked(waiting), "the next trial may be about to come"
    await asyncio.sleep(0.05)
    await box.lanes()  # as the pool does twice a second
    turn, given = await soon(waiting)
    assert given.id == "baseline"
    await box.heard("baseline", 1)

    async def reported(epoch: int) -> bool:
        report = asyncio.ensure_future(box.report("a", "g0", 0, "baseline", Message(epoch=epoch)))
        assert (await soon(box.listen("baseline"))).epoch == epoch
        await box.deliver("baseline", epoch, True)
        return bool(await soon(report))

    assert await reported(1), "nobody waits"
    await box.post(task("t2"))
    assert not await reported(2), "a trial does: it leaves the lane with this epoch"
    await box.finish("a", "g0", 0, "baseline", None)
    turn, given = await soon(await ask(box, "a", turn=turn))
    assert given.id == "t2"
    await box.finish("a", "g0", 0, "t2", None)
    waiting = await ask(box, "a", turn=turn)
    await asyncio.sleep(0.06)
    await box.lanes()
    turn, given = await soon(waiting)
    assert given.id == "baseline" and (await soon(box.listen("baseline"))).attempt == 2
    await box.heard("baseline", 2)
    # It resumes from its checkpoint and reports that epoch again: decided already, and no reason to leave.
    assert await soon(box.report("a", "g0", 0, "baseline", Message(epoch=2))) is True


@in_a_loop
async def test_after_the_last_trial_work_of_the_background_waits_for_nothing(box: TaskBroker) -> None:
    waiting = await warm(box, "a")
    await box.post(dataclasses.replace(task("raw_pixels"), action="raw_pixels", background=True))
    await box.post(dataclasses.replace(task("baseline"), background=True))
    assert await blocked(waiting)
    await box.no_more_trials()
    turn, given = await soon(waiting)
    assert given.id == "raw_pixels"
    await box.heard("raw_pixels", 1)
    await box.post(task("t1"))
    report = asyncio.ensure_future(box.report("a", "g0", 0, "raw_pixels", Message(epoch=1)))
    assert (await soon(box.listen("raw_pixels"))).epoch == 1
    await box.deliver("raw_pixels", 1, True)
    assert await soon(report), "it would begin again from nothing: it does not leave for a trial"
    await box.finish("a", "g0", 0, "raw_pixels", None)
    turn, given = await soon(await ask(box, "a", turn=turn))
    assert given.id == "t1"
    await box.finish("a", "g0", 0, "t1", None)
    assert (await soon(await ask(box, "a", turn=turn)))[1].id == "baseline"


def latency(name: str, background: bool = False) -> Task:
    return dataclasses.replace(task(name), action="latency", quiet=True, background=background)


async def on_node(box: TaskBroker, lane: str, node: str) -> Any:
    await box.register(lane, "g0", 0, 1, node)
    return await ask(box, lane)


@in_a_loop
async def test_a_latency_is_measured_while_no_other_lane_works_on_its_node(box: TaskBroker) -> None:
    lanes = {"a": await on_node(box, "a", "one"), "b": await on_node(box, "b", "one")}
    for name in ("t1", "t2"):
        await box.post(task(name))
    given = {(await soon(call))[1].id: lane for lane, call in lanes.items()}
    assert given == {"t1": "a", "t2": "b"}
    for name in ("l1", "l2"):
        await box.post(latency(name))
    far = await on_node(box, "c", "two")
    await box.post(task("t3"))
    assert (await soon(far))[1].id == "t3"
    # Both trials on the node leave after their epoch; the first that does waits for the other.
    for name, lane in given.items():
        said = asyncio.ensure_future(box.report(lane, "g0", 0, name, Message(epoch=1)))
        await asyncio.sleep(0)
        await box.deliver(name, 1, True)
        assert await soon(said) is False, "it leaves"
        await box.finish(lane, "g0", 0, name)
        lanes[lane] = await ask(box, lane, turn=1)
        if name == "t1":
            assert await blocked(lanes["a"]), "b still trains there"
    done, _ = await asyncio.wait(lanes.values(), timeout=2, return_when=asyncio.FIRST_COMPLETED)
    (first,) = done
    (measures,) = [lane for lane, call in lanes.items() if call is first]
    (other,) = set(lanes) - {measures}
    assert first.result()[1].id == "l1" and await blocked(lanes[other]), "it is alone"
    # On another node nobody is disturbed.
    said = asyncio.ensure_future(box.report("c", "g0", 0, "t3", Message(epoch=1)))
    await asyncio.sleep(0)
    await box.deliver("t3", 1, True)
    assert await soon(said) is True
    await box.finish(measures, "g0", 0, "l1")
    again = await ask(box, measures, turn=2)
    done, _ = await asyncio.wait([again, lanes[other]], timeout=2, return_when=asyncio.FIRST_COMPLETED)
    assert [call.result()[1].id for call in done] == ["l2"], "the next one while it is quiet"
    takes = measures if again in done else other
    await box.finish(takes, "g0", 0, "l2")
    third = await ask(box, takes, turn=3 if takes == measures else 2)
    rest = {(await soon(call))[1].id for call in (third, again if again not in done else lanes[other])}
    assert rest == {"t1", "t2"}, "the trials go on"


@in_a_loop
async def test_a_latency_that_nobody_waits_for_keeps_no_trial_waiting(box: TaskBroker) -> None:
    waiting = await on_node(box, "a", "one")
    idle = await on_node(box, "b", "one")
    await box.post(task("t1"))
    await box.post(latency("l1", background=True))
    done, _ = await asyncio.wait([waiting, idle], timeout=2, return_when=asyncio.FIRST_COMPLETED)
    (first,) = done
    lane, other = ("a", idle) if first is waiting else ("b", waiting)
    assert first.result()[1].id == "t1"
    said = asyncio.ensure_future(box.report(lane, "g0", 0, "t1", Message(epoch=1)))
    await asyncio.sleep(0)
    await box.deliver("t1", 1, True)
    assert await soon(said) is True
    await box.no_more_trials()
    assert await blocked(other), "not beside a trial"
    await box.finish(lane, "g0", 0, "t1")
    again = await ask(box, lane, turn=1)
    done, _ = await asyncio.wait([again, other], timeout=2, return_when=asyncio.FIRST_COMPLETED)
    assert [call.result()[1].id for call in done] == ["l1"]


@in_a_loop
async def test_all_latencies_are_of_one_node_as_long_as_it_is_there(box: TaskBroker) -> None:
    calls = {"a": await on_node(box, "a", "one"), "b": await on_node(box, "b", "two")}
    turns = dict.fromkeys(calls, 0)
    took = []
    for number in range(4):
        if number == 3:
            await box.lost(took[0])
            calls.pop(took[0])
        await box.post(latency(f"l{number}"))
        done, _ = await asyncio.wait(calls.values(), timeout=2, return_when=asyncio.FIRST_COMPLETED)
        (lane,) = [lane for lane, call in calls.items() if call in done]
        took.append(lane)
        turns[lane] += 1
        await box.finish(lane, "g0", 0, f"l{number}")
        calls[lane] = await ask(box, lane, turn=turns[lane])
    assert len(set(took[:3])) == 1 and took[3] != took[0]
