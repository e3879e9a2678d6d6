"""`TrialSpec`: the frozen, complete description of one training run, and the hash that names it.

Two trials with the same `signature()` give the same result. The signature is the name of the trial's folder,
its TensorBoard run and its row in tables. This module imports no torch, so that reading a sweep is fast.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
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
    "lpkd": {"fidelity": "paper"},
    "projector": {"bn_epsilon": 1e-4},
    "retro": {"consistency_weight": 1.0, "mbconv_activation": "published"},
    "rrkd": {"distillation_weight": 1.0},
}
# Choices whose computation was wrong in an earlier version: method -> field -> choices. A trial with one of
# them has a new name, because its result is a new one.
CORRECTED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "retro": {"adapter": ("mbconv",)},  # activation by student, residual at equal widths
    "rrkd": {"anchors": ("queue",)},  # rows that are not filled yet are masked
}


def _no_boolean(value: Any) -> Any:
    """Refuse a boolean, which pydantic reads as 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("is yes or no, and a number is expected")
    return value


Number = Annotated[float, BeforeValidator(_no_boolean)]
Operations = dict[str, Number | tuple[Number, ...]]


class ViewSpec(Spec):
    """How images are augmented."""

    recipe: str = Field(
        "digits",
        description="moco_v2 | ssl_small | solo_learn | imagenet | light | cifar | digits | none",
    )
    strength: Annotated[float, Field(ge=0, le=2)] = Field(1.0, description="scales every range of the recipe")
    operations: Operations = Field(
        {},
        description="operation -> its number where the recipe has another, such as `{blur: 1.0, crop: 0.92}`",
    )
    second: Operations = Field(
        {}, description="likewise, for the second view alone; unused by methods with one view"
    )


class OptimSpec(Spec):
    """Optimizer, schedule and batch."""

    optimizer: str = Field("adamw", description="any name timm.optim knows")
    lr: Annotated[float, Field(gt=0)] = Field(2e-3, description="peak learning rate, used as it is")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_norms: bool = Field(False, description="decay biases and norms too, as MoCo's code does")
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of SGD-like optimizers")
    schedule: Literal["cosine", "step", "multistep", "constant"] = "cosine"
    decay_epochs: tuple[int, ...] = Field(
        (), description="epochs at which `multistep` (or every N, `step`) decays"
    )
    decay_rate: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="factor of each decay")
    warmup_epochs: Annotated[int, Field(ge=0)] = Field(0, description="epochs of linear warm-up")
    min_lr: Annotated[float, Field(ge=0)] = Field(0.0, description="where cosine ends")
    batch_size: Annotated[int, Field(ge=2)] = Field(
        128, description="images of one optimizer step, all workers"
    )
    accumulate: Annotated[int, Field(ge=1)] = Field(
        1,
        description="micro-batches that make one step; losses on relations within a batch see one of them",
    )
    clip_grad: Annotated[float, Field(gt=0)] | None = Field(None, description="largest gradient norm")
    trust_coefficient: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of LARS and LARC, eta in their paper; none: .001"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="autocast type; auto: bfloat16 on GPUs, float32 on CPUs"
    )
    compile: Literal["auto", "off", "on"] = Field(
        "auto",
        description="torch.compile of the networks; auto: on GPUs, where torch can; it changes roundings",
    )
    batch_norm: Literal["sync", "local"] = Field(
        "sync", description="sync: statistics over all workers, so that their number changes no result"
    )


class ProbeSpec(Spec):
    """How features are evaluated while training."""

    score: str = Field(
        "ridge_5shot", description="what the search maximises: ridge | ridge_Kshot | knn | rankme"
    )
    record: tuple[str, ...] = Field(("ridge_1shot", "ridge", "knn"), description="further probes to record")
    point: Literal["backbone", "adapter", "head"] = Field("backbone", description="where features are taken")
    every: Annotated[int, Field(ge=1)] = Field(
        1, description="epochs between probes; the last is always probed"
    )
    draws: Annotated[int, Field(ge=2)] = Field(30, description="fixed draws of a k-shot probe")
    max_images: Annotated[int, Field(ge=100)] = Field(
        50_000, description="images at most that a probe is fitted on, and scored on"
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


class TeacherSpec(WeightsSpec):
    """Who teaches: an architecture with a checkpoint, or with the training that makes one."""

    section = "teacher"

    train: TeacherTraining | None = Field(None, description="train it on the same data instead")
    batch_norm: Literal["eval", "batch"] = Field(
        "eval",
        description="eval: running statistics; batch: those of the batch, as DisCo's and RETRO's code does",
    )

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
    teacher: TeacherSpec | None = None
    data: DataSpec = DataSpec()
    views: ViewSpec = ViewSpec()
    optim: OptimSpec = OptimSpec()
    probe: ProbeSpec = ProbeSpec()
    epochs: Annotated[int, Field(ge=1)]
    seed: Seed = 0
    plugins: dict[str, str] = Field(
        {}, description="module -> hash of its code, of what is not raykd's own; `resolve` finds it out"
    )

    @model_serializer(mode="wrap")
    def _without_no_plugins(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = dump(self)
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
        if self.teacher is not None:
            identity["teacher"] = self.teacher.identity(self.data)
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


def digest(value: Mapping[str, Any]) -> str:
    """8 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
