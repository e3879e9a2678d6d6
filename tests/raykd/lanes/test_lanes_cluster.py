"""Lanes follow a cluster. In a file of its own: Ray's test cluster needs a process without another Ray."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from pools import pool_of, quick_importable, task, until

from raykd.lanes import lane_set
from raykd.lanes.cluster import connected, quiet
from raykd.lanes.demand import Demand
from raykd.lanes.messages import Message
from raykd.spec.sections import WorkersSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PREEMPTION = 2  # of autoscaler.proto's DrainNodeReason


def drain(address: str, node: str, seconds: float) -> None:
    """Tell Ray what a cloud's agent tells it of a spot instance."""
    from ray._raylet import GcsClient

    accepted, why = GcsClient(address=address).drain_node(
        node, PREEMPTION, "spot", int((time.time() + seconds) * 1000)
    )
    assert accepted, why


def asked() -> list[list[dict[str, float]]]:
    """The bundles of every placement group that waits for room: for these Ray's autoscalers add nodes."""
    import ray
    from ray._raylet import GcsClient
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    state = get_cluster_resource_state(GcsClient(address=ray.get_runtime_context().gcs_address))
    groups = state.pending_gang_resource_requests
    return [[dict(bundle.resources_bundle) for bundle in group.requests] for group in groups]


def controllers() -> Counter[str]:
    """How many controllers of lanes live on each node."""
    import ray._private.state

    actors = ray._private.state.actors().values()
    alive = (one for one in actors if one["State"] == "ALIVE" and one["ActorClassName"] == "TrainController")
    return Counter(one["Address"]["NodeID"] for one in alive)


def test_the_pool_grows_and_shrinks_with_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet()
    monkeypatch.setattr(lane_set, "CONTROLLERS_HERE", 1)
    from ray.cluster_utils import Cluster
    from ray.util import placement_group

    with quick_importable():
        # Without a dashboard, and so without the State API, a lane that is lost must come free all the same.
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            one, left = WorkersSpec(cpus=1), [12]
            demand = Demand(one, lambda: left[0])
            with connected(cluster.address), pool_of(tmp_path, one, limit=4, demand=demand) as pool:
                until(lambda: pool.warm == 1, 180)
                assert pool.target() == 1
                until(lambda: asked() == 2 * [[{"CPU": 1}]], 30, "for four trials a lane to be asked for")
                node = cluster.add_node(num_cpus=1)
                until(lambda: pool.warm == 2, 180, "for the lane on the new node")
                until(lambda: asked() == [[{"CPU": 1}]], 30, "for the room that has come not to be asked for")
                head = cluster.head_node.node_id
                assert sorted(lane.controller_node for lane in pool.lanes) == sorted([head, node.node_id])
                # Ray takes another node where the one that was asked for is not ready yet.
                assert controllers() in ({head: 1, node.node_id: 1}, {head: 2})
                left[0] = 4
                until(lambda: not asked(), 30, "for nothing to be asked for a trial a lane")
                said: list[Message] = []
                trials = [task(tmp_path, name, pause=0.5) for name in ("one", "two")]
                threads = [threading.Thread(target=pool.run, args=(t, said.append)) for t in trials]
                for thread in threads:
                    thread.start()
                until(lambda: len(said) >= 2, 120)
                cluster.remove_node(node, allow_graceful=False)
                until(lambda: len(pool.state) == 1, 180, "for the lost lane to retire")
                for thread in threads:
                    thread.join(180)
                assert sorted(m.epoch for m in said) == sorted(2 * [1, 2, 3, 4, 5]), (
                    "both trials end, each epoch once"
                )

                spot = cluster.add_node(num_cpus=1)
                until(lambda: pool.warm == 2, 180, "for the lane on the spot node")
                said.clear()
                trials = [task(tmp_path, name, pause=1.5) for name in ("three", "four")]
                threads = [threading.Thread(target=pool.run, args=(t, said.append)) for t in trials]
                for thread in threads:
                    thread.start()
                until(lambda: len(said) >= 2, 120)
                drain(cluster.address, spot.node_id, 60)
                until(lambda: len(pool.state) == 1, 50, "for the lane to leave in good time")
                assert pool.target() == 1
                for thread in threads:
                    thread.join(180)
                assert sorted(m.epoch for m in said) == sorted(2 * [1, 2, 3, 4, 5])
                starts = [(tmp_path / name / "starts").read_text().split() for name in ("three", "four")]
                moved = max(starts, key=len)
                assert len(moved) == 2 and int(moved[1]) >= 1, (
                    "it goes on from its checkpoint, losing nothing"
                )

                theirs = placement_group([{"CPU": 1}])
                until(lambda: len(asked()) == 1, 30)
                cluster.add_node(num_cpus=1)
                until(lambda: pool.target() == 2 and theirs.wait(0), 60, "for another sweep's node")
                time.sleep(2)
                assert len(pool.lanes) == 1 and not asked(), "no lane beyond those wanted waits there"
        finally:
            cluster.shutdown()
