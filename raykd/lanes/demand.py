"""What a sweep asks of Ray's autoscaler: room for the lanes that it could use beyond the present nodes.

Asked by placement groups of a lane's shape that wait for room, because that is what the autoscalers (both of
Ray's, KubeRay's too) add nodes for. They only keep the room that they find until a lane takes it.

`ray.autoscaler.sdk.request_resources` was the other way. A cluster has one such request, which holds until
another one replaces it. Ray Train writes it every 20 s (what its running groups have, for 180 s more should
they die), so one of ours would be gone at once; two sweeps would undo each other's; and after a killed driver
machines would run for nobody. The groups of several drivers add up, and Ray removes those of one that dies.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from raykd.lanes.cluster import live_nodes
from raykd.spec.sections import WorkersSpec
from trainables.patience import tell

_TRIALS_A_LANE = 4  # a node that starts for fewer hardly earns its start, and a sampler learns from rounds
_MOST = 32  # groups that wait at once: each is tried again and again
_ANSWER_S = 20.0  # an autoscaler looks every 5 s
_LOOK_S = 0.5
_WAITS = ("PENDING", "PREPARED", "RESCHEDULING")


class Demand:
    """Keeps the autoscaler asked for lanes of these workers.

    `left()` is how many trials have not ended. `lanes`, where the user gave it, is how many are to be had at
    once; else there are nodes asked for while each lane has about four trials to take.
    """

    def __init__(self, workers: WorkersSpec, left: Callable[[], int], lanes: int | None = None) -> None:
        self._shape = [workers.resources] * workers.count
        self._left = left
        self._lanes = lanes
        self._groups: list[Any] = []

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


def grows(workers: WorkersSpec) -> bool:
    """Whether the cluster's autoscaler starts nodes when a lane is asked for that has no room now."""
    tell("the nodes have no room for a lane; an autoscaler, if there is one, is asked for some")
    demand = Demand(workers, lambda: 1)
    nodes = len(live_nodes())
    demand.ask(0)
    try:
        deadline = time.monotonic() + _ANSWER_S
        while time.monotonic() < deadline:
            if _starting() or len(live_nodes()) > nodes:
                return True
            time.sleep(_LOOK_S)
    finally:
        demand.withdraw()
    return False


def _starting() -> bool:
    """Whether nodes are being started."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2(fetch_from_server=True):
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        return bool(status.pending_launches or status.pending_nodes)
    said = json.loads(_internal_kv_get("__autoscaling_status") or b"{}").get("autoscaler_report") or {}
    return bool(said.get("pending_launches") or said.get("pending_nodes"))
