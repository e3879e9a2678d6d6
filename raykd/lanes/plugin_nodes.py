"""Has every node of the cluster the modules that a sweep names as its plug-ins, and the same code of them?"""

from __future__ import annotations

from collections.abc import Mapping

from raykd.lanes.ask_nodes import ask_nodes
from raykd.lanes.cluster import live_nodes
from raykd.lanes.plugin_node import request
from trainables.core import plugins
from trainables.core.errors import UserError


def check_nodes(wanted: Mapping[str, str]) -> None:
    """Raise `UserError` that names each node which lacks one of these modules (module -> hash of its code).

    Ray is connected. A module that lies beside the spec travels with the request, as with a sweep's lanes.
    """
    if not wanted:
        return
    asked, nodes = request(wanted), live_nodes()
    answers = ask_nodes("raykd.lanes.plugin_node", {node["NodeID"]: asked for node in nodes})
    wrong: dict[str, list[str]] = {}
    for node in nodes:
        answer = answers[node["NodeID"]]
        problem = answer.get("error") or answer["facts"]["problem"]
        if problem:
            said = problem.removeprefix(f"{plugins.FIELD}: ")
            wrong.setdefault(said, []).append(node["NodeManagerAddress"])
    if wrong:
        said = "; ".join(f"node {', '.join(sorted(where))}: {problem}" for problem, where in wrong.items())
        raise UserError(plugins.FIELD, said)
