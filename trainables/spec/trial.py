"""`TrialSpec`: the frozen, complete description of one training run, and the hash that names it.

Two trials with the same `signature()` give the same result. The signature is the name of the trial's folder,
its TensorBoard run and its row in tables. This module imports no torch, so that reading a sweep is fast.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from trainables.core.errors import UserError
from trainables.core.plugins import unit_hashes
from trainables.spec.data_spec import SPLITS as SPLITS
from trainables.spec.data_spec import DataSpec as DataSpec
from trainables.spec.data_spec import Seed as Seed
from trainables.spec.data_spec import Spec as Spec
from trainables.spec.inputs import InputFields
from trainables.spec.network_spec import ModelSpec as ModelSpec
from trainables.spec.network_spec import WeightsSpec as WeightsSpec
from trainables.spec.network_spec import file_digest as file_digest
from trainables.spec.training_specs import OptimSpec as OptimSpec
from trainables.spec.training_specs import ProbeSpec as ProbeSpec
from trainables.spec.training_specs import ViewSpec as ViewSpec

# Fields about where files lie and how they are fetched. They are not part of a trial's identity and no axes.
NOT_IDENTITY = {"data": ("path", "download", "max_undecodable")}

# Fields that were added after trials had been named without them, with the value at which a trial is the same
# as before. At that value a field is not part of the identity. It is the field's default; a test compares.
YOUNGER: Mapping[str, Mapping[str, Any]] = {
    "data": {
        "splits": None,
        "classes": None,
        "fit": "centre",
        "keep": "raw",
        "short_side": 256,
        "decoder": "cpu",
        "crop_share": None,
    },
    "views": {"operations": {}, "second": {}},
    "optim": {"trust_coefficient": None, "compile": "auto"},
}
YOUNGER_CONFIG: Mapping[str, Mapping[str, Any]] = {  # by method
    "disco": {"fidelity": "paper"},
    "global_patch": {"balance": "none"},
    "lpkd": {"fidelity": "paper"},
    "projector": {"bn_epsilon": 1e-4},
    "retro": {"consistency_weight": 1.0, "mbconv_activation": "published"},
    "rrkd": {"distillation_weight": 1.0},
}
HEAD_METHOD = "moco"  # which fits a teacher's head
# Choices whose computation was wrong in an earlier version: method -> field -> choices. A trial with one of
# them has a new name, because its result is a new one.
CORRECTED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "retro": {"adapter": ("mbconv",)},  # activation by student, residual at equal widths
    "rrkd": {"anchors": ("queue",)},  # rows that are not filled yet are masked
}


class TeacherTraining(Spec):
    """How to train a teacher where there is no checkpoint."""

    method: str = "moco"
    preset: str | None = None
    epochs: Annotated[int, Field(ge=1)] = Field(description="a number of epochs")
    config: dict[str, Any] = Field({})
    optim: dict[str, Any] = Field({})
    views: dict[str, Any] = Field({})
    seed: Seed = 0
    start: dict[str, Any] = Field(
        {},
        description="the weights that it starts from, as a student's: `{pretrained: true}`, "
        "`{checkpoint: FILE}` or `{train: {...}}`; left out: random ones",
    )

    @model_serializer(mode="wrap")
    def _without_no_start(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = dump(self)
        if not self.start:  # as in trials from before this was a field
            dumped.pop("start", None)
        return dumped


class HeadTraining(Spec):
    """How to fit a projection head to a teacher's frozen backbone: MoCo-v2's head, by MoCo-v2's contrast."""

    preset: str | None = Field(
        None, description="of method moco; left out: the trial's where moco has it, else paper"
    )
    epochs: Annotated[int, Field(ge=1)] = Field(20, description="a number of epochs")
    config: dict[str, Any] = Field({}, description="settings of method moco")
    optim: dict[str, Any] = Field({})
    views: dict[str, Any] = Field({})
    seed: Seed = 0


class TeacherSpec(WeightsSpec):
    """Who teaches: an architecture with a checkpoint, or with the training that makes one."""

    section = "teacher"

    train: TeacherTraining | None = Field(None, description="train it on the same data instead")
    head: HeadTraining | None = Field(
        None,
        description="fit: a projection head is fitted to the frozen backbone before the trials, or a mapping "
        "that says how; left out or own: the file's, if it has one",
    )
    batch_norm: Literal["eval", "batch"] = Field(
        "eval",
        description="eval: running statistics; batch: those of the batch, as DisCo's and RETRO's code does",
    )
    weight: Annotated[float, Field(gt=0)] = Field(
        1.0, description="of its losses, beside the other teachers of a trial; 1 for a single one"
    )

    @field_validator("head", mode="before")
    @classmethod
    def _head(cls, given: Any) -> Any:
        if isinstance(given, str):
            if given not in ("own", "fit"):
                raise UserError("", "no such choice", value=given, choices=("own", "fit"))
            return {} if given == "fit" else None
        return given

    @model_validator(mode="after")
    def _pixels(self) -> Self:
        written = [name for name in InputFields.model_fields if getattr(self, name) is not None]
        if self.train is not None and written:
            problem = "goes with `checkpoint`: a teacher that raykd trains is fed as in its training"
            value = getattr(self, written[0])
            value = list(value) if isinstance(value, tuple) else value
            expected = "neither `mean` nor `std`" if written[0] == "mean" else "none"
            raise UserError(written[0], problem, value=value, expected=expected)
        return self

    def identity(self, data: DataSpec) -> dict[str, Any]:
        """As of all weights; of its training as older versions named it."""
        identity = super().identity(data)
        if self.train is not None:
            _as_named(identity["train"])
            if self.train.start:
                identity["train"]["start"] = StudentSpec.model_validate(self.train.start).identity(data)
        # Every teacher was so before these were fields.
        if self.weight == 1:
            del identity["weight"]
        if self.head is None:
            del identity["head"]
        else:
            identity["head"]["method"] = HEAD_METHOD
            _as_named(identity["head"])
        return identity


