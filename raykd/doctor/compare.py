"""Comparing the answers of a cluster's nodes, which `cluster.py` collects.

A trial may run on any node. So every node must have the same raykd, the same storage, the data and the
teacher, and the cluster must have room for what the sweep asks for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from raykd.doctor.check import Check
from raykd.spec import devices
from raykd.spec.search import SearchSpec
from raykd.spec.validate import check_resources
from trainables.core.errors import UserError

_SKEW_S = 5.0  # clocks that differ by more are reported
UPDATE = "`ray up cluster.yaml` brings every node to this checkout; what runs there ends, so let it end first"


class Node(NamedTuple):
    """A live node and its answer: facts, or why there are none."""

    id: str
    address: str
    resources: Mapping[str, float]
    facts: Mapping[str, Any]
    error: str = ""
    skew_s: float = 0.0  # its clock minus the driver's
    skew_within_s: float = 0.0  # the uncertainty of that


def check_nodes(alive: Sequence[Mapping[str, Any]], lost: int, expected: Sequence[str]) -> Check:
    """Have all nodes joined that should? One that did not join says so only in its own log."""
    name, here = "nodes", sorted(node["NodeManagerAddress"] for node in alive)
    said = f"{len(here)}: {', '.join(here)}" + (f"; {lost} were here and are gone" if lost else "")
    mend = (
        "`ray status` on the head says why; each node must answer ssh from the head, and have its ray and "
        "python; then `ray up cluster.yaml` again"
    )
    if len(expected) == 1 and expected[0].isdigit():
        if len(here) < int(expected[0]):
            return Check(name, False, f"{said}; there should be {expected[0]}", mend)
    elif missing := sorted(set(expected) - set(here)):
        return Check(name, False, f"{said}; {', '.join(missing)} did not join", mend)
    return Check(name, None if lost else True, said, "those may come back by themselves" if lost else None)


def check_answers(found: Sequence[Node]) -> Check:
    """Does a task run on every node?"""
    silent = [f"{node.address}: {node.error}" for node in found if node.error]
    if silent:
        mend = f"the logs on that node, /tmp/ray/session_latest/logs; {UPDATE}"
        return Check("answers", False, "; ".join(silent), mend)
    return Check("answers", True, "every node runs tasks and has raykd")


def check_versions(nodes: Sequence[Node]) -> Check:
    """Has every node the same versions of python, raykd (its source, too), ray, torch and so on?"""
    said, same = [], []
    for name in nodes[0].facts["versions"]:
        by = _grouped(nodes, lambda node, name=name: node.facts["versions"].get(name, "unknown"))  # type: ignore[misc]
        if len(by) == 1:
            same.append(f"{name} {next(iter(by))}")
        else:
            said.append(f"{name} differs: " + _listed(by))
    if said:
        return Check("versions", False, "; ".join(said), UPDATE)
    return Check("versions", True, "the same everywhere: " + ", ".join(same))


def check_each(nodes: Sequence[Node]) -> Iterator[Check]:
    """The nodes' checks of themselves: one `Check` for each, with the worst result of all nodes."""
    rows: dict[str, list[tuple[Node, Check]]] = defaultdict(list)
    for node in nodes:
        for raw in node.facts["checks"]:
            check = Check(*raw)
            rows[check.name].append((node, check))
    for name, row in rows.items():
        worst = next(ok for ok in (False, None, True) if any(check.ok is ok for _, check in row))
        those = [(node, check) for node, check in row if check.ok is worst]
        by: dict[str, list[str]] = defaultdict(list)
        for node, check in those:
            by[check.said].append(node.address)
        said = next(iter(by)) if len(by) == 1 and len(those) == len(row) else _listed(by)
        yield Check(name, worst, said, those[0][1].mend)


def check_gpus(nodes: Sequence[Node]) -> Check:
    """Does torch see, on each node, the GPUs that Ray offers there?"""
    name = "GPUs for Ray"
    fewer: list[str] = []
    more: list[str] = []
    for node in nodes:
        offered, seen = int(node.resources.get("GPU", 0)), node.facts["gpus"]
        said = f"{node.address}: Ray offers {offered}, torch sees {seen}"
        (fewer if seen < offered else more if seen > offered else []).append(said)
    if fewer:
        mend = "a torch that fits the driver (`nvidia-smi` on the node), or `ray start` without --num-gpus"
        return Check(name, False, "; ".join(fewer), mend)
    if more:
        mend = "`ray start --num-gpus=N` on that node, if all of them are meant to be used"
        return Check(name, None, "; ".join(more), mend)
    total = sum(int(node.resources.get("GPU", 0)) for node in nodes)
    return Check(name, True if total else None, f"{total}, as torch sees them" if total else "none anywhere")


