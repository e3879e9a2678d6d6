"""A sweep whose method, data, probe and student come from a package of the user's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import raykd
from own_code import METHOD, SPEC, forgotten, write_package, write_spec

from raykd.ablation.study import build_study
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.recorded_spec import spec_of
from raykd.runs.retune import searches
from raykd.spec.plugins import refuse_changed_code
from raykd.spec.search import load_sweep
from trainables.core import plugins
from trainables.core.errors import UserError
from trainables.planning.plugins import bring


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    with forgotten():
        yield


def test_a_spec_finds_the_package_beside_it_and_records_it(tmp_path: Path) -> None:
    write_package(tmp_path)
    spec = load_sweep(write_spec(tmp_path))
    assert spec.plugins == ("own_lab",)
    assert spec.model_dump(mode="json")["plugins"] == ["own_lab"]
    plain = load_sweep("quickstart")
    assert "plugins" not in plain.model_dump(mode="json")
    assert load_sweep("quickstart", ["plugins=[own_lab]"]).hash() != plain.hash()


def test_a_missing_package_is_refused_before_anything_runs_with_the_machine_s_name(tmp_path: Path) -> None:
    path = write_spec(tmp_path, plugins=["own_elsewhere"])
    done = raykd("run", path, "--dry-run", "--storage", tmp_path / "sweeps")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"plugins: there is no such module on {socket.gethostname()}" in done.stderr
    assert not (tmp_path / "sweeps").exists()


def test_changed_code_is_named_file_by_file(tmp_path: Path) -> None:
    package = write_package(tmp_path)
    bring(["own_lab"], [tmp_path])
    recorded = {"plugins": plugins.described(["own_lab"])}
    refuse_changed_code(recorded, plugins.described(["own_lab"]))
    (package / "losses.py").write_text(METHOD.replace("1 - nn", "2 - nn"))
    (package / "sources.py").unlink()
    (package / "more.py").write_text("")
    plugins._code.clear()
    with pytest.raises(UserError) as caught:
        refuse_changed_code(recorded, plugins.described(["own_lab"]))
    assert caught.value.field == "plugins"
    changes = "own_lab/losses.py has changed; own_lab/sources.py is gone; own_lab/more.py is new"
    assert changes in str(caught.value)


def test_a_study_and_the_searches_of_its_arms_have_the_plug_ins(tmp_path: Path) -> None:
    write_package(tmp_path)
    bring(["own_lab"], [tmp_path])
    study = build_study(
        {
            "name": "s",
            "plugins": ["own_lab"],
            "base": {
                "method": "own_cosine",
                "preset": "digits",
                "student": {"arch": "own_lab.networks:make_net"},
                "teacher": SPEC["teacher"],
                "data": {"name": "digits", "image_size": 16},
                "epochs": 2,
            },
            "design": "one_at_a_time",
            "factors": {"weight": [1.0, 2.0]},
            "replicates": 2,
            "retune": 2,
        },
        tmp_path,
    )
    assert study.plugins == ("own_lab",)
    assert {search.plugins for search in searches(study).values()} == {("own_lab",)}


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_sweep_runs_is_exported_and_does_not_go_on_with_changed_code(tmp_path: Path) -> None:
    specs, storage = tmp_path / "specs", tmp_path / "sweeps"
    package = write_package(specs)
    path = write_spec(specs)
    done = raykd("run", path, "--storage", storage, timeout=600)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in specs.rglob("__pycache__")) == []
    history = History.of(Ledger.read(storage / "own"))
    assert history.counts()["finished"] == 2
    recorded = (history.sweep or {})["plugins"]
    assert recorded["own_lab"]["file"] == str(package)
    assert "own_lab/losses.py" in recorded["own_lab"]["files"]
    spec = spec_of(history)
    trial = next(iter(history.trials.values()))
    assert spec.trial(trial.params, trial.replicate).signature() == trial.trial
    assert trial.best is not None

    assert raykd("status", "own", "--storage", storage).returncode == 0
    assert raykd("report", "own", "--storage", storage).returncode == 0
    done = raykd("export", "own", "--out", tmp_path / "out", "--storage", storage)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    lines = card[card.index("from safetensors.torch") :].partition("```")[0]
    assert "from own_lab.networks import make_net" in lines
    opened = subprocess.run(
        [sys.executable, "-c", lines], cwd=tmp_path / "out", env={"PYTHONPATH": str(specs)}, check=False
    )
    assert opened.returncode == 0
    assert "own_lab" in (tmp_path / "out" / "config.yaml").read_text()

    (package / "losses.py").write_text(METHOD.replace("1 - nn", "2 - nn"))
    done = raykd("resume", "own", "--extend", "1", "--storage", storage)
    assert done.returncode == 2 and "own_lab/losses.py has changed" in done.stderr, done.stderr
    shutil.rmtree(package)
    done = raykd("resume", "own", "--extend", "1", "--storage", storage)
    assert done.returncode == 2 and "there is no such module on" in done.stderr, done.stderr
    assert raykd("status", "own", "--storage", storage).returncode == 0, "reading needs no code"


@pytest.mark.slow
@pytest.mark.ray(second=True)
@pytest.mark.timeout(600)
def test_a_node_without_the_package_is_named_in_the_dry_run_and_by_the_doctor(tmp_path: Path) -> None:
    """Installed on the driver's side alone; beside the spec it travels."""
    from ray.cluster_utils import Cluster

    from raykd.lanes.cluster import quiet

    quiet()
    installed, specs = tmp_path / "installed", tmp_path / "specs"
    write_package(installed)
    specs.mkdir()
    path = write_spec(specs)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        common = ("--address", cluster.address, "--storage", str(tmp_path / "sweeps"))
        command = [sys.executable, "-m", "raykd.cli"]

        def said(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
            import os

            return subprocess.run(
                [*command, *words], capture_output=True, text=True, env={**os.environ, **env}, check=False
            )

        head = cluster.address.rpartition(":")[0]
        done = said("run", str(path), "--dry-run", *common, PYTHONPATH=str(installed))
        assert done.returncode == 2, done.stdout + done.stderr
        assert f"plugins: node {head}: there is no such module on {socket.gethostname()}" in done.stderr
        done = said("doctor", str(path), *common, "--json", PYTHONPATH=str(installed))
        assert done.returncode == 1 and "there is no such module" in done.stdout

        write_package(specs)
        done = said("run", str(path), "--dry-run", *common)
        assert done.returncode == 0, done.stderr
        done = said("doctor", str(path), *common)
        assert "ok    plugins: own_lab" in done.stdout, done.stdout + done.stderr
    finally:
        cluster.shutdown()
