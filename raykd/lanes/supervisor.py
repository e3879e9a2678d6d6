"""The thread that decides how many lanes there are.

Every half second it asks the broker and Ray what has changed. It opens a lane where the live nodes can hold
another one, and retires lanes where they cannot. Nodes come and go, an autoscaler may add some, and GPUs in
quarantine count as absent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.exceptions

from raykd.lanes.autoscaler import autoscales
from raykd.lanes.cluster import draining_nodes, live_nodes, session_folder
from raykd.lanes.demand import Demand
from raykd.lanes.lane import Lane
from raykd.lanes.lane_set import POLL_S, LaneSet, Phase
from raykd.lanes.quarantine import Quarantine
from raykd.spec.sections import WorkersSpec
from raykd.storage.owners import keep_closed

log = logging.getLogger(__name__)

_QUIET_S = 20.0  # after so long without a busy lane the user is told why


class Supervisor:
    """Keeps as many `lanes` as the nodes hold, at most `limit`.

    `demand` asks an autoscaler for nodes; None where there cannot be one.
    """

    def __init__(
        self,
        lanes: LaneSet,
        broker: Any,
        broker_name: str,
        workers: WorkersSpec,
        limit: int,
        quarantine: Quarantine,
        demand: Demand | None,
        on_event: Callable[[str], None],
    ) -> None:
        self._lanes, self._workers, self._limit = lanes, workers, limit
        self._broker, self._broker_name = broker, broker_name
        self._quarantine, self._demand = quarantine, demand
        self._on_event = on_event
        self._session = session_folder()
        self._active = time.monotonic()  # when a lane was last busy
        self._thread = threading.Thread(target=self._run, name="lanes", daemon=True)

    def start(self) -> None:
        """Open the first lane, then go on in a thread until `LaneSet.stopping` is set."""
        self._adjust()
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended, at most `timeout_s`."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def target(self) -> int:
        """How many lanes the live nodes that stay can hold, at most `limit`. At most half a second old."""
        lanes = self._lanes
        nodes = [node for node in lanes.nodes if node["NodeID"] not in lanes.departing]
        limit = self._limit if self._demand is None else min(self._limit, self._demand.useful)
        return min(limit, self._workers.lanes(nodes))

    def _run(self) -> None:
        lanes = self._lanes
        while not lanes.stopping.wait(POLL_S):
            try:
                self._adjust()
                self._say_why_quiet()
            except ray.exceptions.ActorDiedError:
                lanes.broken = "the sweep's broker has died, and with it who does what"
                return
            except Exception:
                # A node that is just leaving can make any of these calls fail; the next round sees it gone.
                log.exception("the lanes could not be looked after")
            except BaseException as error:  # without this thread the sweep would wait for ever
                log.exception("the lanes are looked after no more")
                lanes.broken = f"nobody looks after the lanes any more: {type(error).__name__}"
                return

    def _adjust(self) -> None:
        """One round."""
        lanes, quarantine = self._lanes, self._quarantine
        self._hear()
        keep_closed(self._session)  # each process that Ray starts opens the folder again
        if lanes.broken or lanes.leaving:
            return
        nodes = live_nodes()
        lanes.nodes, lanes.departing = quarantine.without(nodes), draining_nodes()
        lanes.tend()
        lanes.move_away()
        lanes.leave_sick_gpus(quarantine)
        # A lane that still trains on a sick GPU ends its epoch; an autoscaler may start another node.
        if quarantine.leaves_nothing(self._workers, nodes) and not (
            lanes.busy or (self._demand is not None and autoscales())
        ):
            lanes.broken = f"without the GPUs in quarantine there is no room for a lane ({quarantine})"
            return
        being_taken = quarantine.hold(nodes, lanes.gpus)
        staying = lanes.staying
        most_opened, most_kept = self._bounds(staying)
        surplus = max(0, len(staying) - most_kept)
        for lane in sorted(staying, key=lanes.phase)[:surplus]:
            if lanes.phase(lane) < Phase.BUSY:
                lanes.retire(lane)
        if len(staying) < most_opened and not being_taken and not lanes.stopping.is_set():
            lanes.open()

    def _hear(self) -> None:
        """Ask the broker where each lane is, and what the workers said since the last round."""
        broker = self._broker
        asked = [broker.lanes.remote(), broker.said.remote()]
        asked += [broker.refusals.remote(), broker.quarantined.remote()]
        self._lanes.state, texts, refusals, sick = ray.get(asked)
        for text in texts:
            self._on_event(text)
        self._quarantine.hear(sick)
        if refusals:
            self._lanes.broken = refusals[0]

    def _bounds(self, staying: list[Lane]) -> tuple[int, int]:
        """(lanes up to which new ones are opened, lanes beyond which some are retired)."""
        target = self.target()
        if self._demand is None:
            return target, target
        running = sum(self._lanes.phase(lane) > Phase.STARTING for lane in staying)
        self._demand.ask(target, max(0, target - running), self._broker_name)
        may_open, may_stay = self._demand.bounds(self._demand.room(self._broker_name, self._lanes.departing))
        return min(target, may_open), min(target, may_stay)

    def _say_why_quiet(self) -> None:
        """Tell the user why no lane has had a task for a while."""
        now, workers = time.monotonic(), self._workers
        if self._lanes.busy:
            self._active = now
        elif now - self._active > _QUIET_S:
            self._active = now
            if self.target() == 0:
                asked = ", which an autoscaler, if there is one, is asked for" if self._demand else ""
                reason = (
                    f"the live nodes have no room for {workers.count} worker(s) of {workers.cpus:g} CPUs and "
                    f"{workers.gpus or 0:g} GPUs{asked}"
                )
            elif not any(lane["warm"] and not lane["closing"] for lane in self._lanes.state.values()):
                reason = f"{self.target()} lane(s) are starting, which takes 20 s, more on busy nodes"
            else:
                reason = "the warm lanes wait for trials"
            self._on_event(f"nothing is running: {reason}")
