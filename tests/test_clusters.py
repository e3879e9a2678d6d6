"""`clusters/`: what Ray, EC2, Compute Engine and KubeRay say of the files, as far as one machine can tell."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from raykd.doctor.cluster_file import expected_nodes, load_cluster

ROOT = Path(__file__).resolve().parent.parent
CLUSTERS = ROOT / "clusters"
LAUNCHED = ("aws.yaml", "gcp.yaml")
KUBERNETES = ("kuberay-cluster.yaml", "kuberay-job.yaml")
# What stands for something of the user's.
PLACEHOLDER = re.compile(r"MY-|REGISTRY|ami-0000|203\.0\.113|eu-central|europe-west|standard-rwx|gke-spot")


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_takes_the_file_and_its_commands_are_shell(name: str) -> None:
    config = load_cluster(CLUSTERS / name)
    workers = config["available_node_types"]["gpu_worker"]
    assert config["head_node_type"] == "head" and expected_nodes(config) == ["3"]
    assert 0 < workers["min_workers"] <= workers["max_workers"] <= config["max_workers"]
    assert workers["resources"]["GPU"] and not config["available_node_types"]["head"]["resources"]["CPU"]
    for part in ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray"):
        for command in config[f"{part}_commands"]:
            subprocess.run(["bash", "-n", "-c", command], check=True)
    setup = "\n".join(config["head_setup_commands"])
    assert re.search(r"RAYKD_STORAGE=(s3|gs)://MY-BUCKET/", setup) and "get-auth-token --generate" in setup
    assert "RAY_AUTH_MODE=token" in setup and config["cluster_synced_files"] == ["~/.ray/auth_token"]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_ec2_knows_every_field_of_a_machine() -> None:
    import botocore.session
    from botocore.validate import ParamValidator

    shape = (
        botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    )
    raw = yaml.safe_load((CLUSTERS / "aws.yaml").read_text())
    for kind in raw["available_node_types"].values():
        node = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(node, shape)
        assert not report.has_errors(), report.generate_report()
        assert node["IamInstanceProfile"], "the bucket has to be open to it"
    workers = raw["available_node_types"]["gpu_worker"]["node_config"]
    assert workers["InstanceMarketOptions"] == {"MarketType": "spot"}
    rules = raw["provider"]["security_group"]["IpPermissions"]
    assert [rule["FromPort"] for rule in rules] == [22] and "0.0.0.0" not in str(rules)


# Names, types and allowed values, written down for the fields that are used here. Sources: the resource
# Instance of Google's discovery document compute.v1; KubeRay's custom resource definitions ray.io_rayclusters
# and ray.io_rayjobs of v1.7.0; Kubernetes' API reference for pods and persistent volume claims. A leaf
# is a type, a tuple of allowed values or a pattern; a list is a list of its one element; "?" ends the name of
# what may be missing.
INSTANCE = {
    "machineType": str,
    "disks": [
        {
            "boot": bool,
            "autoDelete": bool,
            "type": ("PERSISTENT", "SCRATCH"),
            "initializeParams": {"diskSizeGb": re.compile(r"\d+"), "sourceImage": re.compile(r"projects/.+")},
        }
    ],
    "scheduling?": {
        "provisioningModel": ("SPOT", "STANDARD"),
        "instanceTerminationAction": ("DELETE", "STOP"),
        "onHostMaintenance": ("TERMINATE", "MIGRATE"),
    },
    "serviceAccounts?": [{"email": re.compile(r".+@.+"), "scopes": [re.compile(r"https://.+")]}],
}
QUANTITY = re.compile(r"\d+(m|Mi|Gi)?")
_AMOUNTS = {"cpu": QUANTITY, "memory": QUANTITY, "nvidia.com/gpu?": QUANTITY}
RESOURCES = {"limits": _AMOUNTS, "requests": _AMOUNTS}
POD = {
    "spec": {
        "restartPolicy": ("Never",),  # the autoscaler's second version makes new pods itself
        "terminationGracePeriodSeconds?": int,
        "nodeSelector?": {"cloud.google.com/gke-spot": ("true",)},
        "tolerations?": [
            {
                "key": str,
                "operator": ("Exists", "Equal"),
                "value?": str,
                "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
            }
        ],
        "securityContext": {"fsGroup": int},
        "containers": [
            {
                "name": re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"),
                "image": str,
                "env": [{"name": str, "value": str}],
                "ports?": [{"name": re.compile(r"[a-z0-9-]{1,15}"), "containerPort": int}],
                "resources": RESOURCES,
                "volumeMounts": [{"name": str, "mountPath": re.compile(r"/.+")}],
            }
        ],
        "volumes": [
            {
                "name": str,
                "persistentVolumeClaim?": {"claimName": str},
                "emptyDir?": {"medium?": ("Memory",), "sizeLimit": QUANTITY},
            }
        ],
    }
}
CLUSTER = {
    "rayVersion": str,
    "authOptions": {"mode": ("token", "disabled")},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"version": ("v1", "v2"), "idleTimeoutSeconds": int, "resources": RESOURCES},
    "headGroupSpec": {
        "serviceType": ("ClusterIP", "NodePort", "LoadBalancer"),
        "rayStartParams": {"num-cpus": str},  # every value of rayStartParams is a string
        "template": POD,
    },
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "rayStartParams": {},
            "template": POD,
        }
    ],
}
JOB = {
    "entrypoint": str,
    "backoffLimit": int,
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "rayClusterSpec": CLUSTER,
}
CLAIM = {
    "accessModes": [("ReadWriteMany",)],
    "storageClassName": str,
    "resources": {"requests": {"storage": QUANTITY}},
}
SPECS = {
    "RayCluster": ("ray.io/v1", CLUSTER),
    "RayJob": ("ray.io/v1", JOB),
    "PersistentVolumeClaim": ("v1", CLAIM),
}


def schema(shape: Any) -> dict[str, Any]:
    """The JSON schema of such a structure: nothing that it does not name, nothing missing."""
    if isinstance(shape, dict):
        fields = {name.removesuffix("?"): schema(inner) for name, inner in shape.items()}
        required = [name for name in shape if not name.endswith("?")]
        return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
    if isinstance(shape, list):
        return {"type": "array", "items": schema(shape[0]), "minItems": 1}
    if isinstance(shape, tuple):
        return {"enum": list(shape)}
    if isinstance(shape, re.Pattern):
        return {"type": "string", "pattern": f"^({shape.pattern})$"}
    return {"type": {str: "string", int: "integer", bool: "boolean"}[shape]}


def breaches(shape: Any, value: Any) -> list[str]:
    found = Draft7Validator(schema(shape)).iter_errors(value)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def test_compute_engine_knows_every_field_of_a_machine() -> None:
    raw = yaml.safe_load((CLUSTERS / "gcp.yaml").read_text())
    kinds = {name: kind["node_config"] for name, kind in raw["available_node_types"].items()}
    for node in kinds.values():
        assert not breaches(INSTANCE, node)
    assert kinds["gpu_worker"]["scheduling"]["provisioningModel"] == "SPOT"
    # What the schema above is worth: a field of another level, and a word that is not one.
    assert breaches(INSTANCE, {**kinds["head"], "provisioningModel": "SPOT"})
    assert breaches(INSTANCE, {**kinds["head"], "machineType": 4})


@pytest.mark.parametrize("name", KUBERNETES)
def test_kuberay_knows_every_field(name: str) -> None:
    documents = list(yaml.safe_load_all((CLUSTERS / name).read_text()))
    for document in documents:
        version, spec = SPECS[document["kind"]]
        shape = {"apiVersion": (version,), "kind": str, "metadata": {"name": str}, "spec": spec}
        assert not breaches(shape, document)
    claim, ray = documents
    cluster = ray["spec"].get("rayClusterSpec", ray["spec"])
    assert f"ARG RAY_VERSION={cluster['rayVersion']}\n" in (CLUSTERS / "Dockerfile").read_text()
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for pod in (cluster["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]):
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == set(volumes)
        assert volumes[mounts["/shared"]]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert {"name": "RAYKD_STORAGE", "value": "/shared/sweeps"} in container["env"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    # What the schema is worth: KubeRay wants a string there, and knows no such field.
    head = cluster["headGroupSpec"]
    assert breaches(CLUSTER, {**cluster, "headGroupSpec": {**head, "rayStartParams": {"num-cpus": 0}}})
    assert breaches(CLUSTER, {**cluster, "idleTimeoutSeconds": 300})


def test_the_job_has_the_cluster_of_the_cluster_file() -> None:
    cluster, job = (list(yaml.safe_load_all((CLUSTERS / name).read_text()))[1]["spec"] for name in KUBERNETES)
    assert job["rayClusterSpec"] == cluster


@pytest.mark.parametrize("name", [*LAUNCHED, *KUBERNETES])
def test_every_line_that_a_user_must_change_says_so(name: str) -> None:
    lines = (CLUSTERS / name).read_text().splitlines()
    for number, line in enumerate(lines):
        if PLACEHOLDER.search(line.partition("#")[0]):
            above = [
                before for before in lines[max(0, number - 2) : number] if before.lstrip().startswith("#")
            ]
            assert "CHANGE" in " ".join([line, *above]), f"{name}:{number + 1}: {line}"


@pytest.mark.parametrize("name", ["mine", "other"])
def test_the_job_begins_a_sweep_once_and_then_goes_on_with_it(name: str, tmp_path: Path) -> None:
    """By the name that the file and `--set` give it, which need not be the file's."""
    spec = tmp_path / "mine.yaml"
    spec.write_text("method: moco\npreset: digits\nstudent: resnet10t\nepochs: 1\nsamples: 1\n")
    words = [str(spec), *(["--set", f"name={name}"] if name != "mine" else [])]
    log, raykd = tmp_path / "log", tmp_path / "raykd"
    raykd.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" != status ] || exit "$STATUS"\n')
    raykd.chmod(0o755)
    given = " ".join(words)
    for status, last in (("2", f"run {given}"), ("0", f"resume {name}")):
        path = f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin"
        script = ["bash", str(CLUSTERS / "job.sh"), *words]
        subprocess.run(script, env={"PATH": path, "STATUS": status}, check=True)
        doctor, asked, done = log.read_text().splitlines()[-3:]
        assert doctor == f"doctor {given} --address auto"
        assert asked == f"status {name}" and done == f"{last} --address auto"
