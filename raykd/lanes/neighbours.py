"""Lanes that share a GPU, and a task that has to be alone there.

A trial that runs out of a GPU's memory beside others may fit into the whole of it, so it is tried alone there
before it has failed. Until then the lanes of that GPU take no other task, and those that have one leave it
after its present epoch: it goes on later, or on another GPU. A background task keeps no trial off its GPU: it
waits until the lanes there have no other task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from raykd.lanes.messages import Box, LaneState

Lanes = Mapping[str, LaneState]


def gpus_of(lane: LaneState) -> set[str]:
    """The GPUs that the lane's workers have."""
    return set(lane.gpus.values())


def neighbours(lane: LaneState, lanes: Lanes) -> list[LaneState]:
    """The other lanes that share a GPU with this one."""
    return [other for other in lanes.values() if other is not lane and gpus_of(other) & gpus_of(lane)]


def processes(lane: LaneState, lanes: Lanes) -> int:
    """How many workers there are on the GPU of this lane that has most of them."""
    held = [gpu for other in lanes.values() for gpu in other.gpus.values()]
    return max((held.count(gpu) for gpu in gpus_of(lane)), default=0)


def may_take(lane: LaneState, box: Box) -> bool:
    """Whether the task may go to this lane: to any one, unless it has to be alone."""
    return not box.alone_on or bool(box.alone_on & gpus_of(lane))


def alone_first(lane: LaneState, waiting: Iterable[tuple[str, Box]]) -> str | None:
    """The waiting task, if any, that has to be alone and for which this lane's GPUs are kept free.

    None are kept free for a background task while another one waits that this lane may take.
    """
    here = [(name, box) for name, box in waiting if may_take(lane, box)]
    plain = [(name, box) for name, box in here if not box.task.background]
    return next((name for name, box in plain or here if box.alone_on), None)


def moved(box: Box, lanes: Lanes, open_lanes: Collection[LaneState]) -> set[str]:
    """The GPUs on which a waiting task has to be alone, now that these lanes may take tasks.

    They stay as they are if one of these lanes has such a GPU. Otherwise they are those of one lane, a warm
    one with few neighbours at work, so that the other GPUs need not be kept free. Without any lane there are
    none: the task is like all others until it runs out of memory beside one again.
    """
    if any(box.alone_on & gpus_of(lane) for lane in open_lanes):
        return box.alone_on

    def wait(lane: LaneState) -> tuple[bool, int]:
        return not lane.warm, sum(other.work is not None for other in [lane, *neighbours(lane, lanes)])

    return gpus_of(min(open_lanes, key=wait)) if open_lanes else set()


def occupied(lane: LaneState, lanes: Lanes) -> bool:
    """Whether another lane works on a GPU of this one."""
    return any(other.work is not None for other in neighbours(lane, lanes))


def kept_off(lane: LaneState, lanes: Lanes) -> bool:
    """Whether another lane has a task on a GPU of this one that has to be alone there."""
    return any(other.work is not None and other.work.alone for other in neighbours(lane, lanes))
