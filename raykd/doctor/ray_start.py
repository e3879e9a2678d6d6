"""The one check that takes its time: does Ray start here, run a task, and answer through its State API?

Ray Train frees a dead lane's resources through the State API, which Ray's dashboard process serves; without
it a killed lane keeps its place for minutes. Ray is started in a process of its own, because it can hang.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from raykd.doctor.check import Check

_TRY = """
import json, sys
from raykd.lanes.cluster import quiet, starting_on_loopback
quiet()
import ray
from ray.util.state import list_nodes
with starting_on_loopback():
    context = ray.init("local", num_cpus=1, include_dashboard=True, dashboard_host="127.0.0.1",
                       _temp_dir=sys.argv[1], log_to_driver=False, configure_logging=False)
answer = {"task": ray.get(ray.remote(lambda: 6 * 7).remote(), timeout=60)}
print(json.dumps(answer), flush=True)
answer["nodes"] = len(list_nodes(context.address_info["address"], timeout=30))
print(json.dumps(answer), flush=True)
ray.shutdown()
"""


def check_ray(limit_s: float = 120.0) -> Check:
    """Start Ray with a temporary folder of its own, run a task, ask the State API for the nodes; stop it."""
    name = "ray"
    folder = tempfile.mkdtemp(prefix="rkd-", dir="/tmp")  # short: Ray's sockets lie in it
    # An address in the environment would join that cluster instead of trying this machine.
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-c", _TRY, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        out = _stopped(process)
        err = f"no answer within {limit_s:g} s"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lines = out.splitlines()
    answer = json.loads(lines[-1]) if lines else {}
    if answer.get("nodes"):
        return Check(name, True, "starts, runs a task, and its State API answers")
    why = (err.strip().splitlines() or ["it ended without a word"])[-1]
    if answer.get("task"):
        return Check(
            name,
            False,
            f"runs tasks, but its State API does not answer: {why}",
            "`pip install 'ray[default]'`, and no proxy or firewall between processes on 127.0.0.1",
        )
    return Check(
        name,
        False,
        f"does not start: {why}",
        "look in /tmp/ray/session_latest/logs; end what `ray status` shows with `ray stop`",
    )


def _stopped(process: subprocess.Popen[str]) -> str:
    """End it so that it can take Ray's processes with it, or else all of them; what it had printed."""
    process.terminate()
    try:
        return process.communicate(timeout=15)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]
