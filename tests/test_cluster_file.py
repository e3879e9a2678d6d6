"""`ray submit cluster.yaml sweep.py`: both files, as far as one machine can show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raykd.cli import verbs

ROOT = Path(__file__).resolve().parent.parent


def test_cluster_yaml_is_what_ray_expects() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    assert config["provider"]["type"] == "local" and "available_node_types" not in config


@pytest.mark.slow
def test_sweep_py_takes_what_raykd_run_takes_from_any_folder(tmp_path: Path) -> None:
    copy = tmp_path / "sweep.py"  # `ray submit` copies this one file, and nothing beside it
    copy.write_text((ROOT / "sweep.py").read_text())
    arguments = ["quickstart", "--set", "samples=3", "--dry-run", "--json"]
    done = subprocess.run(
        [sys.executable, str(copy), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"] == 3
    verb = [sys.executable, str(copy), "status", "nothing"]
    other = subprocess.run(verb, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert other.returncode == 2 and "nothing" in other.stderr
    # What drives a sweep runs apart from the terminal, where its words and its exit code arrive all the same.
    home = {**os.environ, "HOME": str(tmp_path)}
    drive = [sys.executable, str(copy), "resume", "nothing"]
    apart = subprocess.run(drive, cwd=tmp_path, env=home, capture_output=True, text=True, check=False)
    assert apart.returncode == 2 and "raykd: name:" in apart.stdout
    (kept,) = (tmp_path / "raykd-output").iterdir()
    assert "raykd: name:" in kept.read_text()


def test_sweep_py_knows_every_verb_of_the_command_line(tmp_path: Path) -> None:
    """A verb that is added needs no second list: it goes through, and is no spec to run."""
    code = f"""
import runpy, sys
from raykd.cli import app

@app.app.command()
def greet(name: str) -> None:
    print("hello", name)

sys.argv = ["sweep.py", "greet", "you"]
runpy.run_path({str(ROOT / "sweep.py")!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "hello you\n"), done.stderr


def test_verbs_say_what_they_do_to_their_process() -> None:
    known = verbs()
    assert {name for name, flags in known.items() if flags.drives} == {"run", "ablate", "resume", "evaluate"}
    assert {name for name, flags in known.items() if flags.loads_torch} == {
        *("run", "ablate", "resume", "evaluate", "export", "doctor", "teacher", "check-method"),
    }
    assert {"status", "best", "list", "attach", "report", "importance"} <= known.keys()
