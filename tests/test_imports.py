"""Dependencies point one way: sweep.py -> raykd -> trainables -> torch. And a trial says nothing of Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The rooms of the engine from the ground up, and which of those before it each may import.
ROOMS = {
    "process": "",
    "stats": "",
    "storage": "",
    "spec": "storage",
    "records": "process storage spec",
    "lanes": "process storage spec",
    "search": "stats spec records lanes",
    "console": "process storage records search",
    "export": "storage spec records",
    "ablation": "stats spec records search console export",
    "runs": "process storage spec records lanes search console export ablation",
    "report": "stats storage spec records search console ablation",
    "doctor": "process storage spec lanes",
    "cli": "process storage spec records search console export ablation runs report doctor",
}
FORBIDDEN = {
    "trainables": {"ray", "optuna", "raykd", "sweep", "tests", "benchmarks"},
    "raykd": {"sweep", "tests", "benchmarks"},
}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file, those inside functions and for types alone too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_no_arrow_points_back(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, name in imported(path)
        if name.split(".")[0] in FORBIDDEN[room]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_engine_s_rooms_stand_on_one_another() -> None:
    """Not even inside a function, or for a type, does a room import one that is not under it in the table."""
    engine, names = ROOT / "raykd", list(ROOMS)
    for room, below in ROOMS.items():
        assert set(below.split()) <= set(names[: names.index(room)]), f"the table is out of order at {room}"
    assert {path.parent.name for path in engine.glob("*/*.py")} == set(names), "a room outside the table"
    assert [path.name for path in engine.glob("*.py")] == ["__init__.py"], "a module that is in no room"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for room, below in ROOMS.items()
        for path in sorted((engine / room).rglob("*.py"))
        for line, name in imported(path)
        if name.split(".")[0] == "raykd" and name.split(".")[1] not in (room, *below.split())
    ]
    assert not wrong, "\n".join(wrong)


def test_the_engine_names_no_method() -> None:
    """Adding a method touches one file: nothing in the engine may know one by name."""
    from trainables.method import methods
    from trainables.trial import TrialSpec

    for path in sorted((ROOT / "raykd").rglob("*.py")):
        tree = ast.parse(path.read_text())
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                # The default baseline is data of a spec, and the one method a spec may leave unsaid.
                allowed = path.name == "sections.py" and node.value == "moco"
                # `seed` is a field of every trial, and a method of that name.
                allowed |= node.value in TrialSpec.model_fields
                assert allowed or node.value not in methods(), f"{path.name}:{node.lineno}: {node.value!r}"


def test_training_runs_without_the_engine_s_packages() -> None:
    """Where only torch and timm are installed (a GPU machine without Ray), the trainables import."""
    code = (
        "import sys\n"
        "for name in ('ray', 'optuna', 'raykd', 'tensorboard', 'typer', 'rich'): sys.modules[name] = None\n"
        "import trainables.loop, trainables.references, trainables.method\n"
        "trainables.method.methods()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
