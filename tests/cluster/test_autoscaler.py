"""A sweep on a cluster that begins without a worker, and Ray's autoscaler, both of its kinds.

Its cloud starts machines as processes of one host. Nodes come while there are trials for them, and go when
the driver has been killed, and at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
from laptop import CHECKOUT, Laptop, until

from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger
from raykd.storage.folder_lease import LOCK
from raykd.storage.lease import LeaseRecord

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]

SPACE = """\
name: growing
method: retro
preset: digits
student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 1}}
data: {name: digits, image_size: 16}
epochs: 10
samples: 8
scheduler: {name: none}
references: [teacher]
fixed: {queue_size: 256}
axes:
  gamma: {log: [0.003, 3]}
"""
COMMANDS = (
    *("initialization", "setup", "head_setup", "worker_setup"),
    *("head_start_ray", "worker_start_ray"),
)
HEAD = "f" * 51 + "00000"  # what the pretended cloud calls it
SWEEP = hosts.home(0) / "sweeps" / "growing"


@pytest.fixture
def laptop() -> Iterator[Laptop]:
    if reason := hosts.missing():
        pytest.skip(reason)
    with hosts.hosts():
        yield Laptop()
    assert hosts.left() == []


def cloud(version: int) -> dict[str, object]:
    """A cluster file: a head that trains nothing, at most two workers of one CPU, none of them at first."""
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        **({"launch_multiple": True, "head_node_id": HEAD} if version == 2 else {}),
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    worker = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}
    return {
        "cluster_name": "pretended",
        "max_workers": 2,
        "provider": provider,
        "available_node_types": {"ray.head.default": head, "worker": worker},
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.5,
        "auth": {},
        "file_mounts": {},
        **{f"{name}_commands": [] for name in COMMANDS},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
    }


def nodes() -> int:
    return len(hosts.processes(0, "raylet"))


def reports() -> int:
    if not (SWEEP / LEDGER).exists():
        return 0
    return sum(record["kind"] == "report" for record in Ledger.read(SWEEP))


@pytest.mark.parametrize("version", [1, 2])
def test_nodes_come_while_there_are_trials_for_them(laptop: Laptop, version: int, tmp_path: Path) -> None:
    (laptop.folder / "cloud.json").write_text(json.dumps(cloud(version)))
    (laptop.folder / "growing.yaml").write_text(SPACE)
    settings = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": str(version - 1),
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_NODE_TYPE_NAME": "ray.head.default",  # as `ray up` and KubeRay tell it
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    }
    start = "ray start --head --num-cpus=0 --autoscaling-config=cloud.json --dashboard-host=127.0.0.1"
    given = [f"{name}={value}" for name, value in settings.items()]
    started = hosts.execute(0, "env", *given, "bash", "-c", f"cd {CHECKOUT} && {start}")
    assert started.returncode == 0, started.stdout + started.stderr
    assert nodes() == 1

    def command(line: str) -> list[str]:
        line = f"{line} --address auto --storage /root/sweeps"
        what = f"cd {CHECKOUT} && exec {sys.executable} -m raykd.cli {line}"
        return hosts.command(0, "env", "OMP_NUM_THREADS=1", "bash", "-c", what)

    def raykd(line: str) -> subprocess.Popen[str]:
        said = (tmp_path / "said").open("a")
        return subprocess.Popen(command(line), stdout=said, stderr=said, text=True)

    def said() -> str:
        return (tmp_path / "said").read_text()

    found = subprocess.run(command("doctor growing.yaml --json"), capture_output=True, text=True, check=False)
    room = next(check for check in json.loads(found.stdout) if check["name"] == "workers")
    assert room["ok"] is None and "will ask the autoscaler" in room["said"], found.stdout
    assert found.returncode == 0, found.stdout

    driver = raykd("run growing.yaml")
    until(lambda: reports() >= 3, 400, said)
    until(lambda: nodes() == 3, 120, said)
    until(lambda: said().count("is warm on") >= 2, 240, said)
    number = LeaseRecord.read((SWEEP / LOCK).read_bytes()).pid
    assert hosts.execute(0, "kill", "-9", str(number)).returncode == 0
    driver.wait(60)
    # What Ray Train itself asks for its groups holds for 200 s.
    until(lambda: nodes() == 1, 330, lambda: "a dead driver keeps nodes")

    resumed = raykd("resume growing")
    until(lambda: nodes() == 3, 240, said)
    assert resumed.wait(400) == 0, said()
    history = History.of(Ledger.read(SWEEP))
    assert history.done and history.counts()["finished"] == 8
    until(lambda: nodes() == 1, 330, lambda: "a sweep that is over keeps nodes")
