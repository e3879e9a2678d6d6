"""Suites of evaluations: read from files, or by the names of those that come with raykd.

suite = load_suite("quick", ["tasks.linear.epochs=5", "seeds=[0, 1, 2]"])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raykd.spec.description import without_description
from raykd.spec.document import find_document, named_by_file, read_mapping
from raykd.spec.overrides import lay_over
from raykd.spec.shipped import suites
from trainables.core.files import expanded
from trainables.spec.parse import build
from trainables.spec.suite import SuiteSpec
from trainables.spec.suite_labels import LabelledTask
from trainables.spec.suite_task import SuiteTask


def find_suite(source: str | Path, field: str = "--on") -> Path:
    """The file that `source` names: a path, `-`, or the name of a suite that comes with raykd.

    Raises `UserError` at `field`, where the user named it.
    """
    return find_document(source, suites(), field, "suite")


def load_suite(
    source: str | Path, overrides: Sequence[str] = (), field: str = "--on", folder: Path | None = None
) -> SuiteSpec:
    """The suite in a file, or the one of that name, with overrides `path=value` laid over it.

    `field` is where the user named it. Relative paths (of data, and of lists of labels) start from `folder`,
    by default this process's working folder. Raises `UserError` for a file, a field or a value that cannot
    work.
    """
    path = find_suite(source, field)
    return read_suite({**named_by_file(path), **read_mapping(path)}, overrides, folder)


def read_suite(raw: dict[str, Any], overrides: Sequence[str] = (), folder: Path | None = None) -> SuiteSpec:
    """The suite that `raw`, the content of a suite's file, describes; the rest as of `load_suite`."""
    for override in overrides:
        raw = lay_over(raw, override)
    said = raw.get("about")
    raw = without_description(raw)
    if isinstance(said, str):
        raw = {"description": " ".join(said.split()), **raw}
    suite = build(SuiteSpec, raw)
    tasks = {name: _with_whole_paths(task, folder) for name, task in suite.tasks.items()}
    return suite.model_copy(update={"tasks": tasks})


def _with_whole_paths(task: SuiteTask, folder: Path | None) -> SuiteTask:
    """The task with its paths made absolute: workers and later drivers have other working folders."""
    changes: dict[str, Any] = {}
    if isinstance(path := task.data.get("path"), str):
        changes["data"] = {**task.data, "path": _whole(path, folder)}
    if isinstance(task, LabelledTask) and task.label_file is not None:
        changes["labels"] = _whole(str(task.labels), folder)
    return task.model_copy(update=changes)


def _whole(path: str, folder: Path | None) -> str:
    return str(Path(folder or "", expanded(path)).absolute())
