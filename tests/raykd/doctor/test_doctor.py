"""The checks, against machines that are broken for real: fake packages on the path, folders that refuse."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from raykd.doctor import machine, places, sweep_checks
from raykd.doctor.check import Check
from raykd.doctor.ray_start import check_ray
from raykd.spec.search import build_sweep


def elsewhere(call: str, path: Path | None = None, **env: str) -> Check:
    """Run one check in a fresh interpreter, with `path` first on the import path."""
    code = f"from raykd.doctor import machine; print(repr(tuple(machine.{call})))"
    paths = [str(p) for p in (path, os.environ.get("PYTHONPATH")) if p]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **env}
    # In another folder: with -c the current one comes first, and a checkout may hold raykd.egg-info.
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, check=True)
    return Check(*eval(run.stdout))


def package(folder: Path, name: str, code: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return folder


def test_this_machine_passes_and_every_check_says_something(tmp_path):
    found = list(machine.checks(tmp_path, ray=False))
    names = [check.name for check in found]
    assert len(set(names)) == len(names) == 11
    for check in found:
        assert check.said and (check.ok is not False or check.mend), check
    passed = {check.name: check.ok for check in found}
    assert all(passed[name] for name in ("python", "packages", "torch and torchvision", "storage", "disk"))
    assert list(tmp_path.iterdir()) == []


def test_packages_that_are_missing_or_old_or_too_new_are_named(tmp_path):
    needs = (
        "Requires-Dist: optuna>=4.5\nRequires-Dist: timm<2,>=1.0.15\nRequires-Dist: nowhere; extra == 's3'\n"
    )
    for name, version in (
        ("optuna", "3.0.0"),
        ("timm", "2.1"),
        ("raykd", f"0.1.0\n{needs}Requires-Dist: none"),
    ):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    check = elsewhere("check_packages()", tmp_path)
    assert check.ok is False and check.said == (
        "optuna 3.0.0 is older than 4.5; timm 2.1 is too new, raykd needs one before 2; none is missing"
    )
    assert "pip install" in check.mend


def test_a_torchvision_that_does_not_fit_torch_is_explained(tmp_path):
    # What PyPI's torchvision says beside a CPU-only torch.
    code = "raise RuntimeError('operator torchvision::nms does not exist\\nand more')"
    check = elsewhere("check_torchvision()", package(tmp_path, "torchvision", code))
    assert check.ok is False and "operator torchvision::nms does not exist" in check.said
    assert "\n" not in check.said and "from one index" in check.mend


def test_a_torch_that_cannot_use_its_gpu_is_told_from_none(tmp_path):
    assert elsewhere("check_gpu()", CUDA_VISIBLE_DEVICES="").ok is None
    check = elsewhere(
        "check_gpu()", package(tmp_path, "torch", "raise OSError('libcudart.so: no such file')")
    )
    assert check.ok is False and "libcudart.so" in check.said and "pytorch.org" in check.mend


def test_more_threads_than_cpus_are_remarked():
    check = elsewhere("check_threads()", OMP_NUM_THREADS="4096")
    assert check.ok is None and "4096" in check.said and "unset" in check.mend
    assert elsewhere("check_threads()", OMP_NUM_THREADS="1").ok is True


def test_shared_memory(tmp_path):
    check = machine.check_shared_memory(tmp_path / "none")
    assert check.ok is None and "there is no" in check.said
    assert machine.check_shared_memory(tmp_path).ok in (True, None)


def test_storage_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    check = places.check_storage(file / "sweeps")
    assert check.ok is False and "cannot be written" in check.said and "--storage" in check.mend
    check = places.check_storage(Path("/proc/sweeps"))
    assert check.ok is False and check.mend


def test_storage_on_a_full_disk():
    code = "check_storage(__import__('pathlib').Path('/tmp'))"
    limit = "(__import__('signal').signal(25, 1), __import__('resource').setrlimit(1, (1, -1))) and places."
    code = f"from raykd.doctor import places; print(repr(tuple({limit}{code})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert resource.RLIMIT_FSIZE == 1
    check = Check(*eval(run.stdout))
    assert check.ok is False and "File too large" in check.said


def test_disk_says_how_much_is_missing(tmp_path):
    assert places.check_disk(tmp_path / "not" / "there", need=1).ok is True
    check = places.check_disk(tmp_path, need=2**60)
    assert check.ok is False and "GiB free" in check.said and "make room" in check.mend


def test_a_note_of_a_cluster_that_is_gone_or_not_ours(tmp_path):
    assert sweep_checks.check_stale_cluster(tmp_path).ok is True
    path = tmp_path / "ray_current_cluster"
    with socket.create_server(("127.0.0.1", 0)) as server:  # no Ray, at a port that Ray once had
        for said in (f"127.0.0.1:{server.getsockname()[1]}", "127.0.0.1:1", "nonsense", ""):
            path.write_text(said)
            check = sweep_checks.check_stale_cluster(tmp_path)
            assert check.ok is None and f"gone ({said})" in check.said and check.mend == f"rm {path}"
    path.unlink()
    path.symlink_to(tmp_path / "anything")
    assert sweep_checks.check_stale_cluster(tmp_path).ok is True
    path.unlink()
    path.write_text("127.0.0.1:1")
    if os.geteuid() == 0:
        os.chown(path, 64001, 64001)
        check = sweep_checks.check_stale_cluster(tmp_path)
        assert check.ok is None and "is uid 64001's: sweeps start a Ray of their own" in check.said


def sweep(**over):
    raw = {"name": "s", "method": "moco", "student": {"arch": "test_efficientnet"}, "epochs": 3, "samples": 3}
    digits = {"preset": "digits", "baseline": {"method": "moco", "preset": "digits", "epochs": 3}}
    return build_sweep({**raw, **digits, **over})


def test_what_a_spec_needs(tmp_path):
    data, teacher, student, spec = sweep_checks.check_spec(sweep())
    assert data.ok and "digits" in data.said and "10 classes" in data.said
    assert teacher.ok and "needs none" in teacher.said
    assert student.ok and student.said == "a test_efficientnet starts from random weights"
    assert spec.ok, spec


def test_data_that_is_missing_and_a_setting_that_cannot_work(tmp_path):
    missing = sweep(data={"name": "cifar10", "path": str(tmp_path)}, fixed={"queue_size": 1000})
    data, _, _, spec = sweep_checks.check_spec(missing)
    assert data.ok is False and str(tmp_path) in data.said and "data" in data.mend
    assert spec.ok is False and spec.mend


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_ray_starts_and_answers():
    home = Path("~/.ray/auth_token").expanduser()
    before = home.exists()
    check = check_ray()
    assert check == Check("ray", True, "starts and runs a task")
    assert not list(Path(os.environ["RAY_TMPDIR"]).glob("rk*")) and home.exists() == before


def test_a_ray_that_does_not_start_or_hangs_is_said_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", str(package(tmp_path / "a", "ray", "raise ImportError('no module grpc')"))
    )
    check = check_ray()
    assert check.ok is False and "no module grpc" in check.said and check.mend
    monkeypatch.setenv("PYTHONPATH", str(package(tmp_path / "b", "ray", "import time; time.sleep(600)")))
    began = time.monotonic()
    check = check_ray(limit_s=2)
    assert check.ok is False and "no answer within 2 s" in check.said
    assert time.monotonic() - began < 20
