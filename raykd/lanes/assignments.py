"""The rules of the task broker: which lane has which task, and what becomes of a task when something fails.

Nothing here waits: `task_broker.py` puts these rules behind an actor whose calls wait for each other.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Any

from raykd.lanes import neighbours, quiet
from raykd.lanes.incidents import Incidents
from raykd.lanes.messages import Box, LaneState, Message, Task
from trainables.core.errors import UserError

# A lane that had no task for so long takes a background task. It is longer than the gap between two trials.
_SPARE_S = 3.0
_RESUMES = "train"  # the action that goes on from a checkpoint; any other one would begin again


class Assignments:
    """All tasks in progress and all lanes.

    `boxes` holds the tasks by id, `queue` the ids of those that wait for a lane, `lanes` the lanes by name.
    `incidents` counts the failures of GPUs, `gpu_names` are the GPUs' names for people, by key. `said` are
    sentences for the user that nobody has read yet. `trials_over`: no trial will be posted any more. Tasks
    that need a quiet node run on `quiet_on`.
    """

    def __init__(self) -> None:
        self.boxes: dict[str, Box] = {}
        self.queue: deque[str] = deque()
        self.lanes: dict[str, LaneState] = {}
        self.incidents = Incidents()
        self.gpu_names: dict[str, str] = {}
        self.said: list[str] = []
        self.trials_over = False
        self.quiet_on = ""

    # Lanes ----------------------------------------------------------------------------------------

    def place(self, lane: str, rank: int, world: int, gpu: str, name: str) -> bool:
        """Note that a worker got this GPU (key, name for people). False if the GPU is in quarantine."""
        self.lanes.setdefault(lane, LaneState(world)).gpus[rank] = gpu
        self.gpu_names[gpu] = name
        return gpu not in self.incidents.reasons

    def register(self, lane: str, generation: str, rank: int, world: int, node: str) -> None:
        """Note that a worker is ready. A new generation replaces the old one: its task starts again."""
        state = self.lanes.setdefault(lane, LaneState(world))
        if state.generation != generation:
            state.generation, state.ranks, state.waiting = generation, {}, set()
            state.sign, state.where, state.down = time.monotonic(), "", False
            state.free_since = state.sign
            if state.task is not None and not self._count_death(state.task):
                state.work = None
        state.ranks[rank] = node
        self.assign()

    def lost(self, lane: str) -> None:
        """Forget a lane that is gone: its task is the first that another lane takes."""
        state = self.lanes.pop(lane, None)
        if state is None:
            return
        state.generation = ""
        task = state.task
        if task is not None and task in self.boxes and self._count_death(task):
            self.boxes[task].attempt -= 1  # counted when a lane takes it
            self._requeue(task)
        self.assign()

    def describe_lanes(self) -> dict[str, dict[str, Any]]:
        """What `TaskBroker.lanes` returns."""
        return {
            name: {
                "warm": lane.warm,
                "idle": lane.idle,
                "closing": lane.closing,
                "task": lane.task,
                "nodes": sorted(set(lane.ranks.values())),
                "gpus": sorted(set(lane.gpus.values())),
                "stuck_s": self._stuck_s(lane),
                "where": lane.where,
            }
            for name, lane in self.lanes.items()
        }

    def _stuck_s(self, lane: LaneState) -> float:
        """Seconds since the lane's workers last got on with their task; 0 while they wait for others."""
        box = self.boxes.get(lane.task or "")
        waits = lane.work is None or not lane.warm or (box is not None and box.pending is not None)
        return 0.0 if waits else time.monotonic() - lane.sign

    # Tasks ----------------------------------------------------------------------------------------

    def post(self, task: Task) -> None:
        """Queue a task. Nothing changes for a task that is known already."""
        if task.id not in self.boxes:
            self.boxes[task.id] = Box(task, attempt=task.tried, heard=task.tried)
            self.queue.append(task.id)
            self.assign()

    def deliver(self, task: str, epoch: int, go: bool) -> None:
        """Note the verdict on an epoch. A lane that leaves, or is needed for another task, stops there."""
        box = self.boxes.get(task)
        if box is None:
            return
        box.verdicts[epoch] = go
        lane = self.lanes.get(box.lane or "")
        if lane is not None:
            lane.sign = time.monotonic()  # until now it waited for the verdict
            if go and (lane.leaving or self._needed_elsewhere(lane, box)):
                lane.left = (task, epoch)
        if epoch > 0:  # epochs 0 and below report on preparation, which is no progress
            box.fruitless = 0
        if box.pending is not None and box.pending.epoch == epoch:
            box.pending = None

    def finish(
        self,
        lane: str,
        generation: str,
        rank: int,
        task: str,
        failed: str | None,
        mistake: UserError | None,
    ) -> None:
        """Note that a rank has left the task. The task is over when rank 0 has, or when a rank failed."""
        state, box = self.lanes[lane], self.boxes.get(task)
        if state.generation != generation or state.task != task or (rank != 0 and failed is None):
            return
        if state.work is None or not state.work.background:  # else it had no trial before that either
            state.free_since = time.monotonic()
        state.work = None
        if box is not None and box.end is None:
            if failed is None and state.left is not None and state.left[0] == task:
                self._requeue(task)
            else:
                box.end = Message(ended=True, failed=failed, mistake=mistake)
        state.left = None
        self.assign()

    def broke(self, lane: str, reason: str, generation: str | None) -> None:
        """Note why the present attempt at the lane's task ends. `generation` None: whichever it is."""
        state = self.lanes.get(lane)
        box = self.boxes.get(state.task or "") if state is not None else None
        if state is not None and box is not None and generation in (None, state.generation):
            box.trouble = reason

    def gpu_failed(
        self, lane: str, rank: int, reason: str, task: str, generation: str, certain: bool
    ) -> None:
        """Note that a worker's GPU failed; `TaskBroker.sick` has the arguments.

        The task goes to another lane, unless GPUs failed under it as often as a task may be tried.
        """
        state = self.lanes[lane]
        if task and (state.generation != generation or state.task != task):
            return
        gpu = state.gpus[rank]
        self.incidents.add(gpu, task, reason, certain)
        state.down = True
        box = self.boxes.get(task)
        if task:
            state.work = None
            self.said.append(f"{self.gpu_names[gpu]} failed under {task}: {reason}")
        if box is not None and box.end is None:
            box.pending, times = None, self.incidents.times(task)
            if times >= max(2, box.task.attempts):
                gpus = len(self.incidents.gpus_of(task))
                on = "one GPU" if gpus == 1 else f"{gpus} GPUs"
                why = f"{on} failed under it, {times} times, so it is the more likely cause"
                box.end = Message(ended=True, failed=f"given up: {why}; the last: {reason}")
            else:
                self._requeue(task)
        self.assign()

    def crowded(self, lane: str, task: str, generation: str, reason: str) -> None:
        """Note that a task ran out of memory on GPUs that others share: it is tried alone there."""
        state, box = self.lanes[lane], self.boxes.get(task)
        if state.generation != generation or state.task != task:
            return
        state.work, state.free_since = None, time.monotonic()
        state.left = None
        if box is not None and box.end is None:
            box.alone_on, box.pending = neighbours.gpus_of(state), None
            on = ", ".join(sorted(self.gpu_names[gpu] for gpu in box.alone_on))
            self.said.append(f"{task} is tried alone on {on}: {reason}")
            self._requeue(task)
        self.assign()

    def _count_death(self, task: str) -> bool:
        """Count that the task's workers died. False if that was too often, or if the task is over."""
        box = self.boxes.get(task)
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

    def _requeue(self, task: str) -> None:
        """Let the task wait for a lane again, before all others of its kind."""
        self.boxes[task].lane = None
        self.queue.appendleft(task)

    # Which lane takes which task ------------------------------------------------------------------

    def assign(self) -> None:
        """Give waiting tasks to idle lanes."""
        sharing = any(box.alone_on for box in self.boxes.values())  # in most sweeps none ever has to be alone
        if sharing:
            self._move_alone()
        measuring = any(box.task.quiet for box in self.boxes.values())
        if measuring:
            self.quiet_on = quiet.chosen(self.quiet_on, self.lanes, self._open())
        for name, lane in [(name, lane) for name, lane in self.lanes.items() if lane.idle]:
            task = self._next_for(lane, sharing, measuring)
            if task is None:
                continue
            self.queue.remove(task)
            box = self.boxes[task]
            box.lane = name
            box.attempt += 1
            lane.work = box.task
            if box.alone_on:
                lane.work = replace(box.task, alone=neighbours.processes(lane, self.lanes))
            lane.turn += 1
            lane.sign, lane.where = time.monotonic(), ""

    def _move_alone(self) -> None:
        """Choose another GPU for each waiting task that has to be alone where no lane takes a task any more.

        Otherwise all lanes would wait for it, and no neighbour would leave: none is on a GPU that has gone.
        """
        lanes = self._open()
        for box in (self.boxes[task] for task in self.queue):
            if box.alone_on:
                box.alone_on = neighbours.moved(box, self.lanes, lanes)

    def _open(self) -> list[LaneState]:
        """The lanes that may take a task, now or later."""
        sick = self.incidents.any_of
        return [o for o in self.lanes.values() if not o.closing and not sick(o.gpus.values())]

    def background_waits(self) -> bool:
        """Whether a background task waits for a lane."""
        return any(self.boxes[task].task.background for task in self.queue)

    def _next_for(self, lane: LaneState, sharing: bool, measuring: bool) -> str | None:
        """The waiting task that this idle lane takes: the first that is not better off elsewhere.

        Background tasks come last, and only for a lane that has had no other one for `_SPARE_S`.
        `sharing`: a task that is known has to be alone on its GPU. `measuring`: one needs a quiet node.
        """
        if self.incidents.any_of(lane.gpus.values()):
            return None
        waiting = [(task, self.boxes[task]) for task in self.queue if not self.boxes[task].task.quiet]
        if measuring:
            kept, task = self._measuring(lane, bool(waiting))
            if kept:
                return task
        if sharing:
            first = neighbours.alone_first(lane, waiting)
            if neighbours.kept_off(lane, self.lanes) or (first and neighbours.occupied(lane, self.lanes)):
                return None
            if first:
                spare = not self.boxes[first].task.background or self._spare(
                    [lane, *neighbours.neighbours(lane, self.lanes)]
                )
                return first if spare else None
        tasks = [t for t, box in waiting if not box.alone_on and not self._better_elsewhere(t, lane)]
        plain = [task for task in tasks if not self.boxes[task].task.background]
        if not plain and not self._spare([lane]):
            return None
        return next(iter(plain or tasks), None)

    def _measuring(self, lane: LaneState, others_wait: bool) -> tuple[bool, str | None]:
        """Whether this idle lane takes nothing but this task, which needs a quiet node (None: not yet)."""
        if quiet.kept_off(lane, self.lanes):
            return True, None
        waiting = [task for task in self.queue if self.boxes[task].task.quiet]
        if not waiting or self.quiet_on not in quiet.nodes_of(lane):
            return False, None
        free = self.quiet_on == quiet.node_of(lane) and not quiet.occupied(lane, self.lanes)
        at_once = [task for task in waiting if not self.boxes[task].task.background]
        if at_once:
            return True, at_once[0] if free else None
        if free and not others_wait and self._spare([lane, *quiet.beside(lane, self.lanes)]):
            return True, waiting[0]
        return False, None

    def _spare(self, lanes: list[LaneState]) -> bool:
        """Whether these lanes may have a background task: for none of them a trial may be about to come."""
        now = time.monotonic()
        return self.trials_over or all(now - lane.free_since >= _SPARE_S for lane in lanes)

    def _better_elsewhere(self, task: str, lane: LaneState) -> bool:
        """Whether a GPU of this lane failed under the task, and another lane has none of those that did."""
        failed = self.incidents.gpus_of(task)
        if not failed & set(lane.gpus.values()):
            return False
        others = [set(o.gpus.values()) for o in self.lanes.values() if o.warm and not o.closing]
        return any(not gpus & failed and not self.incidents.any_of(gpus) for gpus in others)

    def _needed_elsewhere(self, lane: LaneState, box: Box) -> bool:
        """Whether the lane should leave its task: for one that comes first, or that has to be alone there."""
        if box.task.action != _RESUMES:
            return False
        waiting = [self.boxes[task] for task in self.queue]
        at_once = any(other.task.quiet and not other.task.background for other in waiting)
        if at_once and self.quiet_on in quiet.nodes_of(lane):
            return True
        trials = [other for other in waiting if not other.task.background]
        if box.task.background and any(neighbours.may_take(lane, other) for other in trials):
            return True
        if box.alone_on:
            return False
        # A trial leaves for no background task: it would come first again, and leave after each epoch.
        gpus, kept = neighbours.gpus_of(lane), waiting if box.task.background else trials
        return any(other.alone_on & gpus for other in kept)
