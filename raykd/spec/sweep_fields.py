"""The fields that searches and ablation studies share, and what each of them may hold.

`SweepSpec` (`sweep.py`) says what they mean together.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator
from typing_extensions import Self

from raykd.spec import teachers
from raykd.spec.evaluate_section import Evaluate
from raykd.spec.places import refuse_repeats
from raykd.spec.samplers import TPE, AnySampler
from raykd.spec.schedulers import AnyScheduler, parse_scheduler
from raykd.spec.sections import (
    BaselineSpec,
    ProxySpec,
    Section,
    TargetsSpec,
    WorkersSpec,
    parse_duration,
)
from raykd.spec.size_sections import LatencySpec
from raykd.spec.tracking import Track, TrackSpec
from trainables.core import plugins
from trainables.core.errors import UserError
from trainables.spec.trial import Seed, Spec

MOST_TRIALS = 1_000_000  # of a sweep; more is a slip of the pen, and `--extend` has no way back
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


Reference = Literal["raw_pixels", "untrained", "teacher", "baseline"]


class SweepFields(Spec):
    """What the file of a search and that of a study have in common."""

    name: str = Field(description="the sweep's folder")
    plugins: tuple[str, ...] = Field((), description="modules of your own with methods, sources, probes")
    method: str | tuple[str, ...] = Field(description="a method, or several to search across")
    preset: str | dict[str, str] | None = Field(None, description="of the method, or `{method: preset}`")
    student: Section = Field({}, description="the network to train")
    teacher: Any = Field(None, description="who teaches: a mapping, a name under `teachers`, or several")
    teachers: dict[str, Any] = Field({}, description="name -> teacher, for `teacher` and its axis")
    data: Section = Field({}, description="which images")
    views: Section = Field({}, description="how they are augmented")
    optim: Section = Field({}, description="optimizer, schedule, batch")
    probe: Section = Field({}, description="how features are evaluated")
    epochs: Annotated[int, Field(ge=1)] = Field(description="budget of a trial that is not stopped")
    fixed: Section = Field({}, description="flat name -> value, for what does not vary")
    samples: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = Field(
        description="configurations to try; a grid has its own number"
    )
    seeds: tuple[Seed, ...] = Field((0,), description="each configuration, once per seed")
    sampler: AnySampler = Field(TPE(), description="what proposes configurations")
    scheduler: AnyScheduler = parse_scheduler({})
    proxy: ProxySpec | None = Field(None, description="how the score that stops trials is audited")
    workers: WorkersSpec = WorkersSpec()
    lanes: Annotated[int, Field(ge=1)] | None = Field(None, description="at most so many trials at once")
    targets: TargetsSpec = TargetsSpec()
    latency: LatencySpec | None = Field(
        None, description="measure the time of a forward pass of each student, such as `{device: cpu}`"
    )
    time_limit: Annotated[float, Field(gt=0), BeforeValidator(parse_duration)] | None = Field(
        None, description="seconds, or such as 2h30m"
    )
    references: tuple[Reference, ...] = Field(
        get_args(Reference), description="what the results stand beside"
    )
    baseline: BaselineSpec | None = Field(None, description="the no-teacher row of the comparison")
    attempts: Annotated[int, Field(ge=1)] = Field(
        3, description="how often a trial is tried before it has failed"
    )
    failures_in_a_row: Annotated[int, Field(ge=1)] | None = Field(
        5,
        description="after so many trials in a row that fail for one reason the sweep stops; three times as "
        "many once a trial has ended well; null: never",
    )
    track: Track = Field(TrackSpec(), description="experiment trackers: wandb, mlflow")
    evaluate: Evaluate = Field(None, description="suites for the best students, after the trials")
    keep_checkpoints: Literal["unfinished", "all"] = Field(
        "all",
        description="of which trials checkpoints stay. unfinished: a trial that has ended keeps its best "
        "student alone, the default; all: of every trial, as in sweeps before this was a field",
    )
    teacher_pixels: Literal["trained", "own", "imagenet"] = Field(
        "imagenet",
        description="what a teacher from a file sees where its section says nothing. trained: what it was "
        "trained on, as in a new sweep; own: its mean and deviation, the rest as the student; imagenet: "
        "ImageNet's for all, what sweeps had before this was a field",
    )

    @field_validator("name")
    @classmethod
    def _file_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            expected = "letters, digits, `.`, `_`, `-`, at most 100, the first no dot or dash"
            raise UserError("", "cannot be the name of a folder", value=name, expected=expected)
        return name

    @field_validator("plugins", mode="before")
    @classmethod
    def _plugins(cls, given: Any) -> tuple[str, ...]:
        return plugins.named(given, "")

    @field_validator("teachers")
    @classmethod
    def _named(cls, given: dict[str, Any]) -> dict[str, Any]:
        return teachers.check_named(given)

    @model_validator(mode="after")
    def _teacher(self) -> Self:
        try:
            written = teachers.as_written(self.teacher, self.teachers)
            if written is not None:
                teachers.by_name(written, self.teachers, "")
        except UserError as error:
            raise error if error.field.startswith("teachers") else error.under("teacher") from None
        object.__setattr__(self, "teacher", written)
        return self

    @field_validator("method")
    @classmethod
    def _methods(cls, method: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not isinstance(method, str):
            if not method:
                raise UserError("", "no method to search", expected="at least one")
            refuse_repeats(method)
            return method[0] if len(method) == 1 else method
        return method

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise UserError("", "no seed", expected="at least one")
        refuse_repeats(seeds)
        return seeds

    @field_validator("proxy")
    @classmethod
    def _audits(cls, proxy: ProxySpec | None) -> ProxySpec | None:
        return proxy if proxy is not None and proxy.audit else None  # a sweep without an audit is as it was

    @model_validator(mode="after")
    def _something_to_audit(self) -> Self:
        if self.proxy is not None and self.scheduler.first_stop is None:
            problem = f"is for trials that are stopped, and `scheduler: {self.scheduler.name}` stops none"
            expected = (
                "a `scheduler` that stops trials, such as asha; without one every trial is seen to its end"
            )
            raise UserError("proxy.audit", problem, value=self.proxy.audit, expected=expected)
        return self

    @model_validator(mode="after")
    def _grace_in_epochs(self) -> Self:
        grace = self.scheduler.first_stop
        if grace is not None and grace > self.epochs:
            problem = f"no trial has that many epochs: they end at {self.epochs}"
            field = f"scheduler.{self.scheduler.stop_field}"
            raise UserError(field, problem, value=grace, expected=f"at most {self.epochs}")
        return self
