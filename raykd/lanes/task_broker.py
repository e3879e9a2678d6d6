"""Where lanes, proxies and the driver meet: one asynchronous actor a sweep.

A *task* is a piece of work for a lane: an action (`train`, `prepare`, …) on a trial. Proxies and the driver
post tasks and read reports; lanes take tasks, report, and wait for the verdict on each report. All state
about who does what is here, so any other process may die: a worker group that restarts asks again and
gets the task it had, a proxy that restarts is given the report that nobody judged yet, and the task of a
lane that is lost goes to the next idle lane.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from raykd.lanes.incidents import Incidents
from raykd.lanes.messages import Box, LaneState, Message, Task
from trainables.core.errors import UserError

_SPARE_S = 3.0  # a lane without a task for so long takes work of the background: trials follow on each other


class TaskBroker:
    """The actor. Every method returns at once, except those that say they wait."""

    def __init__(self) -> None:
        self._boxes: dict[str, Box] = {}
        self._queue: deque[str] = deque()
        self._lanes: dict[str, LaneState] = {}
        self._controllers: dict[str, Any] = {}
        self._refusals: dict[str, str] = {}
        self._said: list[str] = []
        self._kept: dict[str, str] = {}
        self._incidents = Incidents()
        self._gpu_names: dict[str, str] = {}
        self._changed = asyncio.Condition()

    async def outlast(self) -> None:
        """Be no more likely to be ended than the raylet when this machine runs out of memory.

        Ray makes its workers the kernel's first choice, and this actor is one. Its own memory monitor ends
        those that were started last first, and this one was before all lanes.
        """
        with contextlib.suppress(OSError):
            raylet = Path(f"/proc/{os.getppid()}/oom_score_adj").read_text()
            Path("/proc/self/oom_score_adj").write_text(raylet)

    # What workers say -----------------------------------------------------------------------------

    async def place(self, lane: str, rank: int, world: int, gpu: str, name: str) -> bool:
        """A worker that starts was given this GPU, `name` to people. False: it is in quarantine."""
        async with self._changed:
            self._lanes.setdefault(lane, LaneState(world)).gpus[rank] = gpu
            self._gpu_names[gpu] = name
            return gpu not in self._incidents.reasons

    async def sick(
        self,
        lane: str,
        rank: int,
        reason: str,
        task: str = "",
        generation: str = "",
        certain: bool = False,
    ) -> None:
        """The worker's GPU failed, under this task or before there was one; its group ends.

        The task goes to another GPU where there is one, and is given up when that has happened as often as a
        task may be tried. `certain`: nothing will ever run there.
        """
        async with self._changed:
            state = self._lanes[lane]
            if task and (state.generation != generation or state.task != task):
                return
            gpu = state.gpus[rank]
            self._incidents.add(gpu, task, reason, certain)
            state.down = True
            box = self._boxes.get(task)
            if task:
                state.work = None
                self._said.append(f"{self._gpu_names[gpu]} failed under {task}: {reason}")
            if box is not None and box.end is None:
                box.pending, times = None, self._incidents.times(task)
                if times >= max(2, box.task.attempts):
                    gpus = len(self._incidents.gpus_of(task))
                    on = "one GPU" if gpus == 1 else f"{gpus} GPUs"
                    why = f"{on} failed under it, {times} times, so it is the more likely cause"
                    box.end = Message(ended=True, failed=f"given up: {why}; the last: {reason}")
                else:
                    self._again_in_queue(task)
            self._assign()
            self._changed.notify_all()

    async def quarantined(self) -> dict[str, tuple[str, str]]:
        """The GPUs on which nothing may run any more: key -> name for people, reason."""
        return {gpu: (self._gpu_names[gpu], why) for gpu, why in self._incidents.reasons.items()}

    async def register(self, lane: str, generation: str, rank: int, world: int, node: str) -> None:
        """A worker is ready. A new generation replaces what the lane was: its task starts again."""
        async with self._changed:
            state = self._lanes.setdefault(lane, LaneState(world))
            if state.generation != generation:
                state.generation, state.ranks, state.waiting = generation, {}, set()
                state.sign, state.where, state.down = time.monotonic(), "", False
                state.free_since = state.sign
                if state.task is not None and not self._again(state.task):
                    state.work = None
            state.ranks[rank] = node
            self._assign()

    async def next_task(self, lane: str, generation: str, rank: int, turn: int) -> tuple[int, Task] | None:
        """Wait for the lane's task after `turn`; None when the lane closes or is another generation's."""
        async with self._changed:
            state = self._lanes[lane]

            def over() -> bool:
                return state.generation != generation or (state.closing and state.work is None)

            def ready() -> bool:
                return over() or (state.turn > turn and state.work is not None)

            if state.generation == generation:
                state.waiting.add(rank)
                self._assign()
            await self._changed.wait_for(ready)
            if over():
                return None
            state.waiting.discard(rank)
            assert state.work is not None
            return state.turn, state.work

    async def report(self, lane: str, generation: str, rank: int, task: str, message: Message) -> bool:
        """Hand in an epoch and wait for its verdict: True to go on. Rank 0 speaks for all ranks."""
        async with self._changed:
            state, box = self._lanes[lane], self._boxes.get(task)
            if rank == 0 and box is not None and message.epoch not in box.verdicts and box.end is None:
                box.pending = message
                self._changed.notify_all()

            def decided() -> bool:
                present = self._boxes.get(task)
                return present is None or message.epoch in present.verdicts or state.generation != generation

            await self._changed.wait_for(decided)
            box = self._boxes.get(task)
            go = box is not None and box.verdicts.get(message.epoch, False)
            return go and state.left != (task, message.epoch)

    async def finish(
        self,
        lane: str,
        generation: str,
        rank: int,
        task: str,
        failed: str | None = None,
        mistake: UserError | None = None,
    ) -> None:
        """A rank has left the task. When rank 0 has, or one has failed, the task is over."""
        async with self._changed:
            state, box = self._lanes[lane], self._boxes.get(task)
            if state.generation != generation or state.task != task:
                return
            if rank == 0 or failed is not None:
                state.work, state.free_since = None, time.monotonic()
                if box is not None and box.end is None:
                    if failed is None and state.left is not None and state.left[0] == task:
                        self._again_in_queue(task)
                    else:
                        box.end = Message(ended=True, failed=failed, mistake=mistake)
                state.left = None
                self._assign()
                self._changed.notify_all()

    async def progress(self, lane: str, generation: str, where: str) -> None:
        """A rank gets on. One of them is enough: ranks that wait for each other stop together."""
        state = self._lanes.get(lane)
        if state is not None and state.generation == generation:
            state.sign, state.where = time.monotonic(), where

    async def broke(self, lane: str, reason: str, generation: str | None = None) -> None:
        """The lane's workers leave their task in a way that only a restart of the group, or another lane,
        mends. A worker says its generation, so that one which is late is not heard."""
        async with self._changed:
            state = self._lanes.get(lane)
            box = self._boxes.get(state.task or "") if state is not None else None
            if state is not None and box is not None and generation in (None, state.generation):
                box.trouble = reason

    async def down(self, lane: str, reason: str | None) -> None:
        """The lane's group has failed: until it is there again nothing is expected of it."""
        if lane in self._lanes:
            self._lanes[lane].down = True
        if reason is not None:
            await self.broke(lane, reason)

    async def refuse(self, lane: str, reason: str) -> None:
        """A worker cannot be part of this sweep at all."""
        self._refusals[lane] = reason

    async def refusals(self) -> list[str]:
        """Why workers could not be part of this sweep."""
        return list(self._refusals.values())

    async def say(self, text: str) -> None:
        """Something that a person should read now."""
        self._said.append(text)

    async def said(self) -> list[str]:
        """What workers said since this was last asked."""
        said, self._said = self._said, []
        return said

    async def keep(self, environment: dict[str, str]) -> None:
        """Keep the driver's credentials for the lanes' workers. In memory, and in nothing that is logged."""
        self._kept = environment

    async def kept(self) -> dict[str, str]:
        """What `keep` was given."""
        return self._kept

    async def controller(self, lane: str, handle: Any) -> None:
        """Ray Train's controller of this lane has started."""
        async with self._changed:
            self._controllers[lane] = handle

    # What proxies and the driver say --------------------------------------------------------------

    async def post(self, task: Task) -> None:
        """Queue a task. One that is known already goes on where it is."""
        async with self._changed:
            if task.id not in self._boxes:
                self._boxes[task.id] = Box(task, attempt=task.tried, heard=task.tried)
                self._queue.append(task.id)
                self._assign()

    async def listen(self, task: str) -> Message:
        """Wait for what the driver has not answered yet: an attempt begun, a report, or the end."""
        async with self._changed:

            def spoken() -> bool:
                box = self._boxes.get(task)
                return box is None or bool(box.heard < box.attempt or box.pending or box.end)

            await self._changed.wait_for(spoken)
            box = self._boxes.get(task)
            if box is None:
                return Message(ended=True, failed="it was withdrawn")
            if box.heard < box.attempt:
                return Message(attempt=box.attempt, lane=box.lane or "")
            message = box.pending or box.end
            assert message is not None
            return message

    async def heard(self, task: str, attempt: int) -> None:
        """The driver knows that this attempt has begun."""
        async with self._changed:
            if task in self._boxes:
                self._boxes[task].heard = attempt
                self._changed.notify_all()

    async def deliver(self, task: str, epoch: int, go: bool) -> None:
        """The verdict on an epoch. After a stop the lane is free once its workers have left the task."""
        async with self._changed:
            box = self._boxes.get(task)
            if box is None:
                return
            box.verdicts[epoch] = go
            lane = self._lanes.get(box.lane or "")
            if lane is not None:
                lane.sign = time.monotonic()  # until now it waited for this
                if go and (lane.leaving or (box.task.background and self._others_wait(task))):
                    lane.left = (task, epoch)
            if epoch > 0:  # below are words about preparation, not progress
                box.fruitless = 0
            if box.pending is not None and box.pending.epoch == epoch:
                box.pending = None
            self._changed.notify_all()

    async def forget(self, task: str) -> None:
        """The task is settled: drop its box, and take it off the queue if no lane has it."""
        async with self._changed:
            if self._boxes.pop(task, None) is not None and task in self._queue:
                self._queue.remove(task)
            self._changed.notify_all()

    async def clear(self) -> None:
        """Drop every task: workers hear a stop at their next report, or now if they wait for a verdict."""
        async with self._changed:
            self._boxes.clear()
            self._queue.clear()
            self._changed.notify_all()

    async def close(self, lane: str) -> None:
        """Let the lane end when its present task has."""
        async with self._changed:
            if lane in self._lanes:
                self._lanes[lane].closing = True
            self._changed.notify_all()

    async def leave(self, lane: str) -> None:
        """As `close`, but the task ends here with its present epoch, and another lane goes on with it."""
        async with self._changed:
            if lane in self._lanes:
                self._lanes[lane].closing = self._lanes[lane].leaving = True
            self._changed.notify_all()

    async def lost(self, lane: str) -> None:
        """The lane is gone: its task waits, first in the queue, for another one."""
        async with self._changed:
            state = self._lanes.pop(lane, None)
            self._controllers.pop(lane, None)
            if state is not None:
                state.generation = ""
                if state.task is not None and state.task in self._boxes:
                    task = state.task
                    if self._again(task):
                        self._boxes[task].attempt -= 1  # counted when a lane takes it
                        self._again_in_queue(task)
                self._assign()
            self._changed.notify_all()

    async def take_controller(self, lane: str) -> Any:
        return self._controllers.get(lane)

    async def lanes(self) -> dict[str, dict[str, Any]]:
        """What each lane is: warm, idle, its task, nodes and GPUs; for how many seconds its workers have not
        got on with their task (0 while they wait for a verdict), and where they were then."""
        if any(self._boxes[task].task.background for task in self._queue):  # which no event may start
            async with self._changed:
                self._assign()
        return {
            name: {
                "warm": lane.warm,
                "idle": lane.idle,
                "closing": lane.closing,
                "task": lane.task,
                "nodes": sorted(set(lane.ranks.values())),
                "gpus": sorted(set(lane.gpus.values())),
                "stuck_s": self._stuck(lane),
                "where": lane.where,
            }
            for name, lane in self._lanes.items()
        }

    # Inside ---------------------------------------------------------------------------------------

    def _stuck(self, lane: LaneState) -> float:
        box = self._boxes.get(lane.task or "")
        waits = lane.work is None or not lane.warm or (box is not None and box.pending is not None)
        return 0.0 if waits else time.monotonic() - lane.sign

    def _assign(self) -> None:
        """Give waiting tasks to idle lanes. Called with the lock held."""
        idle = [(name, lane) for name, lane in self._lanes.items() if lane.idle]
        for name, lane in idle:
            task = self._next_for(lane)
            if task is None:
                continue
            self._queue.remove(task)
            box = self._boxes[task]
            box.lane = name
            box.attempt += 1
            lane.work = box.task
            lane.turn += 1
            lane.sign, lane.where = time.monotonic(), ""
        self._changed.notify_all()

    def _next_for(self, lane: LaneState) -> str | None:
        """The waiting task that this idle lane takes: the first that is not of the background and did not
        meet a sick GPU there; of the background only after a while."""
        if self._incidents.any_of(lane.gpus.values()):
            return None
        tasks = [task for task in self._queue if not self._better_elsewhere(task, lane)]
        plain = [task for task in tasks if not self._boxes[task].task.background]
        if not plain and time.monotonic() - lane.free_since < _SPARE_S:
            return None
        return next(iter(plain or tasks), None)

    def _better_elsewhere(self, task: str, lane: LaneState) -> bool:
        """Whether a GPU of this lane failed under the task, and another lane has none of those that did."""
        failed = self._incidents.gpus_of(task)
        if not failed & set(lane.gpus.values()):
            return False
        others = [set(o.gpus.values()) for o in self._lanes.values() if o.warm and not o.closing]
        return any(not gpus & failed and not self._incidents.any_of(gpus) for gpus in others)

    def _others_wait(self, task: str) -> bool:
        """Whether there is work that comes before this task, which is of the background."""
        return any(not self._boxes[waiting].task.background for waiting in self._queue)

    def _again_in_queue(self, task: str) -> None:
        """The task waits for a lane again, before all others of its kind."""
        box = self._boxes[task]
        box.lane = None
        self._queue.appendleft(task)

    def _again(self, task: str) -> bool:
        """The task's workers died under it: count that. False if it was too often, or the task is over."""
        box = self._boxes.get(task)
        if box is None or box.end is not None:
            return False
        box.pending = None
        box.fruitless += 1
        if box.fruitless >= box.task.attempts:
            tries = f"{box.fruitless} tries" if box.fruitless > 1 else "1 try"
            why = f"; the last: {box.trouble}" if box.trouble else ""
            box.end = Message(ended=True, failed=f"given up after {tries} without a new epoch{why}")
            return False
        box.attempt += 1
        return True
