"""Pages of docs/ that are scripts: every file that they show is written, every command is run, in order."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, follow


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_first_student(tmp_path: Path) -> None:
    """From a checkpoint and images to an exported student that timm opens, as the page says."""
    printed = follow(ROOT / "docs/first_student.md", tmp_path)
    assert (tmp_path / "student/student/model.safetensors").exists()
    assert "features of one image: (1, " in printed["python use.py"]
    assert "moco_v2" in printed["raykd teacher inspect teacher.pth.tar"]
    assert (tmp_path / "sweeps/mine/report.html").exists()


@pytest.mark.slow
def test_own_code(tmp_path: Path) -> None:
    """A package beside a spec is found, and its method does what every method must do."""
    printed = follow(ROOT / "docs/own_code.md", tmp_path)
    assert "bad" not in printed["raykd check-method my_lab.losses:MyLoss"]
    assert "12 trials" in printed["raykd run space.yaml --dry-run"]


@pytest.mark.ray  # it starts none, but takes as long
@pytest.mark.slow
def test_extending(tmp_path: Path) -> None:
    """The examples are found by themselves in a copy of raykd, and work; the smallest method is small."""
    for folder in ("raykd", "trainables", "search_spaces", "tests"):
        left_out = shutil.ignore_patterns("__pycache__", "fixtures")
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    printed = follow(ROOT / "docs/extending.md", tmp_path, PYTHONPATH=str(tmp_path))
    added = ["cosine.py", "stripes.py", "centroid.py", "plain_tpe.py", "cut.py"]
    paths = [path for name in added for path in tmp_path.glob(f"*/**/{name}")]
    assert len(paths) == len(added)
    subprocess.run([sys.executable, "-m", "mypy", *paths], cwd=tmp_path, check=True)
    assert "cosine" in printed["raykd list methods"] and "stripes" in printed["raykd list data"]
    small = [
        "trainables/methods/cosine.py",
        "tests/trainables/methods/test_cosine.py",
        "search_spaces/cosine.yaml",
    ]
    lines = [len((tmp_path / path).read_text().splitlines()) - 1 for path in small]  # without the path
    assert sum(lines) < 60
