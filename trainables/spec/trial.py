"""`TrialSpec`: the frozen, complete description of one training run, and the hash that names it.

Two trials with the same `signature()` give the same result. The signature is the name of the trial's folder,
its TensorBoard run and its row in tables. This module imports no torch, so that reading a sweep is fast.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from trainables.core.errors import UserError
from trainables.core.plugins import unit_hashes
from trainables.core.shards import parts_of
from trainables.spec.data_spec import SPLITS as SPLITS
from trainables.spec.data_spec import DataSpec as DataSpec
from trainables.spec.data_spec import Seed as Seed
from trainables.spec.data_spec import Spec as Spec
from trainables.spec.normalisation import IMAGENET, LEAST_STD, Normalisation, Triple, checked
from trainables.spec.training_specs import OptimSpec as OptimSpec
from trainables.spec.training_specs import ProbeSpec as ProbeSpec
from trainables.spec.training_specs import ViewSpec as ViewSpec

# Fields about where files lie and how they are fetched. They are not part of a trial's identity and no axes.
NOT_IDENTITY = {"data": ("path", "download", "max_undecodable")}

# Fields that were added after trials had been named without them, with the value at which a trial is the same
# as before. At that value a field is not part of the identity. It is the field's default; a test compares.
YOUNGER: Mapping[str, Mapping[str, Any]] = {
    "data": {"splits": None, "fit": "centre", "keep": "raw", "short_side": 256, "decoder": "cpu"},
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


class ModelSpec(Spec):
    """An architecture: any timm model, `torchvision/NAME`, `raykd/NAME` or a user's `my_package:make_net`."""

    arch: str = Field(description="a timm model name, torchvision/NAME or raykd/NAME")
    options: dict[str, Any] = Field(
        {}, description="keyword arguments of the model's constructor, and `stem: small` for small images"
    )


class TeacherTraining(Spec):
    """How to train a teacher where there is no checkpoint."""

    method: str = "moco"
    preset: str | None = None
    epochs: Annotated[int, Field(ge=1)] = Field(description="a number of epochs")
    config: dict[str, Any] = Field({})
    optim: dict[str, Any] = Field({})
    views: dict[str, Any] = Field({})
    seed: Seed = 0


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


class TeacherSpec(Spec):
    """Who teaches: an architecture with a checkpoint, or with the training that makes one."""

    arch: str = Field(
        description="a timm model name, torchvision/NAME or raykd/NAME; with `pretrained` also "
        "hf-hub:OWNER/REPOSITORY"
    )
    options: dict[str, Any] = Field({}, description="as the student's")
    checkpoint: Path | None = Field(None, description="file with the teacher's weights")
    pretrained: bool = Field(
        False, description="take the weights that timm, torchvision or the hub have under the name `arch`"
    )
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
    mean: Triple | None = Field(
        None,
        description="of the pixels (0..1) that it was trained on, by channel; left out: as the file, its "
        "origin or timm's pretrained_cfg says",
    )
    std: Triple | None = Field(None, description="their deviation, likewise")
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

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _three(cls, given: Any, info: ValidationInfo) -> Triple | None:
        low, what = (0.0, "mean") if info.field_name == "mean" else (LEAST_STD, "deviation")
        return None if given is None else checked(given, low, what)

    @model_validator(mode="after")
    def _both(self) -> TeacherSpec:
        for name, other in (("mean", "std"), ("std", "mean")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                raise UserError(name, f"is missing beside `{other}`", expected="both, or neither")
        if self.train is not None and self.mean is not None:
            problem = "goes with `checkpoint`: a teacher that raykd trains is fed as in its training"
            raise UserError("mean", problem, value=list(self.mean), expected="neither `mean` nor `std`")
        return self

    @property
    def normalisation(self) -> Normalisation:
        """How its pixels are normalised; ImageNet's mean and deviation where nothing is said."""
        return IMAGENET if self.mean is None or self.std is None else Normalisation(self.mean, self.std)


class TrialSpec(Spec):
    """One training run, complete: nothing is filled in later."""

    method: str
    config: dict[str, Any] = Field(description="the method's Config, every field present")
    student: ModelSpec
    teacher: TeacherSpec | None = Field(
        None, description="who teaches; a list for methods that can take several"
    )
    further_teachers: tuple[
        TeacherSpec, ...
    ] = ()  # written as one list with the first, `teacher: [..., ...]`
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
        found = [_teacher_identity(teacher) for teacher in self.teachers]
        if found:
            identity["teacher"] = found[0] if len(found) == 1 else found
        return identity


def teacher_field(trial: TrialSpec, at: int) -> str:
    """Where teacher number `at` of a trial is written: `teacher`, of several `teacher.1`."""
    return f"teacher.{at}" if trial.further_teachers else "teacher"


def _teacher_identity(teacher: TeacherSpec) -> dict[str, Any]:
    identity = teacher.model_dump(
        mode="json", exclude={"pretrained"}
    )  # `resolve` has put a file in its place
    if teacher.train is not None:
        _as_named(identity["train"])
    if teacher.checkpoint is not None:
        identity["checkpoint"] = file_digest(teacher.checkpoint)
    # Every teacher was so before these fields existed.
    if teacher.normalisation.like(IMAGENET):
        del identity["mean"], identity["std"]
    if teacher.weight == 1:
        del identity["weight"]
    if teacher.head is None:
        del identity["head"]
    else:
        identity["head"]["method"] = HEAD_METHOD
        _as_named(identity["head"])
    return identity


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


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, or of all files of a checkpoint in several (`core.shards`).

    Of its path if it is not there.
    """
    path = path.expanduser()
    try:
        parts = parts_of(path)
        if parts is None:
            return _content_digest(path)
        together = "".join(f"{part.name} {_content_digest(part)}\n" for part in parts)
        return hashlib.sha256(together.encode()).hexdigest()
    except (OSError, ValueError):  # missing, a folder, unreadable or no index: loading it reports that
        return hashlib.sha256(str(path).encode()).hexdigest()


def _content_digest(path: Path) -> str:
    stat = path.stat()
    return _file_digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest(value: Mapping[str, Any]) -> str:
    """8 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
