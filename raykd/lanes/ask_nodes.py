"""Asks every node of the cluster something that a fresh interpreter on that node answers.

So a torch that does not load there, a module whose import fails, or a process that hangs, does no harm to
others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raykd.storage.file_transfer import credentials
from trainables.core.errors import first_line

_LIMIT_S = 240.0  # of each task


def ask_nodes(module: str, requests: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Send all requests (node -> request) at the same time: node -> {"facts": …} or {"error": why}.

    On each node `python -m MODULE` gets the request as JSON on standard input, and prints the facts as JSON
    in its last line. It may take four minutes.
    """
    import ray

    def ask(module: str, request: str, seconds: float, given: dict[str, str]) -> dict[str, Any]:
        # Ray pickles this function by value, so that a node without raykd can say so.
        import json
        import os
        import subprocess
        import sys

        # Ray hides the GPUs from a task that asks for none.
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
        env = {k: v for k, v in os.environ.items() if not (hidden and k == "CUDA_VISIBLE_DEVICES")} | given
        command = [sys.executable, "-m", module]
        try:
            done = subprocess.run(
                command,
                input=request,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=env,
                cwd="/",  # the raykd that is installed, and not one that lies where Ray was started
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"no answer within {seconds:g} s"}
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            return {"error": f"{sys.executable}: {lines[-1]}"}
        return {"facts": json.loads(done.stdout.splitlines()[-1])}

    task = ray.remote(num_cpus=0, max_retries=0)(ask)
    pending = {
        task.options(scheduling_strategy=at(node)).remote(
            module, json.dumps(request), _LIMIT_S, credentials()
        ): node
        for node, request in requests.items()
    }
    if not pending:
        return {}
    ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=_LIMIT_S + 30)
    answers: dict[str, dict[str, Any]] = {
        node: {"error": f"no task was started within {_LIMIT_S + 30:g} s"} for node in pending.values()
    }
    for reference in ready:
        try:
            answers[pending[reference]] = ray.get(reference)
        except Exception as error:
            answers[pending[reference]] = {"error": first_line(error)}
    return answers


def at(node: str) -> Any:
    """The scheduling strategy of what runs on this node and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)
