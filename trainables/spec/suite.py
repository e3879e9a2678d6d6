"""A suite: the tasks that say what a student is worth beyond its probe. Read without torch.

    suite = build(SuiteSpec, {"name": "quick", "tasks": {"linear": {"task": "frozen", "probe": "ridge"}}})
    suite.tasks["linear"].data_of(trial.data)

Each kind of task is a class in this file or beside it, and a row in `AnyTask`. `downstream` runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build
from trainables.spec.suite_detection import DetectionTask as DetectionTask
from trainables.spec.suite_task import SuiteTask as SuiteTask
from trainables.spec.trial import Seed, Spec


class FrozenTask(SuiteTask):
    """A probe of frozen features, fitted on the training and validation part and read on the test split."""

    task: Literal["frozen"] = "frozen"
    probe: str = Field("ridge", description="ridge, ridge_Kshot, knn, logistic: one of `raykd list probes`")


AnyTask = Annotated[FrozenTask | DetectionTask, Field(discriminator="task")]


class SuiteSpec(Spec):
    """Tasks by name, and the seeds with which each is run on each network."""

    name: str = Field(description="of the suite, in tables")
    description: str = ""
    tasks: dict[str, AnyTask] = Field(description="name -> task")
    seeds: tuple[Seed, ...] = Field((0,), description="of what a task draws: labels, order, initial values")

    @field_validator("tasks", mode="before")
    @classmethod
    def _kinds(cls, given: Any) -> Any:
        tasks = as_mapping(given, "")
        if not tasks:
            raise UserError("", "is empty", expected="`name: {task: KIND, ...}` lines")
        return {name: _task(name, raw) for name, raw in tasks.items()}


TASKS: Mapping[str, type[SuiteTask]] = {
    kind.model_fields["task"].default: kind for kind in (FrozenTask, DetectionTask)
}


def _task(name: str, raw: Any) -> Any:
    if isinstance(raw, SuiteTask):
        return raw
    mapping = as_mapping(raw, name)
    kind = TASKS.get(mapping.get("task", ""))
    if kind is None:
        raise UserError(f"{name}.task", "no such kind of task", value=mapping.get("task"), choices=TASKS)
    return build(kind, mapping, name)
