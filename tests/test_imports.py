"""Dependencies point one way: sweep.py -> raykd -> trainables -> torch. And a trial says nothing of Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The rooms of the trainables from the ground up, and which of those before it each may import.
TRAINABLES = {
    "core": "",
    "spec": "core",
    "views": "core spec",
    "data": "core spec views",
    "networks": "core spec",
    "teachers": "core spec networks",
    "targets": "core spec views data networks teachers",
    "methods": "core spec views data networks teachers",
    "evaluation": "core spec views data networks",
    "training": "core spec views data networks teachers targets methods evaluation",
    "downstream": "core spec views data networks teachers methods evaluation training",
    "planning": "core spec views data networks teachers targets methods evaluation training downstream",
}
# The rooms of the engine, likewise.
ENGINE = {
    "process": "",
    "stats": "",
    "storage": "process",
    "spec": "storage",
    "records": "process storage spec",
    "lanes": "process storage spec",
    "searching": "stats spec records lanes",
    "overview": "stats storage spec records",
    "evaluations": "stats storage spec records",
    "console": "process storage records searching overview",
    "export": "storage spec records evaluations",
    "ablation": "stats storage spec records searching evaluations console export",
    "runs": "process storage spec records lanes searching evaluations console export ablation",
    "report": "stats storage spec records searching evaluations console ablation",
    "api": (
        "process storage spec records lanes searching evaluations console overview export ablation runs "
        "report"
    ),
    "doctor": "process storage spec lanes",
    "cli": (
        "process storage spec records searching evaluations console overview export ablation runs report api "
        "doctor"
    ),
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


@pytest.mark.parametrize(("package", "rooms"), [("trainables", TRAINABLES), ("raykd", ENGINE)])
def test_rooms_stand_on_one_another(package: str, rooms: dict[str, str]) -> None:
    """Not even inside a function, or for a type, does a room import one that is not under it in the table."""
    names = list(rooms)
    for room, below in rooms.items():
        assert set(below.split()) <= set(names[: names.index(room)]), f"the table is out of order at {room}"
    folders = {path.parent.name for path in (ROOT / package).glob("*/*.py")}
    assert folders == set(names), "a room outside the table"
    top = {path.name for path in (ROOT / package).glob("*.py")}
    # One may train a trial without an engine, and measure references, by everything that the rooms hold.
    assert top == {"__init__.py"} | ({"__main__.py", "references.py"} if package == "trainables" else set())
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for room, below in rooms.items()
        for path in sorted((ROOT / package / room).rglob("*.py"))
        for line, name in imported(path)
        if name.split(".")[0] == package and name.split(".")[1] not in (room, *below.split())
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Nor through a third one; an import inside a function or for a type alone counts."""
    paths = [path for package in ("trainables", "raykd") for path in (ROOT / package).rglob("*.py")]
    modules = {module_name(path): path for path in paths}
    imports: dict[str, set[str]] = {}
    for module, path in modules.items():
        named = {name if name in modules else name.rpartition(".")[0] for _, name in imported(path)}
        imports[module] = {name for name in named if name in modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def module_name(path: Path) -> str:
    """The dotted name that a file is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_test_imports_another_test_module() -> None:
    """What tests share lies in `tests/helpers/`."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line, name in imported(path)
        if name.startswith("test_")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_engine_names_no_method() -> None:
    """Adding a method touches one file: nothing in the engine may know one by name."""
    from trainables.methods import methods
    from trainables.spec.trial import TrialSpec

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
        "import trainables.training.loop, trainables.references, trainables.methods\n"
        "trainables.methods.methods()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