def check_quarantine(sick: Sequence[str]) -> Check:
    """The GPUs that running sweeps hold in quarantine, each with the reason."""
    mend = (
        "`nvidia-smi -q` and `dmesg` (Xid) on that host; a reset or a restart; the next driver tries it again"
    )
    return Check("quarantine", None, "; ".join(sick), mend)


def check_storage(
    storage: str, problem: str, nodes: Sequence[Node], unseen: Mapping[str, list[str]]
) -> Check:
    """Can every node write there, and does each see what the others wrote?"""
    name = "storage"
    local = "://" not in storage
    mend = (
        "a folder that all nodes mount at one path (NFS, EFS, Filestore), or a URI such as s3://bucket/sweeps"
        if local
        else "credentials for the bucket on every node (a role, or environment variables), and its region"
    )
    if problem:
        return Check(name, False, f"{storage} cannot be written from here: {problem}", mend)
    said = [f"{node.address} {node.facts['storage']}" for node in nodes if "storage" in node.facts]
    at = {node.id: node.address for node in nodes}
    for id, missing in unseen.items():
        if missing:
            said.append(
                f"{at[id]} does not see what was written by {', '.join(at.get(m, m) for m in missing)}"
            )
    if said:
        return Check(name, False, f"{storage}: {'; '.join(said)}", mend)
    if len(nodes) == 1:
        return Check(name, True, f"{storage} can be written; with one node there is nothing to share")
    return Check(name, True, f"{storage} is written by {len(nodes)} nodes, and each sees the others' files")


def check_clocks(nodes: Sequence[Node]) -> Check:
    """Do the clocks agree? S3 refuses requests that are 15 minutes off; the ledger has all nodes' times."""
    off = [n for n in nodes if abs(n.skew_s) - n.skew_within_s > _SKEW_S]
    if off:
        said = "; ".join(f"{n.address} is {n.skew_s:+.0f} s off" for n in off)
        return Check("clocks", None, said, "`timedatectl set-ntp true` on those nodes")
    most = max(abs(n.skew_s) for n in nodes)
    return Check("clocks", True, f"within {max(most, 0.1):.1f} s of each other")


def check_inputs(nodes: Sequence[Node]) -> Check:
    """Are the data and the teacher's file the same on every node?"""
    said = []
    for name in sorted({name for node in nodes for name in node.facts["inputs"]}):
        by = _grouped(nodes, lambda node, name=name: node.facts["inputs"].get(name, ""))  # type: ignore[misc]
        missing = by.pop("", [])
        if missing:
            said.append(f"{name} is not on {', '.join(missing)}")
        if len(by) > 1:
            said.append(f"{name} differs: " + _listed({key[:8]: where for key, where in by.items()}))
    if said:
        mend = "copy them to one path on every node (`file_mounts` in cluster.yaml), or use a shared folder"
        return Check("inputs", False, "; ".join(said), mend)
    many = nodes[0].facts["inputs"]
    return Check("inputs", True, "the same everywhere: " + ", ".join(many) if many else "none to be shared")


def check_room(
    spec: SearchSpec, alive: Sequence[Mapping[str, Any]], free: Mapping[str, float], autoscales: bool
) -> Check:
    """Can the cluster hold what the sweep asks for, and is it free now?

    An autoscaler may start nodes that can: with `min_workers: 0` only the head is up. The sweep asks it.
    """
    workers = spec.workers
    try:
        devices.check_gpus(workers)
        check_resources(workers, alive)
    except UserError as error:
        if autoscales:
            mend = "larger or more workers in the cluster's file, if it has none that can hold this"
            said = f"no room now, and the sweep will ask the autoscaler for nodes; {error}"
            return Check("workers", None, said, mend)
        mend = f"smaller `{error.field}` (`--set {error.field}=…`), or larger nodes, or more of them"
        return Check("workers", False, str(error), mend)
    lanes = workers.lanes(alive)
    said = f"room for {lanes} lane{'s' * (lanes > 1)} of {workers.count} worker{'s' * (workers.count > 1)}"
    said += f", {devices.where(workers, alive)}"
    if idle := devices.idle_gpus(workers, alive):
        return Check("workers", None, f"{said}; {idle[0]}", "leave `workers.gpus` out of the spec")
    left = {k: sum(node["Resources"].get(k, 0) for node in alive) - free.get(k, 0) for k in ("CPU", "GPU")}
    if taken := [f"{count:g} {kind}s" for kind, count in left.items() if count > 0]:
        mend = "wait for what runs there (`ray status` shows it), or lanes start as room is made"
        return Check("workers", None, f"{said}; taken now: {' and '.join(taken)}", mend)
    return Check("workers", True, said)


def _grouped(nodes: Sequence[Node], key: Callable[[Node], str]) -> dict[str, list[str]]:
    """value -> the addresses of the nodes that have it; the most frequent first."""
    by: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        by[key(node)].append(node.address)
    return dict(sorted(by.items(), key=lambda item: -len(item[1])))


def _listed(by: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} on {', '.join(where)}" for value, where in by.items())
