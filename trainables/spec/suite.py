"""A suite: the tasks that say what a student is worth beyond its probe. Read without torch.

    suite = build(SuiteSpec, {"name": "quick", "tasks": {"linear": {"task": "frozen", "probe": "ridge"}}})
    suite.tasks["linear"].data_of(trial.data)

Each kind of task is a class in this file or one beside it, and a member of `AnyTask` and `TASKS`. Its base is
in `suite_task`, so that a file beside this one imports nothing from here. `downstream` runs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build
from trainables.spec.suite_detection import DetectionTask as DetectionTask
from trainables.spec.suite_labels import LabelledTask
from trainables.spec.suite_task import SuiteTask as SuiteTask
from trainables.spec.suite_trained import Candidates, FineTuneTask, LinearTask
from trainables.spec.trial import Seed, Spec

CHOOSES = "logistic"  # the probe whose strength the validation part chooses
_STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")  # of a task: it is in paths, in names of metrics and in tables


class FrozenTask(LabelledTask):
    """A probe of frozen features, fitted on the training and validation part and read on the test split."""

    task: Literal["frozen"] = "frozen"
    probe: str = Field("ridge", description="ridge, ridge_Kshot, knn, logistic: one of `raykd list probes`")
    strengths: Candidates = Field(
        _STRENGTHS,
        description="of `logistic`: inverse strengths C of the penalty; the validation part chooses one",
    )
    draws: Annotated[int, Field(ge=2)] = Field(30, description="of `ridge_Kshot`: draws, whose mean counts")
    max_images: Annotated[int, Field(ge=100)] = Field(
        50_000, description="images at most that a probe is fitted on, evenly from all classes"
    )

    @model_validator(mode="after")
    def _of_the_probe(self) -> FrozenTask:
        if self.strengths != _STRENGTHS and self.probe != CHOOSES:
            raise UserError(
                "strengths", f"go with `probe: {CHOOSES}`", value=list(self.strengths), expected="none"
            )
        return self


AnyTask = Annotated[FrozenTask | LinearTask | FineTuneTask | DetectionTask, Field(discriminator="task")]


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
    kind.model_fields["task"].default: kind for kind in (FrozenTask, LinearTask, FineTuneTask, DetectionTask)
}


def _task(name: str, raw: Any) -> Any:
    if not _NAME.fullmatch(name):
        expected = "letters, digits, and . _ + - between them"
        raise UserError(name, "is no name of a task", value=name, expected=expected)
    if isinstance(raw, SuiteTask):
        return raw
    mapping = as_mapping(raw, name)
    if "task" not in mapping:
        raise UserError(f"{name}.task", "is missing", expected=f"one of {', '.join(sorted(TASKS))}")
    given = mapping["task"]
    kind = TASKS.get(given) if isinstance(given, str) else None
    if kind is None:
        raise UserError(f"{name}.task", "no such kind of task", value=given, choices=TASKS)
    return build(kind, mapping, name)
