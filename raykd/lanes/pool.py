"""The pool of lanes: warm Ray Train worker groups that trials pass through.

Starting a Ray Train run costs 15 to 30 s; a lane pays that once. Each lane is one `LaneTrainer.fit()` in
a thread of the driver; its workers take task after task from the broker (`worker.py`). Ray Train keeps
the process group and the devices, and restarts the group when a worker dies. `supervisor.py` decides how
many lanes there are, `lane_set.py` opens, watches and ends them. This file is what a sweep uses.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raykd.lanes.actions import ACTIONS
from raykd.lanes.demand import Demand
from raykd.lanes.lane_set import CLOSE_S, LaneSet
from raykd.lanes.messages import Message, Task
from raykd.lanes.quarantine import Quarantine
from raykd.lanes.supervisor import Supervisor
from raykd.lanes.task_broker import TaskBroker
from raykd.process import signals
from raykd.spec.sections import WorkersSpec
from raykd.storage.base import SweepFolder
from raykd.storage.marker import StorageMarker
from trainables.core.errors import SweepFailed
from trainables.targets.room import Room

log = logging.getLogger(__name__)

NAMESPACE = "raykd"
_ABORT_S = 20.0  # how long a lane may take to end after its controller was killed
_HURRIED_S = 2.0  # the shortest that either end may take after a signal
_AFTER_S = 12.0  # what the end of Ray and the sweep's last tables may take after a signal

_log_quarantine = partial(log.warning, "%s is in quarantine: %s")


class LanePool:
    """Keeps as many lanes warm as the cluster holds, up to `limit`.

    `sweep` has a folder that every node can write, or has a copy of. `cache` is a folder on each
    node, `teachers` one beside the sweep's folder; `targets` is the room in the cache for teachers' answers.
    Ray's own files go to `scratch`, on this machine. `demand` asks the cluster's autoscaler for nodes; None
    where there cannot be one. `on_event(text)` is called when a lane comes or goes, and when one waits for
    the storage; `on_quarantine(gpu, reason)` when a GPU is taken out of the sweep.
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
        targets: Room = "off",
        actions: Mapping[str, str] = ACTIONS,
        plugins: Mapping[str, Any] | None = None,
        demand: Demand | None = None,
        on_event: Callable[[str], None] = log.info,
        on_quarantine: Callable[[str, str], object] = _log_quarantine,
    ) -> None:
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
        self._marker = StorageMarker(sweep, self.broker_name)
        self._marker.place()
        config = {
            **self._marker.config,
            "broker": self.broker_name,
            "namespace": NAMESPACE,
            "cpus": workers.cpus,
            "gpus": workers.gpus or 0.0,
            "cache": str(cache),
            "teachers": str(teachers),
            "targets": targets,
            "actions": dict(actions),
            "plugins": plugins,
        }
        self._demand = demand
        self._quarantine = Quarantine(NAMESPACE, on_quarantine)
        self.lanes = LaneSet(self.broker, self.broker_name, workers, config, scratch, on_event)
        self._supervisor = Supervisor(
            self.lanes,
            self.broker,
            self.broker_name,
            workers,
            limit,
            self._quarantine,
            demand,
            on_event,
        )

    def __enter__(self) -> LanePool:
        """Begin to warm lanes. Returns at once."""
        try:
            # The broker is up, and has the storage's credentials, before the first lane looks for it.
            ray.get(self.broker.protect_from_oom_killer.remote())
            ray.get(self.broker.keep.remote(self._marker.credentials))
            self._supervisor.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all lanes and wait until their resources are free."""
        self._stop()

    @property
    def warm(self) -> int:
        """Lanes that can take a trial now or after the one they have."""
        return sum(lane["warm"] and not lane["closing"] for lane in self.state.values())

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """Each lane by name: warm, idle, closing, task, nodes, GPUs. At most a second old."""
        return self.lanes.state

    @property
    def busy(self) -> bool:
        """Whether a lane has a task. At most a second old."""
        return self.lanes.busy

    @property
    def broken(self) -> str | None:
        """Why no trial can run any more; None while trials can."""
        return self.lanes.broken

    @property
    def stopping(self) -> bool:
        """Whether all lanes are being ended, and with them whatever they do."""
        return self.lanes.stopping.is_set()

    def target(self) -> int:
        """How many lanes there should be. At most half a second old."""
        return self._supervisor.target()

    def leave(self) -> None:
        """End every lane after its present epoch, which is still decided on, and open no new one."""
        self.lanes.leave()

    def no_more_trials(self) -> None:
        """Say that only background tasks are left, which then wait for no trial."""
        self.broker.no_more_trials.remote()

    def run(self, task: Task, on_report: Callable[[Message], None]) -> None:
        """Run a task whose reports are all answered with "go on", and wait for its end.

        Raises `UserError` when what the user wrote is why it failed, else `SweepFailed`.
        """
        ray.get(self.broker.post.remote(task))
        while True:
            message = self._listen(task.id)
            if message.attempt:
                ray.get(self.broker.heard.remote(task.id, message.attempt))
            elif message.ended:
                self.broker.forget.remote(task.id)
                if message.mistake is not None:
                    raise message.mistake
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

    def _stop(self) -> None:
        with signals.held():
            if not signals.received():
                self._end()
                return
            # Ray may have got the signal, too, and not answer any more: the ledger's end does not wait.
            ending = threading.Thread(target=self._try_to_end, name="ending", daemon=True)
            ending.start()
            ending.join(max(_HURRIED_S, signals.left() - _AFTER_S + 1))

    def _try_to_end(self) -> None:
        try:
            self._end()
        except Exception:
            log.exception("the lanes could not be ended in good order")

    def _end(self) -> None:
        close_s, abort_s = CLOSE_S, _ABORT_S
        if signals.received():
            close_s, abort_s = _HURRIED_S, max(_HURRIED_S, signals.left() - _AFTER_S)
        self.lanes.stopping.set()
        self._supervisor.join(close_s)
        if self._demand is not None:
            self._demand.withdraw()
        self.broker.clear.remote()
        self.lanes.end(close_s, abort_s)
        self._quarantine.release()
        ray.kill(self.broker)
        self._marker.remove()
