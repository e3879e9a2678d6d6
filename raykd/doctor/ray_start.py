"""The slowest check: does Ray start here and run a task? It runs in another process, as Ray can hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from raykd.doctor.check import Check
from raykd.lanes.own_ray import temporary_folder
from trainables.core.errors import UserError

_TRY = """
from raykd.lanes import capacity
from raykd.lanes.cluster import quiet
from raykd.lanes.own_ray import own_ray
quiet()
import ray
with own_ray(num_cpus=1, object_store_memory=capacity.OBJECT_STORE):
    print(ray.get(ray.remote(lambda: 6 * 7).remote(), timeout=60), flush=True)
"""


def check_ray(limit_s: float = 120.0) -> Check:
    """Start Ray as a sweep would, run a task, stop Ray; at most `limit_s` seconds."""
    name = "ray"
    try:
        temporary_folder()
    except UserError as error:
        return Check(name, False, f"cannot start: {error}", "a short RAY_TMPDIR")
    # An address in the environment would join that cluster instead of trying this machine.
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-c", _TRY],
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
    except BaseException:  # a signal: Ray must not outlive this process
        _stopped(process)
        raise
    if out.strip() == "42":
        return Check(name, True, "starts and runs a task")
    why = (err.strip().splitlines() or ["it ended without a word"])[-1]
    return Check(name, False, f"does not start: {why}", "end what `ray status` shows with `ray stop`")


def _stopped(process: subprocess.Popen[str]) -> str:
    """End the process, which then ends Ray, or else kill both. Returns what it had printed."""
    process.terminate()
    try:
        return process.communicate(timeout=15)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]
