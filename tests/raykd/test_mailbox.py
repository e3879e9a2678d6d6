"""The mailbox by itself: who gets which task, what is told again after a death, when a task is given up."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pytest

from raykd.lanes.mailbox import Mailbox
from raykd.lanes.messages import Message, Task

T = TypeVar("T")
P = ParamSpec("P")


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The test as a plain function."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def box() -> Mailbox:
    return Mailbox()


def task(name: str, attempts: int = 3) -> Task:
    return Task(name, "train", [], "/nowhere", attempts)


async def soon(waiting: Awaitable[T]) -> T:
    """The answer to a call that must not block."""
    return await asyncio.wait_for(waiting, 2)


async def blocked(call: asyncio.Task[Any]) -> bool:
    await asyncio.sleep(0.02)
    return not call.done()


async def ask(box: Mailbox, lane: str, generation: str = "g0", rank: int = 0, turn: int = 0) -> Any:
    call = asyncio.ensure_future(box.next_task(lane, generation, rank, turn))
    await asyncio.sleep(0)
    return call


async def warm(box: Mailbox, lane: str, generation: str = "g0") -> Any:
    """A lane of one worker that asks for its first task."""
    await box.register(lane, generation, 0, 1, "node")
    return await ask(box, lane, generation)


async def busy(box: Mailbox) -> int:
    """Lane a, whose worker has taken task t1; the turn it asks for next."""
    waiting = await warm(box, "a")
    await box.post(task("t1"))
    turn, _ = await soon(waiting)
    return int(turn)


@in_a_loop
async def test_a_trial_from_post_to_end(box: Mailbox) -> None:
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
    await box.judge("t1", 1, False)
    assert await soon(reporting) is False
    await box.finish("a", "g0", 0, "t1", None)
    assert (await soon(box.listen("t1"))).ended
    await box.forget("t1")
    again = await ask(box, "a", turn=turn)
    await box.post(task("t2"))
    assert (await soon(again))[1].id == "t2"


@in_a_loop
async def test_a_report_nobody_judged_is_told_again(box: Mailbox) -> None:
    await busy(box)
    await box.heard("t1", 1)
    reporting = asyncio.ensure_future(box.report("a", "g0", 0, "t1", Message(epoch=3)))
    first = await soon(box.listen("t1"))  # this proxy dies before the driver hears
    await box.post(task("t1"))  # its successor posts the same task
    assert await soon(box.listen("t1")) == first
    await box.judge("t1", 3, True)
    assert await soon(reporting) is True
    # A worker that repeats a judged epoch (it went on from a checkpoint) gets the same answer at once.
    assert await soon(box.report("a", "g0", 0, "t1", Message(epoch=3))) is True


@in_a_loop
async def test_a_restarted_group_gets_its_task_again_and_only_so_often(box: Mailbox) -> None:
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
async def test_progress_forgives_earlier_deaths(box: Mailbox) -> None:
    await warm(box, "a", "g0")
    await box.post(task("t1", attempts=2))
    for epoch in range(1, 6):
        await warm(box, "a", f"g{epoch}")
        said = asyncio.ensure_future(box.report("a", f"g{epoch}", 0, "t1", Message(epoch=epoch)))
        await blocked(said)
        await box.judge("t1", epoch, True)
    state = (await box.lanes())["a"]
    assert state["task"] == "t1"


@in_a_loop
async def test_a_lost_lane_passes_its_task_to_the_next_idle_one(box: Mailbox) -> None:
    await warm(box, "a")
    await box.post(task("t1"))
    await box.post(task("t2"))
    await box.lost("a")
    given = await soon(await warm(box, "b"))
    assert given[1].id == "t1", "the interrupted task goes before the waiting one"
    assert (await soon(box.listen("t1"))).attempt == 2


@in_a_loop
async def test_a_stale_worker_is_sent_home(box: Mailbox) -> None:
    old = await warm(box, "a", "old")
    await warm(box, "a", "new")
    assert await soon(old) is None
    assert await soon(box.report("a", "old", 0, "t1", Message(epoch=1))) is False
    await box.finish("a", "old", 0, "t1", "boom")  # says nothing about the new generation's task


@in_a_loop
async def test_all_ranks_take_the_same_tasks(box: Mailbox) -> None:
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
    await box.judge("t1", 1, False)
    assert [await soon(r) for r in reports] == [False, False]


@in_a_loop
async def test_a_closing_lane_finishes_what_it_has(box: Mailbox) -> None:
    turn = await busy(box)
    await box.close("a")
    await box.post(task("t2"))
    await box.finish("a", "g0", 0, "t1", None)
    assert await soon(await ask(box, "a", turn=turn)) is None
    assert not (await box.lanes())["a"]["task"]


@in_a_loop
async def test_only_workers_that_have_to_get_on_can_be_stuck(box: Mailbox) -> None:
    async def stuck() -> bool:
        await asyncio.sleep(0.02)
        return bool((await box.lanes())["a"]["stuck_s"] > 0.01)

    waiting = await warm(box, "a")
    assert not await stuck(), "it has nothing to do"
    await box.post(task("t1"))
    await soon(waiting)
    assert await stuck()
    await box.progress("a", "g0", "epoch 1, step 2/7")
    state = (await box.lanes())["a"]
    assert state["stuck_s"] < 0.01 and state["where"] == "epoch 1, step 2/7"
    await box.progress("a", "older", "epoch 9")
    assert await stuck(), "another generation's progress is none"
    await box.heard("t1", 1)
    report = asyncio.ensure_future(box.report("a", "g0", 0, "t1", Message(epoch=1)))
    assert not await stuck(), "it waits for the verdict"
    await box.judge("t1", 1, True)
    await soon(report)
    assert (await box.lanes())["a"]["stuck_s"] < 0.01 and await stuck()
    await box.down("a", "its worker was killed")
    state = (await box.lanes())["a"]
    assert not await stuck() and not state["warm"], "its group is being started again"
    await warm(box, "a", "g1")
    assert await stuck()


@in_a_loop
async def test_a_trial_given_up_says_why_its_last_try_broke(box: Mailbox) -> None:
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
async def test_a_forgotten_task_sets_everyone_free(box: Mailbox, settled: str) -> None:
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
async def test_a_lane_whose_node_will_go_hands_its_task_on_after_the_epoch(box: Mailbox) -> None:
    await busy(box)
    await box.heard("t1", 1)
    await box.leave("a")
    reporting = asyncio.ensure_future(box.report("a", "g0", 0, "t1", Message(epoch=1)))
    assert (await soon(box.listen("t1"))).epoch == 1
    await box.judge("t1", 1, True)
    assert await soon(reporting) is False, "the worker leaves the task, which its checkpoint holds"
    other = await warm(box, "b")
    await box.finish("a", "g0", 0, "t1", None)
    assert (await soon(other))[1].id == "t1"
    assert await soon(await ask(box, "a", turn=1)) is None, "the lane ends"
    assert await soon(box.listen("t1")) == Message(attempt=2, lane="b")
    await box.heard("t1", 2)
    assert await soon(box.report("b", "g0", 0, "t1", Message(epoch=1))) is True, "judged already: go on"
