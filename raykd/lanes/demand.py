"""What a sweep asks of Ray's autoscaler: room for the lanes that it could use beyond the present nodes.

Asked by placement groups of a lane's shape that wait for room, because that is what the autoscalers (both of
Ray's, KubeRay's too) add nodes for. They only keep the room that they find until a lane takes it. A lane that
waits for room is such a group, too: none is opened, beyond those wanted, that does not fit into what is free.

`ray.autoscaler.sdk.request_resources` was the other way. A cluster has one such request, which holds until
another one replaces it. Ray Train writes it every 20 s (what its running groups have, for 180 s more should
they die), so one of ours would be gone at once; two sweeps would undo each other's; and after a killed driver
machines would run for nobody. The groups of several drivers add up, and Ray removes those of one that dies.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Container, Mapping
from typing import Any

from raykd.lanes.autoscaler import starting
from raykd.lanes.cluster import live_nodes
from raykd.spec.sections import WorkersSpec
from trainables.core.storage_retry import tell

_TRIALS_A_LANE = 4  # a node that starts for fewer hardly earns its start, and a sampler learns from rounds
_MOST = 32  # groups that wait at once: each is tried again and again
_ANSWER_S = 20.0  # an autoscaler looks every 5 s; so long after a node has joined, too, another may start
_START_S = 900.0  # a node may take so long to start
_LOOK_S = 0.5
_SURE_S = 5.0  # so long there has to be room, or none, before a lane beyond those wanted comes or goes
_WAITS = ("PENDING", "PREPARED", "RESCHEDULING")
_HAS_ROOM = ("PREPARED", "CREATED")


class Demand:
    """Keeps the autoscaler asked for lanes of these workers.

    `left()` is how many trials have not ended. `lanes`, where the user gave it, is how many are to be had at
    once; else there are nodes asked for while each lane has about four trials to take.
    """

    def __init__(self, workers: WorkersSpec, left: Callable[[], int], lanes: int | None = None) -> None:
        self._workers = workers
        self._shape = [workers.resources] * workers.count
        self._left = left
        self._lanes = lanes
        self._groups: list[Any] = []
        self._rooms: deque[tuple[float, int]] = deque()

    @property
    def useful(self) -> int:
        """Lanes that have a trial to take; at least the one that measures references."""
        return max(1, min(self._lanes or self._left(), self._left()))

    @property
    def wanted(self) -> int:
        """Lanes that it is worth having a node started for."""
        if self._lanes:
            return self.useful
        return min(self.useful, max(1, -(-self._left() // _TRIALS_A_LANE)))

    def bounds(self, room: int) -> tuple[int, int]:
        """Up to how many lanes may be opened, and beyond how many they end; there is now `room` for so many.

        Those wanted may wait for room, the others may not. What another sweep's lane leaves for a moment, or
        one of these that starts again, counts only when it has been so for a while.
        """
        now = time.monotonic()
        self._rooms.append((now, room))
        while now - self._rooms[0][0] > _SURE_S:
            self._rooms.popleft()
        lately = [room for _, room in self._rooms]
        return max(self.wanted, min(lately)), max(self.wanted, max(lately))

    def room(self, run: str, going: Container[str]) -> int:
        """Lanes that have room now (their placement groups' names begin with `run`) or would find some, not
        on the nodes that are `going`."""
        import ray.util
        from ray._private.state import available_resources_per_node

        table = ray.util.placement_group_table()
        ours = {group.id.hex() for group in self._groups}
        rows = [row for id, row in table.items() if id in ours or row["name"].startswith(f"{run}-")]
        free = [has for node, has in available_resources_per_node().items() if node not in going]
        placed = sum(row["state"] in _HAS_ROOM for row in rows)
        return placed + sum(fitting(self._workers, has) for has in free) // self._workers.count

    def ask(self, held: int, starting: int = 0, run: str = "?") -> None:
        """Ask for what is wanted beyond the `held` lanes that the present nodes have room for.

        Room that has come is kept, lest its node be taken for idle, for the lanes that are `starting`, until
        one of them asks for it by a placement group whose name begins with `run`. Then all is given back for
        a moment, so that it goes to that lane and not to what was asked for here.
        """
        from ray.util import placement_group, placement_group_table, remove_placement_group

        table = placement_group_table()
        if any(row["name"].startswith(f"{run}-") and row["state"] in _WAITS for row in table.values()):
            self.withdraw()
            return
        waiting = [group for group in self._groups if table.get(group.id.hex(), {}).get("state") in _WAITS]
        found = [group for group in self._groups if group not in waiting]
        missing = min(_MOST, max(0, self.wanted - held))
        for group in [*found[starting:], *waiting[missing:]]:
            remove_placement_group(group)
        waiting = waiting[:missing]
        for _ in range(missing - len(waiting)):
            waiting.append(placement_group(self._shape, name=f"raykd-demand-{uuid.uuid4().hex[:8]}"))
        self._groups = [*found[:starting], *waiting]

    def withdraw(self) -> None:
        """Ask for nothing any more."""
        from ray.util import remove_placement_group

        groups, self._groups = self._groups, []
        for group in groups:
            remove_placement_group(group)


def fitting(workers: WorkersSpec, free: Mapping[str, float]) -> int:
    """Workers that find room in what is free on a node, as far as Ray says: parts of GPUs it only adds up."""
    return min(int(free.get(kind, 0) / each + 1e-6) for kind, each in workers.resources.items())


def grows(workers: WorkersSpec) -> bool:
    """Whether the cluster's autoscaler makes room for a lane when one is asked for; waits until it is there.

    Nodes that start may be of another kind, or for others: they count when they have joined.
    """
    tell("the nodes have no room for a lane; an autoscaler, if there is one, is asked for some")
    demand = Demand(workers.on(live_nodes()), lambda: 1)
    demand.ask(0)
    said = False
    try:
        end = time.monotonic() + _START_S
        deadline = time.monotonic() + _ANSWER_S
        while time.monotonic() < min(deadline, end):
            if workers.lanes(live_nodes()):
                return True
            if starting():
                deadline = time.monotonic() + _ANSWER_S
                if not said:
                    tell(f"nodes are being started; they are waited for up to {_START_S / 60:g} minutes")
                    said = True
            time.sleep(_LOOK_S)
    finally:
        demand.withdraw()
    return False
