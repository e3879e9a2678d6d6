"""A task that needs a quiet node: while it measures time, no other lane of the sweep works there.

It is given to a lane of one node, the same for all such tasks, so that their times can be compared. Until it
has run, lanes on that node take no other task, and those that train leave after their present epoch and go
on later. A background task keeps no trial waiting: it runs once the lanes there have nothing else. Other
programs on the node are not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from raykd.lanes.messages import LaneState

Lanes = Mapping[str, LaneState]


def node_of(lane: LaneState) -> str:
    """The node of the worker that measures, the first one."""
    return lane.ranks.get(0, "")


def nodes_of(lane: LaneState) -> set[str]:
    """The nodes on which the lane's workers are."""
    return set(lane.ranks.values())


def beside(lane: LaneState, lanes: Lanes) -> list[LaneState]:
    """The other lanes that have workers on the node of this lane's first worker."""
    return [other for other in lanes.values() if other is not lane and node_of(lane) in nodes_of(other)]


def occupied(lane: LaneState, lanes: Lanes) -> bool:
    """Whether another lane works on that node."""
    return any(other.work is not None for other in beside(lane, lanes))


def kept_off(lane: LaneState, lanes: Lanes) -> bool:
    """Whether another lane measures on a node of this one."""
    measuring = (o for o in lanes.values() if o is not lane and o.work is not None and o.work.quiet)
    return any(node_of(other) in nodes_of(lane) for other in measuring)


def chosen(node: str, lanes: Lanes, open_lanes: Collection[LaneState]) -> str:
    """The node to measure on: `node` while an open lane is there, else that with the fewest lanes at work.

    "" where no lane is open.
    """
    known = [lane for lane in open_lanes if lane.warm]
    if any(node_of(lane) == node for lane in known):
        return node

    def at_work(lane: LaneState) -> int:
        return sum(other.work is not None for other in [lane, *beside(lane, lanes)])

    return node_of(min(known, key=at_work)) if known else ""
