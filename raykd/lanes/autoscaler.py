"""What Ray's autoscaler reports: whether there is one, and whether nodes are starting. Both its versions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

_NO_CLOUD = (
    "local.cluster.node"  # the one type of `provider: {type: local}`, whose hosts are named in its file
)


def starting() -> bool:
    """Whether nodes are being started, for this sweep or for others."""
    said = _status_v2()
    if said is not None:
        return bool(said.pending_launches or said.pending_nodes)
    report = _report_v1()
    return bool(report.get("pending_launches") or report.get("pending_nodes"))


def autoscales() -> bool:
    """Whether there is an autoscaler that may start nodes. A driver cannot know which kinds, or how many."""
    said = _status_v2()
    if said is not None:
        return has_types(node.ray_node_type_name for node in [*said.active_nodes, *said.idle_nodes])
    report = _report_v1()
    return has_types([*(report.get("active_nodes") or ()), *(report.get("idle_nodes") or ())])


def has_types(types: Iterable[str]) -> bool:
    """Whether one of these node types comes from an autoscaler's configuration.

    On a cluster without an autoscaler, Ray reports for every node a type of its own: `node_` and its id.
    """
    return any(name != _NO_CLOUD and not _anonymous(name) for name in types)


def _anonymous(name: str) -> bool:
    kind, _, id = name.partition("_")
    return kind == "node" and len(id) == 56 and all(digit in "0123456789abcdef" for digit in id)


def _status_v2() -> Any:
    """The status of the autoscaler's second version; None where the first one runs."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    if not is_autoscaler_v2(fetch_from_server=True):
        return None
    return get_cluster_status(ray.get_runtime_context().gcs_address)


def _report_v1() -> dict[str, Any]:
    from ray.experimental.internal_kv import _internal_kv_get

    status = json.loads(_internal_kv_get("__autoscaling_status") or b"{}")
    return status.get("autoscaler_report") or {}
