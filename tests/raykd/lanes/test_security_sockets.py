"""What a local sweep's processes listen on, while two workers train together."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from pools import pool_of, quick_importable, task, until

from raykd.lanes.cluster import LOCAL, connected, on_loopback
from raykd.spec.sections import WorkersSpec


def listening_sockets() -> dict[str, str]:
    """address:port -> the process that listens there, for this process and all that it started."""
    found = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            for socket in process.net_connections("inet"):
                if socket.status == psutil.CONN_LISTEN:
                    found[f"{socket.laddr.ip} {socket.laddr.port}"] = " ".join(process.cmdline()[:4])
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.mark.ray(second=True)
def test_a_local_ray_and_its_lanes_listen_on_loopback_alone(tmp_path: Path) -> None:
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    workers = WorkersSpec(count=2, cpus=0.5)
    with quick_importable(), connected(LOCAL), pool_of(tmp_path, workers, limit=1) as pool:
        assert on_loopback() and is_token_auth_enabled()
        until(lambda: pool.warm == 1, 240)
        pool.run(task(tmp_path, "together", "count_together"), lambda said: None)
        sockets = listening_sockets()
    assert len(sockets) > 8, "Ray has more than that"
    open_to_others = {at: who for at, who in sockets.items() if "127.0.0.1" not in at.split()[0]}
    assert not open_to_others, open_to_others
