"""Tasks that train: a linear classifier on augmented views of a frozen network, and fine-tuning.

    task = build(LinearTask, {"task": "linear", "preset": "swav", "epochs": 10})
    task.optim_spec(task.lr[0])

A preset fills in what the user leaves out. `lr`, and of fine-tuning `layer_decay`, are candidates: each is
trained, and the validation part chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build
from trainables.spec.suite_labels import LabelledTask
from trainables.spec.suite_presets import FINE_TUNING, LINEAR, Preset
from trainables.spec.trial import OptimSpec, ViewSpec

_MOST = 64  # candidates of one field


def _several(given: Any) -> Any:
    """A single number as a list of one. Raises `UserError` for an empty list and for a number twice."""
    listed = list(given) if isinstance(given, list | tuple) else [given]
    if not listed:
        raise UserError("", "is an empty list", value=[], expected="one number or more, such as [0.01, 0.1]")
    if len(listed) > _MOST:
        raise UserError("", f"has {len(listed)} candidates", expected=f"at most {_MOST}")
    for at, one in enumerate(listed):
        if isinstance(one, bool) or not isinstance(one, int | float):
            raise UserError("", "is no number", value=one, expected="one number or more, such as [0.01, 0.1]")
        if one in listed[:at]:
            raise UserError("", "has a candidate twice", value=one, expected="each number once")
    return tuple(float(one) for one in listed)


Candidates = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_several)]
Decays = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], BeforeValidator(_several)]


class TrainedTask(LabelledTask):
    """A classifier is trained on augmented views by stochastic gradient descent."""

    presets: ClassVar[Mapping[str, Preset]]
    default: ClassVar[str]  # the preset that holds where none is written
    compute: ClassVar[Mapping[str, Any]] = {
        "compile": "off"
    }  # defaults of `optim` that differ from a trial's

    preset: str | None = Field(None, description="published settings; fields beside it win over them")
    epochs: Annotated[int, Field(ge=1)] = Field(description="epochs of each training")
    lr: Candidates = Field(
        description="learning rates, used as they are; of several the validation part chooses one"
    )
    optim: Annotated[dict[str, Any], BeforeValidator(lambda raw: as_mapping(raw, ""))] = Field(
        {}, description="optimizer, schedule and batch, as of a trial, without `lr`"
    )
    views: ViewSpec = Field(ViewSpec(recipe="imagenet"), description="augmentation, as of a trial")

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, raw: Any) -> Any:
        """`raw` with what its preset says where it says nothing itself."""
        given = as_mapping(raw, "")
        name = given.get("preset") or cls.default
        if not isinstance(name, str) or name not in cls.presets:
            raise UserError("preset", "no such preset", value=name, choices=cls.presets)
        preset = cls.presets[name]
        optim = given.get("optim")
        if isinstance(optim, Mapping) or optim is None:
            given["optim"] = {**preset["optim"], **(optim or {})}
        return {**preset, **given}

    @model_validator(mode="after")
    def _trains(self) -> Self:
        if "lr" in self.optim:
            problem = "stands in the task itself, because its candidates are compared"
            raise UserError(
                "optim.lr", problem, value=self.optim["lr"], expected="`lr: [...]` beside `optim`"
            )
        spec = self.optim_spec(max(self.lr))
        late = [epoch for epoch in spec.decay_epochs if epoch >= self.epochs]
        if late and spec.schedule == "multistep":
            problem = f"holds epochs that {self.epochs} epochs do not reach"
            expected = f"epochs below {self.epochs}, such as [{', '.join(map(str, self._scaled(spec)))}]"
            raise UserError("optim.decay_epochs", problem, value=list(spec.decay_epochs), expected=expected)
        return self

    def optim_spec(self, lr: float) -> OptimSpec:
        """The section `optim` of a training with this learning rate. Raises `UserError` at `optim`."""
        return build(OptimSpec, {**self.compute, **self.optim, "lr": lr}, "optim")

    def identity(self) -> dict[str, Any]:
        """As of every task; its preset counts by what it fills in."""
        identity = super().identity()
        del identity["preset"]
        return identity

    def _scaled(self, spec: OptimSpec) -> list[int]:
        """The decays at the same shares of the epochs as in the preset, as a suggestion."""
        whole = self.presets[self.preset or self.default]["epochs"]
        scaled = {max(1, round(epoch * self.epochs / whole)) for epoch in spec.decay_epochs}
        return sorted(epoch for epoch in scaled if epoch < self.epochs) or [1]


class LinearTask(TrainedTask):
    """The papers' linear evaluation: a linear classifier on augmented views of the frozen network."""

    presets = LINEAR
    default = "moco"
    compute: ClassVar[Mapping[str, Any]] = {"compile": "off", "precision": "float32"}

    task: Literal["linear"] = "linear"


class FineTuneTask(TrainedTask):
    """Fine-tuning of the whole network with a new linear classifier."""

    presets = FINE_TUNING
    default = "sweep"

    task: Literal["finetune"] = "finetune"
    head_lr: Annotated[float, Field(gt=0)] = Field(
        1.0, description="the classifier's learning rate, as a multiple of `lr`"
    )
    layer_decay: Decays = Field(
        (1.0,),
        description="factors of the learning rate from a layer to the one below it; candidates, as `lr`",
    )
    batch_norm: Literal["train", "eval"] = Field(
        "train", description="train: the statistics of the batch; eval: the running ones, which do not change"
    )
