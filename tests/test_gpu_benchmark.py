"""`benchmarks/gpu.py` must work at the first try on a machine that is lent for minutes."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / "benchmarks" / "gpu.py", *sorted((ROOT / "benchmarks" / "gpu_parts").glob("*.py"))]


def test_it_needs_neither_ray_nor_the_engine() -> None:
    """Such a machine may have torch and timm alone."""
    wanted = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                wanted.add((node.module or "").partition(".")[0])
    own = {"gpu_parts", "trainables", "torch", "numpy"}
    assert wanted - own - set(sys.stdlib_module_names) == {"pytest"}, (
        "pytest is imported where it is installed"
    )


@pytest.mark.slow
def test_a_rehearsal_fills_every_table(tmp_path: Path) -> None:
    """All parts but the compiler and Ray, on a CPU; what a failed part has found would be kept."""
    parts = ["machine", "tests", "methods", "speed", "pieces", "kernels", "loader", "views", "probes"]
    command = [
        sys.executable,
        "benchmarks/gpu.py",
        str(tmp_path),
        "--device",
        "cpu",
        "--rehearse",
        "--slow",
        "5",
    ]
    subprocess.run(
        [*command, "--parts", *parts], cwd=ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: part["ended"] for name, part in found.items()} == dict.fromkeys(parts, "whole")
    assert all(part["rows"] for part in found.values())
    assert not [row for row in found["methods"]["rows"] if row["agree"].startswith("failed")]
    assert not [row for row in found["speed"]["rows"] if "failed" in str(row["images/s"])]
    text = (tmp_path / "gpu.md").read_text()
    assert all(f"## {name} (whole" in text for name in parts)
