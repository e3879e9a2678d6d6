"""The arms of a study and its rules, as a ledger holds them.

`ablation/study.py` makes them from the file that a user writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from raykd.spec.axis_parse import AnyAxis
from raykd.spec.sections import Section
from trainables.core.errors import UserError
from trainables.spec.trial import Spec

ARM = "arm"  # the name of a study's only axis
_FOUND_OUT = ("also", "trained_parameters", "step_flops", "epoch_steps", "tuned")  # not in the user's file
Design = Literal["one_at_a_time", "leave_one_out", "factorial", "grid", "compare"]
Budget = Literal["epochs", "steps", "compute"]


class ArmSpec(Spec):
    """One arm: what it changes of the base. The sections of the study describe the base."""

    method: str | None = Field(None, description="None: the base's")
    preset: str | None = Field(None, description="of the method; None: the base's")
    epochs: Annotated[int, Field(ge=1)] | None = Field(None, description="None: the base's")
    settings: Section = Field({}, description="flat name -> value")
    levels: dict[str, Any] = Field({}, description="factor or component -> its level in this arm")
    also: dict[str, tuple[Any, Any]] = Field(
        {}, description="flat name -> values in base and arm, of what follows from the change"
    )
    trained_parameters: int | None = Field(None, description="numbers that an optimizer moves")
    step_flops: float | None = Field(
        None, description="floating-point operations of a step, forward and backward"
    )
    epoch_steps: int | None = Field(None, description="optimizer steps of an epoch")
    tuned: dict[str, Any] = Field({}, description="flat name -> value, from its own search")

    def flops(self, epochs: int) -> float | None:
        """The floating-point operations of so many epochs; None where they were not counted."""
        counted = self.step_flops is not None and self.epoch_steps is not None
        return self.step_flops * self.epoch_steps * epochs if counted else None  # type: ignore[operator]

    def written(self) -> ArmSpec:
        """The arm without what was computed before the study started."""
        found = {name: ArmSpec.model_fields[name].get_default() for name in _FOUND_OUT}
        return self.model_copy(update=found)


class Retune(Spec):
    """A search for every arm, before the arms are compared."""

    samples: Annotated[int, Field(ge=1)] = Field(description="configurations to try, of each arm")
    axes: dict[str, AnyAxis] = Field(
        {}, description="flat name -> what varies; none: the learning rate, about the arm's own"
    )

    @model_validator(mode="before")
    @classmethod
    def _samples_alone(cls, raw: Any) -> Any:
        if isinstance(raw, int) and not isinstance(raw, bool):
            return {"samples": raw}
        if not isinstance(raw, Mapping | Retune):
            raise UserError("", "is no search", value=raw, expected="`8`, or `{samples: 8, axes: {...}}`")
        return raw


def _names(raw: Any) -> Any:
    """Names as text, also where YAML reads a level as a number (`64: 61.3`)."""
    if not isinstance(raw, Mapping):
        return raw
    named = {name if isinstance(name, str) else json.dumps(name): value for name, value in raw.items()}
    if len(named) < len(raw):
        raise UserError("", "has a level twice, as text and as a number", value=list(raw))
    return named


class Published(Spec):
    """A paper's own numbers. They are shown beside ours, and nothing is computed with them."""

    source: str = Field(description="paper and table")
    unit: str = Field("", description="data set and metric")
    values: Annotated[dict[str, float], BeforeValidator(_names)] = Field(
        description="arm -> number; of a single factor its level is enough"
    )


class StudyRules(Spec):
    """What is to be concluded about the arms, and from how many replicates."""

    design: Design
    base: str = Field(description="the arm that the others are compared with")
    budget: Budget = Field("epochs", description="what is equal between the arms")
    replicates: Annotated[int, Field(ge=1)] = Field(description="seeds of every arm; the most, if sequential")
    looks: tuple[int, ...] = Field((), description="replicates after which a sequential study looks")
    ends: tuple[int, ...] = Field((), description="last looks that it was to have before it was extended")
    precision: Annotated[float, Field(gt=0)] | None = Field(
        None, description="points: stop when every interval's half-width is below"
    )
    decide: bool = Field(False, description="go on where it is open whether an arm differs")
    margin: Annotated[float, Field(ge=0)] = Field(0.0, description="points that make no difference")
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(0.05, description="error over the whole study")
    score_at: Literal["last", "best"] = Field(
        "last", description="the last epoch's score, or the best over epochs (favours noisy arms)"
    )
    factors: dict[str, tuple[Any, ...]] = Field({}, description="of a factorial: levels, the base's first")
    step: Annotated[float, Field(ge=0)] = Field(
        0.0, description="resolution of the scores, points; computed before the study starts"
    )
    retune: Retune | None = Field(None, description="each arm's own search first")
    allow: tuple[str, ...] = Field((), description="fields in which arms may differ as well")
    published: Published | None = None

    @property
    def sequential(self) -> bool:
        """Whether the number of replicates depends on the results."""
        return self.decide or self.precision is not None

    @property
    def families(self) -> int:
        """The number of families of claims (arms; effects or ranks); each has its share of alpha."""
        return 2 if self.design in ("factorial", "compare") and not self.sequential else 1

    def extended(self, more: Iterable[int]) -> StudyRules:
        """The rules after extensions by so many replicates each; only a `precision` study's change."""
        rules = self
        for replicates in more if self.precision is not None else ():
            last = rules.replicates + replicates
            looks = tuple(range(rules.looks[0], last + 1))
            changed = {"replicates": last, "looks": looks, "ends": (*rules.ends, rules.replicates)}
            rules = rules.model_copy(update=changed)
        return rules

    def written(self) -> StudyRules:
        """The rules without what was computed before the study started."""
        return self.model_copy(update={"step": 0.0})