class StudentSpec(WeightsSpec):
    """Who learns: an architecture with random weights, or with those that it has learned before."""

    section = "student"

    train: TrialSpec | None = Field(
        None,
        description="train it before, as a trial of its own (`{method, preset, epochs, data, ...}`) on the "
        "same data but for what its `data` says",
    )

    @property
    def has_learned(self) -> bool:
        """Whether it starts from weights that it has learned before."""
        return self.checkpoint is not None or self.pretrained or self.train is not None

    @model_validator(mode="after")
    def _pixels(self) -> Self:
        if self.image_size is not None:
            problem = "is for a teacher: the student's size is `data.image_size`"
            raise UserError("image_size", problem, value=self.image_size, expected="none")
        for name in InputFields.model_fields:
            value = getattr(self, name)
            if value is not None and not self.has_learned:
                problem = "goes with `checkpoint` or `pretrained`: without them a student sees the views"
                value = list(value) if isinstance(value, tuple) else value
                expected = "neither `mean` nor `std`" if name == "mean" else "none"
                raise UserError(name, problem, value=value, expected=expected)
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = dump(self)
        # As in trials from before these were fields.
        return {name: of for name, of in dumped.items() if of is not None}

    def identity(self, data: DataSpec) -> dict[str, Any]:
        """As of all weights; of its training the name."""
        identity = super().identity(data)
        if self.train is not None:
            identity["train"] = self.train.signature()
        return identity


class TrialSpec(Spec):
    """One training run, complete: nothing is filled in later."""

    method: str
    config: dict[str, Any] = Field(description="the method's Config, every field present")
    student: StudentSpec
    teacher: TeacherSpec | None = Field(
        None, description="who teaches; a list for methods that can take several"
    )
    # Written as one list with the first, `teacher: [..., ...]`.
    further_teachers: tuple[TeacherSpec, ...] = ()
    data: DataSpec = DataSpec()
    views: ViewSpec = ViewSpec()
    optim: OptimSpec = OptimSpec()
    probe: ProbeSpec = ProbeSpec()
    epochs: Annotated[int, Field(ge=1)]
    seed: Seed = 0
    plugins: dict[str, str] = Field(
        {}, description="module -> hash of its code, of what is not raykd's own; `resolve` finds it out"
    )

    @model_validator(mode="before")
    @classmethod
    def _teachers(cls, raw: Any) -> Any:
        given = raw.get("teacher") if isinstance(raw, Mapping) else None
        if isinstance(given, list | tuple) and given:
            return {**raw, "teacher": given[0], "further_teachers": tuple(given[1:])}
        return raw

    @property
    def teachers(self) -> tuple[TeacherSpec, ...]:
        """All teachers, in order."""
        return () if self.teacher is None else (self.teacher, *self.further_teachers)

    def with_teachers(self, teachers: Sequence[TeacherSpec]) -> TrialSpec:
        """The same trial with these teachers."""
        first = teachers[0] if teachers else None
        return self.model_copy(update={"teacher": first, "further_teachers": tuple(teachers[1:])})

    @property
    def of_each_teacher(self) -> list[TrialSpec]:
        """The trial with each of its teachers alone; [] without a teacher."""
        return [self.with_teachers([teacher]) for teacher in self.teachers]

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = dump(self)
        if further := dumped.pop("further_teachers", ()):
            dumped["teacher"] = [dumped["teacher"], *further]
        if not self.plugins:  # as in trials from before this was a field
            dumped.pop("plugins", None)
        return dumped

    def signature(self) -> str:
        """8 hex digits of the hash of everything that defines the result; paths do not count."""
        return digest(self._identity())

    def arm(self) -> str:
        """The signature without the seed; the replicates of one setting share it."""
        return digest({**self._identity(), "seed": None})

    def _identity(self) -> dict[str, Any]:
        identity = self.model_dump(mode="json")
        if self.plugins:
            identity["plugins"] = unit_hashes(self.plugins)
        for field in NOT_IDENTITY["data"]:
            identity["data"].pop(field)
        _as_named(identity)
        identity["student"] = self.student.identity(self.data)
        found = [teacher.identity(self.data) for teacher in self.teachers]
        if found:
            identity["teacher"] = found[0] if len(found) == 1 else found
        return identity


def teacher_field(trial: TrialSpec, at: int) -> str:
    """Where teacher number `at` of a trial is written: `teacher`, of several `teacher.1`."""
    return f"teacher.{at}" if trial.further_teachers else "teacher"


def _as_named(identity: dict[str, Any]) -> None:
    """Remove the fields of `YOUNGER` at their old value from an identity; add the choices of `CORRECTED`."""
    method, config = identity["method"], identity["config"]
    younger = {**YOUNGER, "config": YOUNGER_CONFIG.get(method, {})}
    for section, fields in younger.items():
        written = identity.get(section, {})  # a teacher's training has no data of its own
        for name, before in fields.items():
            if name in written and written[name] == before:
                del written[name]
    choices = CORRECTED.get(method, {})
    if corrected := [f"{name}: {config[name]}" for name, of in choices.items() if config.get(name) in of]:
        identity["corrected"] = corrected


def digest(value: Mapping[str, Any]) -> str:
    """8 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
