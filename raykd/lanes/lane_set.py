"""The lanes that exist: each is opened, watched and ended here.

A lane ends by itself when the broker tells it to close. A lane that cannot do so (its workers hang, or its
node is gone) is aborted: its Ray Train controller is killed, which frees the lane's resources.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from raykd.lanes.cluster import host_names
from raykd.lanes.group import free
from raykd.lanes.lane import Lane, fit
from raykd.lanes.quarantine import Quarantine
from raykd.spec.sections import WorkersSpec

log = logging.getLogger(__name__)

POLL_S = 0.5
CLOSE_S = 10.0  # how long a lane may take to end by itself
CONTROLLERS_HERE = 8  # on the driver's node: each takes 120 MiB (`benchmarks/scale.py memory`)
_COLD_DEATHS = 3  # so many lanes in a row that end before they were warm end the sweep


class Phase(IntEnum):
    """What a lane does. The order is that in which lanes end when there are too many."""

    GONE = 0  # one of its nodes is gone
    STARTING = 1
    IDLE = 2
    BUSY = 3


class LaneSet:
    """All lanes of a sweep.

    `config` is what a lane's workers are told. Ray Train's own files go to `scratch`. `on_event(text)` is
    called when a lane comes, goes or moves.

    `state` is what the broker says of each lane (`TaskBroker.lanes`), `nodes` the live nodes without sick
    GPUs, `departing` those of them that will go, with the seconds that are left (None: not known). The
    supervisor renews all three in every round. `broken` says why no trial can run any more, or is None.
    """

    def __init__(
        self,
        broker: Any,
        broker_name: str,
        workers: WorkersSpec,
        config: Mapping[str, Any],
        scratch: Path,
        on_event: Callable[[str], None],
    ) -> None:
        self.state: dict[str, dict[str, Any]] = {}
        self.nodes: list[dict[str, Any]] = []
        self.departing: dict[str, float | None] = {}
        self.broken: str | None = None
        self.stopping = threading.Event()  # all lanes are being ended
        self.leaving = False  # every lane ends after its present epoch, and no new one is opened
        self._broker, self._broker_name = broker, broker_name
        self._workers, self._config, self._scratch = workers, config, scratch
        self._on_event = on_event
        self._lanes: dict[str, Lane] = {}
        self._opened = 0
        self._cold_deaths = 0

    def __iter__(self) -> Iterator[Lane]:
        """Over a copy: other threads open and remove lanes."""
        return iter(list(self._lanes.values()))

    def __len__(self) -> int:
        """Lanes whose run has not ended, the closing ones included."""
        return len(self._lanes)

    @property
    def busy(self) -> bool:
        """Whether a lane has a task."""
        return any(lane["task"] for lane in self.state.values())

    @property
    def staying(self) -> list[Lane]:
        """The lanes that are neither closing nor leaving."""
        return [lane for lane in self if lane.closing_since is None and not lane.leaving]

    @property
    def gpus(self) -> set[str]:
        """The GPUs that the lanes use, by `devices.Gpu.key`."""
        return {gpu for lane in self if lane.name in self.state for gpu in self.state[lane.name]["gpus"]}

    def phase(self, lane: Lane) -> Phase:
        """What the lane does, as of the last round."""
        state = self.state.get(lane.name)
        if state is not None and not self._alive(state["nodes"]):
            return Phase.GONE
        if state is None or not state["warm"]:
            return Phase.STARTING
        return Phase.IDLE if state["idle"] else Phase.BUSY

    def _alive(self, nodes: Sequence[str]) -> bool:
        """Whether all of these nodes (Ray's ids) are live ones."""
        return set(nodes) <= {node["NodeID"] for node in self.nodes}

    # Opening and ending one lane ------------------------------------------------------------------

    def open(self) -> None:
        """Start another lane. Returns at once; the lane is warm after 15 to 30 s."""
        name = f"lane-{self._opened}"
        self._opened += 1
        node = self._controller_node()
        thread = threading.Thread(target=self._fit, args=(name, node), name=name, daemon=True)
        self._lanes[name] = Lane(name, thread, node)
        thread.start()

    def _controller_node(self) -> str:
        """The node for the controller of another lane.

        The driver's, as far as `CONTROLLERS_HERE` allows: a controller elsewhere is lost with a node on which
        its lane may have no worker. Then that of the others with the fewest.
        """
        here: str = ray.get_runtime_context().get_node_id()
        taken = Counter(lane.controller_node for lane in self)
        if taken[here] < CONTROLLERS_HERE:
            return here
        others = [node["NodeID"] for node in self.nodes if node["NodeID"] not in {here, *self.departing}]
        return min(others, key=taken.__getitem__, default=here)

    def close(self, lane: Lane) -> None:
        """Let the lane end when its present task has ended."""
        lane.closing_since = lane.closing_since or time.monotonic()
        self._broker.close.remote(lane.name)

    def abort(self, lane: Lane) -> None:
        """Kill the lane's controller: its resources come free even if its workers hang."""
        with contextlib.suppress(ray.exceptions.RayActorError):
            controller = ray.get(self._broker.take_controller.remote(lane.name))
            if controller is not None:
                ray.kill(controller)

    def retire(self, lane: Lane) -> None:
        """End a lane for which there is no room or no trial."""
        phase = self.phase(lane)
        # Of a lost worker the broker may hear before the node is missed: then the lane counts as starting.
        gone = phase == Phase.GONE or not self._alive(lane.nodes)
        why = "its node is gone" if gone else "there is no room or no trial for it"
        self._on_event(f"{lane.name} retires: {why}")
        self.close(lane)
        if phase <= Phase.STARTING:
            self.abort(lane)

    def _leave(self, lane: Lane) -> None:
        lane.leaving = True
        self._broker.leave.remote(lane.name)

    def _fit(self, name: str, node: str) -> None:
        """The whole life of a lane, in its own thread."""
        try:
            fit(name, self._workers, self._config, self._scratch, node)
        except BaseException as error:
            if not self.stopping.is_set():
                log.warning("%s ended: %s", name, error)
                if name in self._lanes:
                    self._lanes[name].error = f"{type(error).__name__}: {error}".splitlines()[0]

    # One round of the supervisor ------------------------------------------------------------------

    def tend(self) -> None:
        """Look at every lane once: note those that became warm or ended, end those that hang."""
        for lane in self:
            self._tend(lane)

    def move_away(self) -> None:
        """Lanes on departing nodes end after their present epoch, or with their node if that is sooner."""
        for lane in self:
            state = self.state.get(lane.name)
            nodes = {*state["nodes"], lane.controller_node} if state else ()
            going = [self.departing[node] for node in nodes if node in self.departing]
            if going and not lane.leaving:
                self._leave(lane)
                when = "".join(f" in {s:.0f} s" for s in going if s is not None)
                self._on_event(f"{lane.name} retires: its node goes{when}; its trial moves after this epoch")
            elif lane.leaving and lane.closing_since is None and self.phase(lane) == Phase.GONE:
                self.abort(lane)

    def leave_sick_gpus(self, quarantine: Quarantine) -> None:
        """Lanes on a GPU in quarantine end; one that trains there ends after its present epoch."""
        for lane in self:
            state = self.state.get(lane.name)
            if state is None or not quarantine.holds(state["gpus"]) or lane.closing_since is not None:
                continue
            if state["warm"] and state["task"]:
                if not lane.leaving:
                    self._leave(lane)
            else:
                self.close(lane)
                self.abort(lane)

    def _tend(self, lane: Lane) -> None:
        state = self.state.get(lane.name)
        if state is not None and state["warm"]:
            lane.was_warm = True
            self._cold_deaths = 0
            if len(self.nodes) > 1 and state["nodes"] != lane.nodes:
                self._on_event(f"{lane.name} is warm on {host_names(state['nodes'], self.nodes)}")
            lane.nodes = state["nodes"]
        if not lane.thread.is_alive():
            self._remove(lane)
        elif lane.closing_since is None:
            self._end_if_stuck(lane)
        elif time.monotonic() - lane.closing_since > CLOSE_S:
            self.abort(lane)

    def _remove(self, lane: Lane) -> None:
        """Forget a lane whose run has ended: its trial goes to another lane.

        The sweep cannot go on if too many lanes in a row never became warm.
        """
        del self._lanes[lane.name]
        ray.get(self._broker.lost.remote(lane.name))
        free(f"{self._broker_name}-{lane.name}")
        if lane.closing_since is not None or lane.leaving:
            return
        if lane.was_warm:
            self._on_event(f"{lane.name} was lost; its trial goes to another lane")
            return
        self._cold_deaths += 1
        self._on_event(f"{lane.name} did not start: {lane.error or 'its log says why'}")
        if self._cold_deaths >= _COLD_DEATHS:
            self.broken = f"{self._cold_deaths} lanes in a row did not start: {lane.error}"

    def _end_if_stuck(self, lane: Lane) -> None:
        """End a lane whose workers hang. They may hear nothing, so the lane is aborted too."""
        state, limit = self.state.get(lane.name), self._workers.hang_after
        if state is None or limit is None or state["stuck_s"] <= limit:
            return
        where = f", last seen at {state['where']}" if state["where"] else ""
        reason = f"no progress for {state['stuck_s']:.0f} s{where}"
        self._on_event(f"{lane.name} hangs and is ended: {state['task']} made {reason}")
        ray.get(self._broker.broke.remote(lane.name, reason))
        self.close(lane)
        self.abort(lane)

    # All lanes at once ----------------------------------------------------------------------------

    def leave(self) -> None:
        """End every lane after its present epoch, which is still decided on, and open no new one."""
        self.leaving = True
        for lane in self:
            self._leave(lane)

    def end(self, close_s: float, abort_s: float) -> None:
        """End every lane: `close_s` seconds are for ending by themselves, `abort_s` more for aborting."""
        for lane in self:
            self.close(lane)
        deadline = time.monotonic() + close_s
        for lane in self:
            lane.thread.join(max(0.0, deadline - time.monotonic()))
        # A lane that is only starting names its controller when that is up, which a busy node delays.
        deadline += abort_s
        while alive := [lane for lane in self if lane.thread.is_alive()]:
            for lane in alive:
                try:
                    self.abort(lane)
                except Exception:  # a Ray that is about to end
                    log.exception("%s could not be ended yet", lane.name)
            alive[0].thread.join(POLL_S)
            if time.monotonic() > deadline:
                break
        free(self._broker_name)
