"""The pool of lanes: warm Ray Train worker groups that trials pass through.

Starting a Ray Train run costs 15 to 30 s; a lane pays that once. Each lane is one `LaneTrainer.fit()` in
a thread of the driver; its workers take task after task from the broker (`worker.py`). Ray Train keeps
the process group, the devices, and restarts the group when a worker dies. The pool adds a lane when the
live nodes can hold another worker group, and retires one when they cannot.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raykd.lanes.actions import ACTIONS
from raykd.lanes.autoscaler import autoscales
from raykd.lanes.cluster import draining_nodes, host_names, live_nodes, session_folder
from raykd.lanes.demand import Demand
from raykd.lanes.group import free
from raykd.lanes.lane import Lane, fit
from raykd.lanes.messages import Message, Task
from raykd.lanes.quarantine import Quarantine
from raykd.lanes.task_broker import TaskBroker
from raykd.process import signals
from raykd.spec.sections import WorkersSpec
from raykd.storage.base import SweepFolder
from raykd.storage.marker import StorageMarker
from raykd.storage.owners import keep_closed
from trainables.core.errors import SweepFailed, UserError

log = logging.getLogger("raykd.lanes.pool")

NAMESPACE = "raykd"
_POLL_S = 0.5
_CLOSE_S = 10.0  # how long a lane may take to end by itself
_ABORT_S = 20.0  # and how long one that is ended
_HURRIED_S = 2.0  # the same after a signal
_AFTER_S = 12.0  # and what Ray's own end and the tables may take then
_QUIET_S = 20.0  # this long without a busy lane is worth a word
_COLD_DEATHS = 3  # lanes that may end in a row without having become warm
_GONE, _STARTING, _IDLE, _BUSY = range(4)  # what a lane is worth; _GONE: a node of it is


_log_quarantine = partial(log.warning, "%s is in quarantine: %s")


class LanePool:
    """Keeps as many lanes warm as the cluster holds, up to `limit`.

    `sweep` has a folder that every node can write or has a copy of, `cache` is a folder on each
    node, `teachers` one beside the sweep's; `scratch`, of this machine, takes Ray's own files. `demand` asks
    the cluster's autoscaler for nodes, if there may be one. `on_event(text)` is told when lanes come and go,
    and when they wait for the storage; `on_quarantine(gpu, reason)` when a GPU is taken out of the sweep.
    """

    def __init__(
        self,
        workers: WorkersSpec,
        limit: int,
        *,
        sweep: SweepFolder,
        scratch: Path,
        cache: Path,
        teachers: Path,
        actions: Mapping[str, str] = ACTIONS,
        demand: Demand | None = None,
        on_event: Callable[[str], None] = log.info,
        on_quarantine: Callable[[str, str], object] = _log_quarantine,
    ) -> None:
        self.workers = workers
        self.limit = limit
        self.broker_name = f"broker-{uuid.uuid4().hex[:8]}"
        # On the driver's node, so that it lives and dies with the sweep and not with a worker node.
        here = ray.get_runtime_context().get_node_id()
        self.broker: Any = (
            ray.remote(TaskBroker)
            .options(
                name=self.broker_name,
                namespace=NAMESPACE,
                num_cpus=0,
                max_concurrency=10_000,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
            )
            .remote()
        )
        self.scratch = scratch
        self._session = session_folder()
        self.broken: str | None = None  # why no trial can run any more
        self._cold_deaths = 0
        self._active = time.monotonic()
        self._marker = StorageMarker(sweep, self.broker_name)
        self._marker.place()
        self._config = {
            **self._marker.config,
            "broker": self.broker_name,
            "namespace": NAMESPACE,
            "cpus": workers.cpus,
            "gpus": workers.gpus or 0.0,
            "cache": str(cache),
            "teachers": str(teachers),
            "actions": dict(actions),
        }
        self._demand = demand
        self._on_event = on_event
        self._quarantine = Quarantine(NAMESPACE, on_quarantine)
        self._lanes: dict[str, Lane] = {}
        self._count = 0
        self._state: dict[str, dict[str, Any]] = {}
        self._nodes: list[dict[str, Any]] = []  # those that are alive
        self._going: dict[str, float | None] = {}  # those of them that will go
        self._stopping = threading.Event()
        self._leaving = False
        self._supervisor = threading.Thread(target=self._supervise, name="lanes", daemon=True)

    # What the sweep uses --------------------------------------------------------------------------

    def __enter__(self) -> LanePool:
        """Begin to warm lanes. Returns at once."""
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all lanes and wait until their resources are free."""
        self._stop()

    def _start(self) -> None:
        # The broker is up, and knows who asks the storage, before the first lane looks for it.
        ray.get([self.broker.outlast.remote(), self.broker.keep.remote(self._marker.credentials)])
        self._adjust()
        self._supervisor.start()

    @property
    def warm(self) -> int:
        """Lanes that can take a trial now or after the one they have."""
        return sum(lane["warm"] and not lane["closing"] for lane in self._state.values())

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """Each lane by name: warm, idle, closing, task, nodes, GPUs. At most a second old."""
        return self._state

    def run(self, task: Task, on_report: Callable[[Message], None]) -> None:
        """Run a task that needs no verdicts and wait for its end.

        Raises `SweepFailed` when it failed, `UserError` when what the user wrote is why.
        """
        ray.get(self.broker.post.remote(task))
        while True:
            message = self._listen(task.id)
            if message.attempt:
                ray.get(self.broker.heard.remote(task.id, message.attempt))
            elif message.ended:
                self.broker.forget.remote(task.id)
                if message.failed and message.mistake:
                    field, _, problem = message.failed.partition(": ")
                    raise UserError(field, problem)
                if message.failed:
                    raise SweepFailed(f"{task.action}: {message.failed}")
                return
            else:
                on_report(message)
                ray.get(self.broker.deliver.remote(task.id, message.epoch, True))

    def _listen(self, task: str) -> Message:
        waiting = self.broker.listen.remote(task)
        while True:
            signals.check()
            if self.broken or self.stopping:
                raise SweepFailed(self.broken or "the sweep ends")
            with contextlib.suppress(ray.exceptions.GetTimeoutError):
                message: Message = ray.get(waiting, timeout=2.0)
                return message

    @property
    def stopping(self) -> bool:
        """Whether all lanes are being ended, and with them whatever they do."""
        return self._stopping.is_set()

    def leave(self) -> None:
        """End every lane with its present epoch, which is still judged, and open none any more."""
        self._leaving = True
        for lane in list(self._lanes.values()):
            lane.leaving = True
            self.broker.leave.remote(lane.name)

    @property
    def busy(self) -> bool:
        """Whether a lane has a task. At most a second old."""
        return any(lane["task"] for lane in self._state.values())

    def _stop(self) -> None:
        with signals.held():
            if not signals.received():
                self._end_lanes()
                return
            # Ray may have got the signal, too, and not answer any more: the ledger's end does not wait.
            ending = threading.Thread(target=self._try_to_end_lanes, name="ending", daemon=True)
            ending.start()
            ending.join(max(_HURRIED_S, signals.left() - _AFTER_S + 1))

    def _try_to_end_lanes(self) -> None:
        try:
            self._end_lanes()
        except Exception:
            log.exception("the lanes could not be ended in good order")

    def _end_lanes(self) -> None:
        close_s, abort_s = _CLOSE_S, _ABORT_S
        if signals.received():
            close_s, abort_s = _HURRIED_S, max(_HURRIED_S, signals.left() - _AFTER_S)
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join(close_s)
        if self._demand is not None:
            self._demand.withdraw()
        self.broker.clear.remote()
        for lane in list(self._lanes.values()):
            self._close(lane)
        deadline = time.monotonic() + close_s
        for lane in list(self._lanes.values()):
            lane.thread.join(max(0.0, deadline - time.monotonic()))
        # A lane that is only starting tells of its controller when that is up, which a busy node delays.
        deadline += abort_s
        while alive := [lane for lane in list(self._lanes.values()) if lane.thread.is_alive()]:
            for lane in alive:
                try:
                    self._abort(lane)
                except Exception:  # one of Ray's that is about to go
                    log.exception("%s could not be ended yet", lane.name)
            alive[0].thread.join(_POLL_S)
            if time.monotonic() > deadline:
                break
        free(self.broker_name)
        self._quarantine.release()
        ray.kill(self.broker)
        self._marker.remove()

    # Growing and shrinking ------------------------------------------------------------------------

    def _supervise(self) -> None:
        while not self._stopping.wait(_POLL_S):
            try:
                self._adjust()
                self._say_why_quiet()
            except ray.exceptions.ActorDiedError:
                self.broken = "the sweep's broker has died, and with it who does what"
                return
            except Exception:
                # A node that is just leaving can make any of these calls fail; the next round sees it gone.
                log.exception("the lanes could not be looked after")
            except BaseException as error:  # without this thread the sweep would wait for ever
                log.exception("the lanes are looked after no more")
                self.broken = f"nobody looks after the lanes any more: {type(error).__name__}"
                return

    def _adjust(self) -> None:
        self._hear()
        keep_closed(self._session)  # each process that Ray starts opens it again
        if self.broken or self._leaving:
            return
        nodes = live_nodes()
        self._nodes, self._going = self._quarantine.without(nodes), draining_nodes()
        for lane in list(self._lanes.values()):
            self._tend(lane)
        self._move_away()
        self._leave_sick_gpus()
        # What still trains on a sick GPU ends its epoch; an autoscaler may start another node.
        if self._quarantine.leaves_nothing(self.workers, nodes) and not (
            any(lane["task"] for lane in self._state.values()) or (self._demand is not None and autoscales())
        ):
            self.broken = f"without the GPUs in quarantine there is no room for a lane ({self._quarantine})"
            return
        in_use = {gpu for lane in self._lanes if lane in self._state for gpu in self._state[lane]["gpus"]}
        being_taken = self._quarantine.hold(nodes, in_use)
        lanes = [lane for lane in self._lanes.values() if lane.closing_since is None and not lane.leaving]
        most_opened, most_kept = self._bounds(lanes)
        # First those whose nodes are gone, then those that are not warm, then idle ones; never a busy one.
        surplus = max(0, len(lanes) - most_kept)
        for lane in sorted(lanes, key=self._worth)[:surplus]:
            if self._worth(lane) < _BUSY:
                self._retire(lane)
        if len(lanes) < most_opened and not being_taken and not self._stopping.is_set():
            self._open()

    def _hear(self) -> None:
        """What the workers said since the last time, and where each lane is."""
        box = self.broker
        asked = [box.lanes.remote(), box.said.remote(), box.refusals.remote(), box.quarantined.remote()]
        self._state, texts, refusals, sick = ray.get(asked)
        for text in texts:
            self._on_event(text)
        self._quarantine.hear(sick)
        if refusals:
            self.broken = refusals[0]

    def _tend(self, lane: Lane) -> None:
        state = self._state.get(lane.name)
        if state is not None and state["warm"]:
            lane.was_warm = True
            self._cold_deaths = 0
            if len(self._nodes) > 1 and state["nodes"] != lane.nodes:
                self._on_event(f"{lane.name} is warm on {host_names(state['nodes'], self._nodes)}")
            lane.nodes = state["nodes"]
        if not lane.thread.is_alive():
            self._bury(lane)
        elif lane.closing_since is None:
            self._end_if_stuck(lane)
        elif time.monotonic() - lane.closing_since > _CLOSE_S:
            self._abort(lane)

    def _bounds(self, lanes: list[Lane]) -> tuple[int, int]:
        """Up to how many lanes are opened, and down to how many are ended, `lanes` being those that stay."""
        target = self.target()
        if self._demand is None:
            return target, target
        starting = max(0, target - sum(self._worth(lane) > _STARTING for lane in lanes))
        self._demand.ask(target, starting, self.broker_name)
        may_open, may_stay = self._demand.bounds(self._demand.room(self.broker_name, self._going))
        return min(target, may_open), min(target, may_stay)

    def _retire(self, lane: Lane) -> None:
        worth = self._worth(lane)
        why = "its node is gone" if worth == _GONE else "there is no room or no trial for it"
        self._on_event(f"{lane.name} retires: {why}")
        self._close(lane)
        if worth <= _STARTING:
            self._abort(lane)

    def _move_away(self) -> None:
        """Lanes on nodes that will go end with their present epoch, or with their node if that is sooner."""
        for lane in self._lanes.values():
            state = self._state.get(lane.name)
            going = [self._going[node] for node in (state["nodes"] if state else ()) if node in self._going]
            if going and not lane.leaving:
                lane.leaving = True
                self.broker.leave.remote(lane.name)
                when = "".join(f" in {s:.0f} s" for s in going if s is not None)
                self._on_event(f"{lane.name} retires: its node goes{when}; its trial moves after this epoch")
            elif lane.leaving and lane.closing_since is None and self._worth(lane) == _GONE:
                self._abort(lane)

    def _leave_sick_gpus(self) -> None:
        """Lanes on a GPU in quarantine end, those that still train there with their present epoch."""
        for lane in self._lanes.values():
            state = self._state.get(lane.name)
            if state is None or not self._quarantine.holds(state["gpus"]) or lane.closing_since is not None:
                continue
            if state["warm"] and state["task"]:
                if not lane.leaving:
                    lane.leaving = True
                    self.broker.leave.remote(lane.name)
            else:
                self._close(lane)
                self._abort(lane)

    def _bury(self, lane: Lane) -> None:
        """A lane's run has ended: its trial goes to another. Too many that never got warm end the sweep."""
        del self._lanes[lane.name]
        ray.get(self.broker.lost.remote(lane.name))
        free(f"{self.broker_name}-{lane.name}")
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
        """A worker that hangs may hear nothing, so its lane is ended, and the trial goes to another one."""
        state, limit = self._state.get(lane.name), self.workers.hang_after
        if state is None or limit is None or state["stuck_s"] <= limit:
            return
        where = f", last seen at {state['where']}" if state["where"] else ""
        reason = f"no progress for {state['stuck_s']:.0f} s{where}"
        self._on_event(f"{lane.name} hangs and is ended: {state['task']} made {reason}")
        ray.get(self.broker.broke.remote(lane.name, reason))
        self._close(lane)
        self._abort(lane)

    def _say_why_quiet(self) -> None:
        """Where no lane has had anything to do for a while, the reason."""
        now = time.monotonic()
        if any(lane["task"] for lane in self._state.values()):
            self._active = now
        elif now - self._active > _QUIET_S:
            self._active = now
            workers = self.workers
            if self.target() == 0:
                asked = ", which an autoscaler, if there is one, is asked for" if self._demand else ""
                reason = (
                    f"the live nodes have no room for {workers.count} worker(s) of {workers.cpus:g} CPUs and "
                    f"{workers.gpus or 0:g} GPUs{asked}"
                )
            elif self.warm == 0:
                reason = f"{self.target()} lane(s) are starting, which takes 20 s, more on busy nodes"
            else:
                reason = "the warm lanes wait for trials"
            self._on_event(f"nothing is running: {reason}")

    def target(self) -> int:
        """How many lanes the live nodes that will not go can hold, at most `limit`. Half a second old."""
        nodes = [node for node in self._nodes if node["NodeID"] not in self._going]
        limit = self.limit if self._demand is None else min(self.limit, self._demand.useful)
        return min(limit, self.workers.lanes(nodes))

    def _worth(self, lane: Lane) -> int:
        state = self._state.get(lane.name)
        if state is not None and not set(state["nodes"]) <= {node["NodeID"] for node in self._nodes}:
            return _GONE
        if state is None or not state["warm"]:
            return _STARTING
        return _IDLE if state["idle"] else _BUSY

    def _open(self) -> None:
        name = f"lane-{self._count}"
        self._count += 1
        thread = threading.Thread(target=self._fit, args=(name,), name=name, daemon=True)
        self._lanes[name] = Lane(name, thread)
        thread.start()

    def _close(self, lane: Lane) -> None:
        lane.closing_since = lane.closing_since or time.monotonic()
        self.broker.close.remote(lane.name)

    def _abort(self, lane: Lane) -> None:
        """End a lane that does not end by itself: without its controller its resources come free."""
        with contextlib.suppress(ray.exceptions.RayActorError):
            controller = ray.get(self.broker.take_controller.remote(lane.name))
            if controller is not None:
                ray.kill(controller)

    def _fit(self, name: str) -> None:
        try:
            fit(name, self.workers, self._config, self.scratch)
        except BaseException as error:
            if not self._stopping.is_set():
                log.warning("%s ended: %s", name, error)
                if name in self._lanes:
                    self._lanes[name].error = f"{type(error).__name__}: {error}".splitlines()[0]
