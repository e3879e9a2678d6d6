"""Where lanes, proxies and the driver meet: one asynchronous actor a sweep.

A *task* is a piece of work for a lane: an action (`train`, `prepare`, …) on a trial. Proxies and the driver
post tasks and read reports; lanes take tasks, report, and wait for the verdict on each report. The broker
holds all state about who does what, so any other process may die. A worker group that restarts asks again
and gets the task it had. A proxy that restarts is given the report that nobody has decided on yet. The task
of a lane that is lost goes to the next idle lane. `assignments.py` has the rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from raykd.lanes.assignments import Assignments
from raykd.lanes.messages import Message, Task
from trainables.core.errors import UserError


class TaskBroker:
    """The actor. Every method returns at once, except those that say they wait."""

    def __init__(self) -> None:
        self._assignments = Assignments()
        self._controllers: dict[str, Any] = {}
        self._refusals: dict[str, str] = {}
        self._kept: dict[str, str] = {}
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[Assignments]:
        """The assignments, locked. Calls that wait look at them again afterwards."""
        async with self._changed:
            yield self._assignments
            self._changed.notify_all()

    async def protect_from_oom_killer(self) -> None:
        """Give this process the raylet's `oom_score_adj`.

        Ray's workers are what the kernel ends first when memory runs out, and an actor is a worker. Without
        the broker the sweep ends. Ray's own memory monitor ends the workers that were started last, and the
        broker was started before all lanes.
        """
        with contextlib.suppress(OSError):
            raylet = Path(f"/proc/{os.getppid()}/oom_score_adj").read_text()
            Path("/proc/self/oom_score_adj").write_text(raylet)

    # What workers say -----------------------------------------------------------------------------

    async def place(self, lane: str, rank: int, world: int, gpu: str, name: str) -> bool:
        """A worker that starts was given this GPU (key, name for people). False: it is in quarantine."""
        async with self._changing() as assignments:
            return assignments.place(lane, rank, world, gpu, name)

    async def sick(
        self,
        lane: str,
        rank: int,
        reason: str,
        task: str = "",
        generation: str = "",
        certain: bool = False,
    ) -> None:
        """The worker's GPU failed, under this task or (`""`) before there was one; its group ends.

        The task goes to another GPU if there is one. It is given up when GPUs failed under it as often as a
        task may be tried. `certain`: nothing will ever run on this GPU.
        """
        async with self._changing() as assignments:
            assignments.gpu_failed(lane, rank, reason, task, generation, certain)

    async def crowded(self, lane: str, task: str, generation: str, reason: str) -> None:
        """A task ran out of memory on a GPU that lanes share, and leaves it to be tried alone there."""
        async with self._changing() as assignments:
            assignments.crowded(lane, task, generation, reason)

    async def register(self, lane: str, generation: str, rank: int, world: int, node: str) -> None:
        """A worker is ready. A new generation replaces what the lane was: its task starts again."""
        async with self._changing() as assignments:
            assignments.register(lane, generation, rank, world, node)

    async def next_task(self, lane: str, generation: str, rank: int, turn: int) -> tuple[int, Task] | None:
        """Wait for the lane's task after `turn`; None when the lane closes or has another generation."""
        async with self._changing() as assignments:
            state = assignments.lanes[lane]

            def over() -> bool:
                return state.generation != generation or (state.closing and state.work is None)

            def ready() -> bool:
                return over() or (state.turn > turn and state.work is not None)

            if state.generation == generation:
                state.waiting.add(rank)
                assignments.assign()
                self._changed.notify_all()
            await self._changed.wait_for(ready)
            if over():
                return None
            state.waiting.discard(rank)
            assert state.work is not None
            return state.turn, state.work

    async def report(self, lane: str, generation: str, rank: int, task: str, message: Message) -> bool:
        """Hand in an epoch and wait for its verdict: True to go on. Rank 0 speaks for all ranks."""
        async with self._changing() as assignments:
            state, box = assignments.lanes[lane], assignments.boxes.get(task)
            if rank == 0 and box is not None and message.epoch not in box.verdicts and box.end is None:
                box.pending = message
                self._changed.notify_all()

            def decided() -> bool:
                present = assignments.boxes.get(task)
                return present is None or message.epoch in present.verdicts or state.generation != generation

            await self._changed.wait_for(decided)
            box = assignments.boxes.get(task)
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
        """A rank has left the task. The task is over when rank 0 has left it, or when a rank failed."""
        async with self._changing() as assignments:
            assignments.finish(lane, generation, rank, task, failed, mistake)

    async def heartbeat(self, lane: str, generation: str, where: str) -> None:
        """A rank gets on. One of them is enough: ranks that wait for each other stop together."""
        state = self._assignments.lanes.get(lane)
        if state is not None and state.generation == generation:
            state.sign, state.where = time.monotonic(), where

    async def broke(self, lane: str, reason: str, generation: str | None = None) -> None:
        """The lane's workers leave their task, and only a restart of the group or another lane helps.

        A worker gives its `generation`, so that a late one is ignored.
        """
        async with self._changing() as assignments:
            assignments.broke(lane, reason, generation)

    async def down(self, lane: str, reason: str | None) -> None:
        """The lane's group has failed: until it is there again nothing is expected of it."""
        if lane in self._assignments.lanes:
            self._assignments.lanes[lane].down = True
        if reason is not None:
            await self.broke(lane, reason)

    async def refuse(self, lane: str, reason: str) -> None:
        """A worker cannot be part of this sweep at all."""
        self._refusals[lane] = reason

    async def say(self, text: str) -> None:
        """Something that a person should read now."""
        self._assignments.said.append(text)

    async def controller(self, lane: str, handle: Any) -> None:
        """Ray Train's controller of this lane has started."""
        async with self._changing():
            self._controllers[lane] = handle

    async def kept(self) -> dict[str, str]:
        """The credentials that the driver gave to `keep`."""
        return self._kept

    # What proxies and the driver say --------------------------------------------------------------

    async def keep(self, environment: dict[str, str]) -> None:
        """Keep the driver's credentials for the lanes' workers. In memory, and in nothing that is logged."""
        self._kept = environment

    async def post(self, task: Task) -> None:
        """Queue a task. Nothing changes for a task that is known already."""
        async with self._changing() as assignments:
            assignments.post(task)

    async def no_more_trials(self) -> None:
        """No lane is kept for a next trial any more: background tasks begin at once."""
        async with self._changing() as assignments:
            assignments.trials_over = True
            assignments.assign()

    async def listen(self, task: str, attempt: int = 0, epoch: int | None = None) -> Message:
        """Wait for what the driver has not answered yet: an attempt begun, a report, or the end.

        `attempt` and `epoch` are what the caller has relayed to the driver already: it will be answered once
        it is on the disk.
        """
        async with self._changing() as assignments:

            def said() -> Message | None:
                box = assignments.boxes.get(task)
                if box is None:
                    return Message(ended=True, failed="it was withdrawn")
                if box.heard < box.attempt and attempt < box.attempt:
                    return Message(attempt=box.attempt, lane=box.lane or "")
                return box.pending if box.pending is not None and box.pending.epoch != epoch else box.end

            await self._changed.wait_for(lambda: said() is not None)
            message = said()
            assert message is not None
            return message

    async def heard(self, task: str, attempt: int) -> None:
        """The driver knows that this attempt has begun."""
        async with self._changing() as assignments:
            if task in assignments.boxes:
                assignments.boxes[task].heard = attempt

    async def deliver(self, task: str, epoch: int, go: bool) -> None:
        """The verdict on an epoch. After a stop the lane is free once its workers have left the task."""
        async with self._changing() as assignments:
            assignments.deliver(task, epoch, go)

    async def forget(self, task: str) -> None:
        """The task is settled: drop its box, and take it off the queue if no lane has it."""
        async with self._changing() as assignments:
            if assignments.boxes.pop(task, None) is not None and task in assignments.queue:
                assignments.queue.remove(task)

    async def clear(self) -> None:
        """Drop every task: workers hear a stop at their next report, or now if they wait for a verdict."""
        async with self._changing() as assignments:
            assignments.boxes.clear()
            assignments.queue.clear()

    async def close(self, lane: str) -> None:
        """Let the lane end when its present task has ended."""
        async with self._changing() as assignments:
            if lane in assignments.lanes:
                assignments.lanes[lane].closing = True

    async def leave(self, lane: str) -> None:
        """As `close`, but the task ends here with its present epoch, and another lane goes on with it."""
        async with self._changing() as assignments:
            if lane in assignments.lanes:
                assignments.lanes[lane].closing = assignments.lanes[lane].leaving = True

    async def lost(self, lane: str) -> None:
        """The lane is gone: its task waits, first in the queue, for another one."""
        async with self._changing() as assignments:
            self._controllers.pop(lane, None)
            assignments.lost(lane)

    async def take_controller(self, lane: str) -> Any:
        """The handle of Ray Train's controller of this lane; None if it has not started."""
        return self._controllers.get(lane)

    async def lanes(self) -> dict[str, dict[str, Any]]:
        """Each lane by name: `warm`, `idle`, `closing`; its `task`, `nodes` and `gpus`.

        `stuck_s` is for how many seconds its workers have not got on with their task (0 while they wait for
        a verdict), `where` what they did last.
        """
        if self._assignments.background_waits():  # it starts after a while, without any event
            async with self._changing() as assignments:
                assignments.assign()
        return self._assignments.describe_lanes()

    async def said(self) -> list[str]:
        """What workers said since this was last asked."""
        said, self._assignments.said = self._assignments.said, []
        return said

    async def refusals(self) -> list[str]:
        """Why workers could not be part of this sweep."""
        return list(self._refusals.values())

    async def quarantined(self) -> dict[str, tuple[str, str]]:
        """The GPUs on which nothing may run any more: key -> name for people, reason."""
        assignments = self._assignments
        return {gpu: (assignments.gpu_names[gpu], why) for gpu, why in assignments.incidents.reasons.items()}
