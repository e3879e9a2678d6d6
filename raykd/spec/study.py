"""An ablation study: arms in place of axes, and the rules of what is concluded from them.

`ablation/study.py` makes it from the file that a user writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field
from typing_extensions import Self

from raykd.spec.arms import ARM, ArmSpec, StudyRules
from raykd.spec.space import Space, arm_space
from raykd.spec.sweep import SweepSpec
from trainables.spec.trial import TrialSpec
from trainables.training.flat_names import TEACHER, find_field


class StudySpec(SweepSpec):
    """An ablation study: every arm is trained once per replicate, and compared with the base."""

    kind, starts_by, resumes_by = "ablation study", "ablate", "ablate"
    of_other_kind: ClassVar[dict[str, Any]] = {"axes": {}, "points": []}

    arms: dict[str, ArmSpec] = Field(description="label -> what the arm changes of the base")
    study: StudyRules = Field(description="what is concluded, and from how many replicates")

    @cached_property
    def space(self) -> Space:
        """One axis, the arm."""
        return arm_space(tuple(self.arms))

    @property
    def samples_per_extension(self) -> int:
        """One replicate of every arm."""
        return len(self.arms)

    @property
    def replicates(self) -> tuple[int, ...]:
        """The seeds of every arm before the study is extended; of a sequential study the most it may need."""
        return tuple(range(self.study.replicates))

    def raw_trial(self, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The mapping that `resolve` makes the trial of `{"arm": label}` from."""
        label = params[ARM]
        arm = self.arms[label]
        method = arm.method or self.methods[0]
        values = [
            (find_field(name, [method], f"arms.{label}.{name}").path, value)
            for name, value in {**arm.settings, **arm.tuned}.items()
        ]
        return self._raw_trial(method, arm.preset, arm.epochs or self.epochs, values, seed)

    def arm_trial(self, label: str, seed: int = 0) -> TrialSpec:
        """The arm's trial with this seed. Raises `UserError`."""
        return self.trial({ARM: label}, seed)

    def trial_of_each(self) -> Iterator[TrialSpec]:
        """The first replicate of every arm, the base first."""
        for params in self.configurations():
            yield self.arm_trial(params[ARM])

    def configurations(self) -> Iterator[dict[str, Any]]:
        """Every arm, the base first."""
        for label in sorted(self.arms, key=lambda label: label != self.study.base):
            yield {ARM: label}

    def trials_with_inputs(self) -> Iterator[TrialSpec]:
        """All: an arm may have a teacher of its own."""
        return self.trial_of_each()

    def chosen_teacher(self, params: Mapping[str, Any]) -> Any:
        """The teacher of the arm, as the file says it."""
        arm = self.arms.get(params.get(ARM, self.study.base))
        own = {**arm.settings, **arm.tuned} if arm is not None else {}
        return own.get(TEACHER, super().chosen_teacher(params))

    def every_teacher(self) -> Iterator[Any]:
        """The teachers of all arms, the base's first; of an arm without a setting `teacher` the base's."""
        yield self.chosen_teacher({})
        yield from (self.chosen_teacher({ARM: label}) for label in self.arms)

    def cost(self, label: str) -> tuple[int, float | None]:
        """Epochs of an arm's trial, and their floating-point operations where those were counted."""
        epochs = self.arms[label].epochs or self.epochs
        return epochs, self.arms[label].flops(epochs)

    def with_arms(self, changes: Mapping[str, Mapping[str, Any]]) -> Self:
        """The study with these fields (label -> field -> value) of its arms changed."""
        arms = {label: arm.model_copy(update=changes.get(label)) for label, arm in self.arms.items()}
        return self.model_copy(update={"arms": arms})

    def written(self) -> Self:
        """As the study's file says it, without what was found out before it started."""
        arms = {label: arm.written() for label, arm in self.arms.items()}
        spec = self.model_copy(update={"arms": arms, "study": self.study.written()})
        if self.study.budget == "epochs":
            return spec
        return spec.with_arms({label: {"epochs": None} for label in self.arms})
