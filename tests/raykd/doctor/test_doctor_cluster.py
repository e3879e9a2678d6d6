"""The doctor of a whole cluster: a real one, with good nodes and one that is wrong in many ways."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from command import raykd
from PIL import Image

from raykd.doctor.check import Check
from raykd.doctor.compare import check_room
from raykd.doctor.launch import checks as launched
from raykd.doctor.launch import explain, parse
from raykd.lanes.autoscaler import has_types
from raykd.spec.search import load_sweep
from trainables.core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A sweep with pictures and a teacher's file of its own."""
    import timm

    for index in range(48):
        folder = tmp_path / "data" / "pictures" / f"class{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (5 * index, 40 * (index % 3), 0)).save(folder / f"{index}.png")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "data" / "teacher.pth")
    raw = {
        "method": "spkd",
        "preset": "digits",
        "student": {"arch": "test_efficientnet"},
        "teacher": {"arch": "test_resnet", "checkpoint": str(tmp_path / "data" / "teacher.pth")},
        "data": {"name": "folder", "path": str(tmp_path / "data" / "pictures"), "image_size": 16},
        "baseline": {"method": "moco", "preset": "digits", "config": {"queue_size": 16}},
        "optim": {"batch_size": 8},
        "epochs": 2,
        "samples": 2,
    }
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def doctor(*arguments: str | Path) -> tuple[int, dict[str, Check]]:
    done = raykd("doctor", *arguments, "--json", timeout=300)
    assert done.returncode in (0, 1), done.stderr
    found = [Check(**row) for row in json.loads(done.stdout)]
    assert all(check.mend for check in found if check.ok is False), found
    return done.returncode, {check.name: check for check in found}


@contextmanager
def strange_node(address: str, tmp_path: Path) -> Iterator[None]:
    """A node that has the storage and the data's path to itself, and an edited raykd."""
    own, edited = tmp_path / "own", tmp_path / "edited"
    shutil.copytree(tmp_path / "data", own)
    (own / "teacher.pth").unlink()
    (own / "pictures" / "class0" / "0.png").unlink()
    for room in ("raykd", "trainables"):
        shutil.copytree(ROOT / room, edited / room, ignore=shutil.ignore_patterns("__pycache__"))
    (edited / "raykd" / "actions.py").open("a").write("\n# edited\n")
    start = f"{sys.executable} -c 'from ray.scripts.scripts import main; main()' start"
    script = (
        f"mount -t tmpfs none {tmp_path}/sweeps && mount --bind {own} {tmp_path}/data && "
        f"exec {start} --block --address={address} --num-cpus=1 --num-gpus=2 --node-ip-address=127.0.0.3"
    )
    with (tmp_path / "node.log").open("w") as log:
        node = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            env={**os.environ, "PYTHONPATH": str(edited)},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(60)


