"""What raykd uses of Ray is there, its private parts too: this fails on the day that one of them moves."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]


def names_of_ray(path: Path) -> Iterator[str]:
    """Every dotted name of Ray that a file imports or reads: `ray._raylet.Config.initialize`.

    A local name stands for what an import or a plain assignment (`raylet: Any = ray._raylet`) gives it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                known[alias.asname or name] = name
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            value = dotted(node.value, known)
            if value is not None:
                known[node.target.id] = value
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            known.pop(node.arg, None)  # in a function, that name is an argument
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = dotted(node, known)
            if name is not None:
                yield name


def dotted(node: ast.expr, known: dict[str, str]) -> str | None:
    """`a.b.c` of an expression that only reads attributes, its first name spelled out."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    inner = dotted(node.value, known) if isinstance(node, ast.Attribute) else None
    return f"{inner}.{node.attr}" if inner and isinstance(node, ast.Attribute) else None


def is_private(name: str) -> bool:
    """By an underscore, or in a module that Ray's documentation does not list."""
    undocumented = ("ray.core.generated.", "ray.autoscaler.v2.", "ray.tune.execution.")
    return name.startswith(undocumented) or any(
        part.startswith("_") and not part.endswith("__") for part in name.split(".")
    )


USED = sorted(
    {
        name
        for path in (ROOT / "raykd").rglob("*.py")
        for name in names_of_ray(path)
        if name.partition(".")[0] == "ray" and "." in name
    }
)


@pytest.mark.parametrize("name", USED)
def test_a_name_of_ray_is_where_raykd_looks_for_it(name: str) -> None:
    found, parts = importlib.import_module("ray"), name.split(".")[1:]
    for at, part in enumerate(parts):
        if not hasattr(found, part):  # a module that nothing has imported yet
            importlib.import_module(".".join(["ray", *parts[: at + 1]]))
        found = getattr(found, part)
        if found is None:  # it has a value only where Ray runs
            break


def test_private_names_are_found_in_the_source() -> None:
    private = set(filter(is_private, USED))
    assert {
        "ray._raylet.AuthenticationTokenLoader.instance",  # by a local name of another one
        "ray._private.state.state.get_draining_nodes",
        "ray.train.torch.config._setup_torch_process_group",
        "ray.train.v2._internal.execution.worker_group.worker_group.placement_group",
        "ray.tune.execution.class_cache.ENV_VARS_TO_PROPAGATE",
        "ray.core.generated.gcs_pb2",
    } <= private, private


def test_raykd_installs_no_ray_that_it_was_not_tried_with() -> None:
    """Private names move without notice, so the next minor version of Ray is left out until it was tried."""
    declared = ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = declared["options"]["install_requires"].split("\n")
    (of_ray,) = (Requirement(line) for line in lines if line.startswith("ray["))
    major, minor = metadata.version("ray").split(".")[:2]
    assert of_ray.specifier.contains(metadata.version("ray"))
    assert not of_ray.specifier.contains(f"{major}.{int(minor) + 1}.0"), str(of_ray)
