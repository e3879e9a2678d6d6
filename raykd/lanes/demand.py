"""What a sweep asks of Ray's autoscaler: room for the lanes that it could use beyond the present nodes.

It asks with placement groups of a lane's shape that wait for room: autoscalers (both of Ray's, and KubeRay's)
add nodes for these. A group that has found room only keeps it until a lane takes it. A lane that waits for
room is such a group, too. So beyond the lanes that are wanted, one is opened only if it fits into free room.

`ray.autoscaler.sdk.request_resources` is not used. A cluster has only one such request, which holds until
another one replaces it. Ray Train writes it every 20 s (what its running groups have, for 180 s more if they
die), so that our request would be lost at once. Two sweeps would replace each other's requests, and the
request of a killed driver would keep machines running. The placement groups of several drivers add up, and
Ray removes those of a driver that dies.
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

_TRIALS_A_LANE = 4  # starting a node for fewer is not worth it, and a sampler learns from earlier trials
_MOST = 32  # groups that wait at once: Ray tries each again and again
_ANSWER_S = 20.0  # an autoscaler, which looks every 5 s, may start another node within this time
_START_S = 900.0  # a node may take so long to start
_LOOK_S = 0.5
_SURE_S = 5.0  # there is room, or none, for so long before a lane beyond those wanted comes or goes
_WAITS = ("PENDING", "PREPARED", "RESCHEDULING")
_HAS_ROOM = ("PREPARED", "CREATED")


class Demand:
    """Asks the autoscaler for nodes for lanes of these workers, and keeps the request up to date.

    `left()` returns how many trials have not ended. `lanes` is how many lanes the user wants at once; None:
    as many as have about four trials each.
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
        """How many lanes have a trial to take; at least 1, which measures references."""
        return max(1, min(self._lanes or self._left(), self._left()))

    @property
    def wanted(self) -> int:
        """How many lanes are worth the start of a node."""
        if self._lanes:
            return self.useful
        return min(self.useful, max(1, -(-self._left() // _TRIALS_A_LANE)))

    def bounds(self, room: int) -> tuple[int, int]:
        """(lanes up to which new ones are opened, lanes beyond which some end); `room` is for how many now.

        Lanes that are wanted may wait for room, others may not. Room counts as come or gone only after
        `_SURE_S`: a lane that starts again, of this sweep or another, leaves its room for a moment.
        """
        now = time.monotonic()
        self._rooms.append((now, room))
        while now - self._rooms[0][0] > _SURE_S:
            self._rooms.popleft()
        lately = [room for _, room in self._rooms]
        return max(self.wanted, min(lately)), max(self.wanted, max(lately))

    def room(self, run: str, going: Container[str]) -> int:
        """How many lanes have room now, or would find some on nodes that are not `going`.

        The names of their placement groups begin with `run`.
        """
        import ray.util
        from ray._private.state import available_resources_per_node

        table = ray.util.placement_group_table()
        ours = {group.id.hex() for group in self._groups}
        rows = [row for id, row in table.items() if id in ours or row["name"].startswith(f"{run}-")]
        free = [has for node, has in available_resources_per_node().items() if node not in going]
        placed = sum(row["state"] in _HAS_ROOM for row in rows)
        return placed + sum(fitting(self._workers, has) for has in free) // self._workers.count

    def ask(self, held: int, starting: int = 0, run: str = "?") -> None:
        """Ask for the lanes that are wanted beyond the `held` ones, for which the present nodes have room.

        New room is kept for the lanes that are `starting`, because the autoscaler would end an idle node.
        When a lane asks for room itself, by a placement group whose name begins with `run`, all groups of
        this object are removed for a moment, so that the lane gets the room.
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
        """Remove all requests."""
        from ray.util import remove_placement_group

        groups, self._groups = self._groups, []
        for group in groups:
            remove_placement_group(group)


def fitting(workers: WorkersSpec, free: Mapping[str, float]) -> int:
    """How many workers fit into the free resources of a node; of its GPUs Ray gives only the sum."""
    return min(int(free.get(kind, 0) / each + 1e-6) for kind, each in workers.resources.items())


def autoscaler_makes_room(workers: WorkersSpec) -> bool:
    """Ask the cluster's autoscaler for room for one lane, and wait for it. False if there will be none.

    A node counts when it has joined: one that starts may be of another type, or for another sweep.
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