@pytest.mark.slow
@pytest.mark.ray(second=True)
@pytest.mark.timeout(500)
def test_a_good_cluster_passes_and_a_strange_node_is_found_out(tmp_path: Path, spec: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a node with folders of its own needs a mount namespace, which needs root")
    from raykd.lanes.cluster import quiet

    quiet()
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        head = cluster.address.rpartition(":")[0]
        cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2")
        storage = tmp_path / "sweeps"
        common = (spec, "--address", cluster.address, "--storage", storage)

        code, found = doctor(*common, "--nodes", f"{head},127.0.0.2")
        assert code == 0, found
        assert "written by 2 nodes" in found["storage"].said and not storage.exists()
        assert "raykd 0.1.0 (" in found["versions"].said and "teacher.pth" in found["inputs"].said
        assert found["workers"] == Check(
            "workers", True, "room for 2 lanes of 1 worker, each worker on the CPU"
        )
        assert {"nodes", "clocks", "disk", "shared memory", "data", "spec"} <= found.keys()

        storage.mkdir()
        with strange_node(cluster.address, tmp_path):
            ray.init(cluster.address, log_to_driver=False)
            try:
                deadline = time.monotonic() + 90
                while sum(node["Alive"] for node in ray.nodes()) < 3:
                    assert time.monotonic() < deadline, (tmp_path / "node.log").read_text()
                    time.sleep(0.5)
            finally:
                ray.shutdown()
            code, found = doctor(*common, "--nodes", f"{head},127.0.0.9", "--set", "workers.cpus=2")
        assert code == 1 and not list(storage.iterdir())
        wrong = {name: check.said for name, check in found.items() if check.ok is False}
        assert wrong.keys() == {
            "nodes", "versions", "teacher", "GPUs for Ray", "storage", "inputs", "workers"
        }, wrong  # fmt: skip
        assert "127.0.0.9 did not join" in wrong["nodes"]
        assert "raykd differs" in wrong["versions"] and "on 127.0.0.3" in wrong["versions"]
        assert "127.0.0.3" in wrong["teacher"] and "no such file" in wrong["teacher"].lower()
        assert wrong["GPUs for Ray"] == "127.0.0.3: Ray offers 2, torch sees 0"
        assert "127.0.0.3 does not see" in wrong["storage"]
        assert "teacher.pth is not on 127.0.0.3" in wrong["inputs"] and "pictures differs" in wrong["inputs"]
        assert "no node can hold a worker of 2 CPUs" in wrong["workers"]
        assert "--set workers.cpus" in (found["workers"].mend or "")
    finally:
        cluster.shutdown()


def test_no_room_is_no_fault_where_an_autoscaler_makes_some() -> None:
    spec = load_sweep("quickstart", [])
    head = [{"Alive": True, "Resources": {}}]
    fixed, growing = (check_room(spec, head, {}, autoscales) for autoscales in (False, True))
    assert fixed.ok is False and fixed.mend and "--set workers.cpus" in fixed.mend
    assert growing.ok is None and "will ask the autoscaler for nodes" in growing.said
    id = "3f3467ad40224c704702c55b35a6c999ed2e5b02f4f6b20d7fb3c71f"
    assert not has_types([]) and not has_types([f"node_{id}"]), "started by hand"
    assert not has_types(["local.cluster.node"]), "hosts that are all there are"
    assert has_types([f"node_{id}", "ray.head.default"]) and has_types(["node_gpu"])


# From a laptop ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (("file_mounts:", "file_mount:"), "file_mount", "Did you mean 'file_mounts'?"),
        (("ssh_user:", "sshuser:"), "auth.sshuser", "Did you mean 'ssh_user'?"),
        (
            ("upscaling_speed: 1.0", "upscaling_speed: fast"),
            "upscaling_speed",
            "'fast' is not of type 'number'",
        ),
        (("head_ip:", "head_ipp:"), None, "Please supply a `head_ip`"),
        (("type: local", "type: locale"), None, "Unsupported node provider: locale"),
        (("provider:", "proviso:"), "provider", "Did you mean 'proviso'?"),
        (("cluster_name: raykd", "apiVersion: ray.io/v1"), "--cluster", "kubectl exec"),
        (("cluster_name: raykd", "cluster_name: [raykd"), None, "is no YAML"),
    ],
)
def test_a_cluster_file_that_ray_does_not_take_is_named(
    tmp_path: Path, change: tuple[str, str], field: str | None, said: str
) -> None:
    file = tmp_path / "cluster.yaml"
    text = (ROOT / "cluster.yaml").read_text()
    assert change[0] in text
    file.write_text(text.replace(*change))
    with pytest.raises(UserError) as error:
        list(launched(file, []))
    assert said in str(error.value) and error.value.field == (field or str(file))


def test_a_cluster_that_is_not_up_and_a_spec_that_does_not_travel(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        (ROOT / "cluster.yaml").read_text().replace("cluster_name: raykd", "cluster_name: rkd-not-up")
    )
    found = list(launched(file, []))
    assert [check.ok for check in found] == [True, False]
    assert "is not up" in found[1].said and found[1].mend == f"`ray up {file}`"
    (tmp_path / "mine.yaml").write_text("method: retro")
    with pytest.raises(UserError, match="does not get to the head"):
        list(launched(file, [], str(tmp_path / "mine.yaml")))


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (
            "x\nssh: connect to host 192.0.2.1 port 22: No route to host\n",
            "cannot be reached by ssh: ssh: connect",
        ),
        ("ubuntu@192.0.2.1: Permission denied (publickey).\r\n", "refuses this key"),
        ("bash: line 1: raykd: command not found", "has no raykd"),
        ("raykd: --address: no cluster answers (refused) (got 'auto').", "Ray does not run on it"),
        ("something else\nlast words", "no answer: something else / last words"),
    ],
)
def test_a_head_that_does_not_answer_is_explained(said: str, problem: str) -> None:
    check = explain(Path("c.yaml"), said)
    assert check.ok is False and problem in check.said and "c.yaml" in (check.mend or "")


def test_the_answer_is_found_among_what_the_launcher_prints() -> None:
    rows = [Check("nodes", True, "2: a, b")._asdict(), Check("GPU", None, "[none]")._asdict()]
    said = (
        "Loaded cached provider\r\n"
        + json.dumps(rows, indent=2).replace("\n", "\r\n")
        + "\r\nShared connection"
    )
    assert parse(said) == [Check("nodes", True, "2: a, b"), Check("GPU", None, "[none]")]
    assert parse("nothing") is None and parse("[\n1\n]\n") is None
