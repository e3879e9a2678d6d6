"""A sweep in a bucket, on hosts that share no folder: a worker dies, then the head; one goes on elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import hosts
import pytest
from laptop import CHECKOUT, Laptop, furnish, until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

PORT = 5000
SUBMIT = ("ray", "submit", "cluster.yaml", "sweep.py", "--")
STORAGE = "s3://bucket/team/sweeps"
KEYS = {
    "AWS_ACCESS_KEY_ID": "raykd-test-key",
    "AWS_SECRET_ACCESS_KEY": "raykd-test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": f"http://{hosts.address(0)}:{PORT}",
}
SPACE = """\
name: apart
method: retro
preset: digits
student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 2}}
data: {name: digits, image_size: 16}
epochs: 60
samples: 5
scheduler: {name: asha, grace: 4, factor: 2}
references: [teacher]
fixed: {queue_size: 256}
axes:
  gamma: {log: [0.003, 3]}
"""
SERVER = f"""
import boto3, time
from moto.server import ThreadedMotoServer
ThreadedMotoServer("0.0.0.0", {PORT}, verbose=False).start()
boto3.client("s3").create_bucket(Bucket="bucket")
open("/root/serving", "w").close()
time.sleep(1e6)
"""
COUNT = f"""
from raykd.records.ledger import Ledger
from raykd.storage.open_storage import open_storage
print(sum(record["kind"] == "report" for record in Ledger.read(open_storage("{STORAGE}").sweep("apart"))))
"""
INVARIANTS = f"""
from invariants import check
from raykd.storage.open_storage import open_storage
sweep = open_storage("{STORAGE}").sweep("apart")
assert sweep.storage.pull(sweep.path / "trials.parquet")
history = check(sweep)
assert len(history.trials) == 5 and history.counts()["failed"] == 0, history.counts()
"""


@pytest.fixture(scope="module")
def laptop() -> Iterator[Laptop]:
    if reason := hosts.missing():
        pytest.skip(reason)
    with hosts.hosts():
        for host in (1, 2, 3):
            furnish(host)
        for head in (1, 2):  # the drivers' hosts: workers elsewhere get the keys from them
            with (hosts.home(head) / ".bashrc").open("a") as bashrc:
                bashrc.writelines(f"export {name}={value}\n" for name, value in KEYS.items())
        server = subprocess.Popen(on_laptop(SERVER))
        until((hosts.home(0) / "serving").exists, 60, lambda: "the S3 server does not start")
        checkout = Laptop()
        yield checkout
        checkout.ray("down", "-y", "cluster.yaml")
        server.kill()
    assert hosts.left() == []


def on_laptop(code: str) -> list[str]:
    """What runs Python code on the laptop, with the keys."""
    keys = [f"{name}={value}" for name, value in KEYS.items()]
    path = f"PYTHONPATH={CHECKOUT}:{CHECKOUT}/tests/helpers"
    return hosts.command(0, "env", *keys, path, sys.executable, "-c", code)


def raykd(*arguments: str) -> str:
    """The command on the laptop, to its good end; what it said."""
    line = [*on_laptop("from raykd.cli import main; main()"), *arguments, "--storage", STORAGE]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def reports() -> int:
    """How many epochs the ledger in the bucket knows of."""
    counted = subprocess.run(on_laptop(COUNT), capture_output=True, text=True, check=False)
    assert counted.returncode == 0, counted.stderr
    return int(counted.stdout)


def test_a_worker_dies_and_then_the_head(laptop: Laptop) -> None:
    (laptop.folder / "search_spaces" / "apart.yaml").write_text(SPACE)
    laptop.describe(1, [2, 3], STORAGE)
    laptop.ray("up", "-y", "cluster.yaml")
    submitted = laptop.terminal(*SUBMIT, "apart")
    on_another = submitted.wait_for(r"(lane-\d) is warm on rk([23])", 400)
    submitted.wait_for(rf"started on {on_another[1]}", 300)
    before = reports()
    until(lambda: reports() > before, 120, lambda: submitted.said)
    hosts.kill(int(on_another[2]))
    # Its controller may miss the worker before Ray misses the node: then there is no room for the lane.
    submitted.wait_for(rf"{on_another[1]} (retires: |was lost)", 240)
    before = reports()
    until(lambda: reports() > before, 120, lambda: submitted.said)
    standing = json.loads(raykd("status", "apart", "--json"))
    assert standing["state"] == "running" and standing["driver"]["host"] == "rk1", standing

    hosts.start(int(on_another[2]))
    hosts.kill(1)
    assert submitted.end(120) != 0, "the connection went with the head"
    laptop.describe(2, [3], STORAGE)
    laptop.ray("up", "-y", "cluster.yaml")
    resumed = laptop.terminal(*SUBMIT, "resume", "apart")
    assert resumed.end(600) == 0, resumed.said
    assert "started from epoch" in resumed.said, "a checkpoint of the dead head's came from the bucket"

    checked = subprocess.run(on_laptop(INVARIANTS), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    raykd("export", "apart", "--out", "/root/student")
    assert (hosts.home(0) / "student" / "student" / "model.safetensors").is_file()
    assert not any(hosts.SHARED.iterdir()), "nothing lay in a folder that the hosts share"
    left = [path for host in (2, 3) for path in (hosts.FOLDER / str(host) / "tmp").glob("raykd-*")]
    assert not left, f"scratch folders: {left}"


@pytest.mark.skipif(shutil.which("screen") is None, reason="screen not found: apt-get install screen")
def test_a_sweep_goes_on_in_a_screen_that_nobody_looks_at(laptop: Laptop) -> None:
    extended = (
        "ray",
        "submit",
        "--screen",
        "cluster.yaml",
        "sweep.py",
        "--",
        "resume",
        "apart",
        "--extend",
        "1",
    )
    assert laptop.terminal(*extended).end(120) == 0, "it comes back at once"
    before = reports()
    until(lambda: reports() > before, 240, lambda: raykd("status", "apart"))
    until(lambda: json.loads(raykd("status", "apart", "--json"))["state"] == "done", 300, lambda: "not done")
