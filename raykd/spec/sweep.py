"""What the user writes about a sweep, and the trial that each of its configurations is.

    spec = load_sweep("search_spaces/quickstart.yaml", ["samples=4", "axes.lr=[1e-3, 1e-2]"])
    trial = spec.trial({"lr": 1e-3}, seed=0)

Of one field written more than once the narrower wins: preset < section (`optim: {lr: …}`) < `fixed` < axes.
Reading a spec needs neither torch nor Ray; `validate.py` says whether it can work.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from raykd.spec.arms import ARM, ArmSpec, StudyRules
from raykd.spec.axis import AnyAxis
from raykd.spec.document import find_document, named_by_file, read_mapping
from raykd.spec.overrides import lay_over
from raykd.spec.paths import absolute
from raykd.spec.samplers import TPE, AnySampler, Grid
from raykd.spec.sections import SHORTHAND, BaselineSpec, SchedulerSpec, Section, WorkersSpec, parse_duration
from trainables.core.errors import UserError
from trainables.spec.normalisation import IMAGENET
from trainables.spec.parse import as_mapping, build, join, spelled_out
from trainables.spec.trial import RANKME, Seed, Spec, TrialSpec, digest
from trainables.training.resolve import SECTIONS, FlatField, find_field, put, resolve

if TYPE_CHECKING:
    from raykd.spec.space import Space

# In a checkout this is a link to the folder in its root.
SPACES = (Path(__file__).parents[1] / "search_spaces").resolve()
MOST_TRIALS = 1_000_000  # of a sweep; more is a slip of the pen, and `--extend` has no way back
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


Reference = Literal["raw_pixels", "untrained", "teacher", "baseline"]


class SweepSpec(Spec):
    """A search: what is trained, what varies, how much, and with which means."""

    name: str = Field(description="the sweep's folder")
    method: str | tuple[str, ...] = Field(description="a method, or several to search across")
    preset: str | dict[str, str] | None = Field(None, description="of the method, or `{method: preset}`")
    student: Section = Field({}, description="the network to train")
    teacher: dict[str, Any] | None = Field(None, description="who teaches")
    data: Section = Field({}, description="which images")
    views: Section = Field({}, description="how they are augmented")
    optim: Section = Field({}, description="optimizer, schedule, batch")
    probe: Section = Field({}, description="how features are judged")
    epochs: Annotated[int, Field(ge=1)] = Field(description="budget of a trial that is not stopped")
    fixed: Section = Field({}, description="flat name -> value, for what does not vary")
    axes: dict[str, AnyAxis] = Field({}, description="flat name -> what varies")
    points: tuple[dict[str, Any], ...] = Field((), description="configurations to try first")
    samples: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = Field(
        description="configurations to try; a grid has its own number"
    )
    seeds: tuple[Seed, ...] = Field((0,), description="each configuration, once per seed")
    sampler: AnySampler = Field(TPE(), description="what proposes configurations")
    scheduler: SchedulerSpec = SchedulerSpec()
    workers: WorkersSpec = WorkersSpec()
    lanes: Annotated[int, Field(ge=1)] | None = Field(None, description="at most so many trials at once")
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
    teacher_pixels: Literal["own", "imagenet"] = Field(
        "imagenet",
        description="of a teacher from a file that names no `mean` and `std`. own: those it was trained on, "
        "what a new sweep has; imagenet: ImageNet's for all, what sweeps had before this was a field",
    )
    arms: dict[str, ArmSpec] = Field({}, description="of a study; `raykd ablate` writes them")
    study: StudyRules | None = Field(None, description="of a study; `raykd ablate` writes it")

    @field_validator("name")
    @classmethod
    def _file_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            expected = "letters, digits, `.`, `_`, `-`, at most 100, the first no dot or dash"
            raise UserError("", "cannot be the name of a folder", value=name, expected=expected)
        return name

    @field_validator("axes", mode="before")
    @classmethod
    def _without_empty(cls, raw: Any) -> dict[str, Any]:
        # `--set axes.gamma=` takes an axis out.
        return {name: axis for name, axis in as_mapping(raw, "").items() if axis is not None}

    @field_validator("method")
    @classmethod
    def _methods(cls, method: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not isinstance(method, str):
            if not method:
                raise UserError("", "no method to search", expected="at least one")
            _refuse_repeats(method)
            return method[0] if len(method) == 1 else method
        return method

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise UserError("", "no seed", expected="at least one")
        _refuse_repeats(seeds)
        return seeds

    @model_validator(mode="after")
    def _consistent(self) -> SweepSpec:
        for name in self.fixed:
            if name in self.axes:
                raise UserError(f"fixed.{name}", "is an axis too", expected=f"either this or `axes.{name}`")
        if self.scheduler.name != "none" and self.scheduler.grace > self.epochs:
            problem = f"no trial has that many epochs: they end at {self.epochs}"
            raise UserError(
                "scheduler.grace", problem, value=self.scheduler.grace, expected=f"at most {self.epochs}"
            )
        for at, point in enumerate(self.points):
            _check_point(point, at, self)
        return self

    # --- its trials ---------------------------------------------------------------------------------------

    @property
    def methods(self) -> tuple[str, ...]:
        return (self.method,) if isinstance(self.method, str) else self.method

    @property
    def trials(self) -> int:
        """How many trials the sweep has: every configuration once per seed."""
        return self.samples * len(self.seeds)

    @cached_property
    def space(self) -> Space:
        """The axes in order, with their conditions."""
        from raykd.spec.space import arm_space, build_space

        return arm_space(tuple(self.arms)) if self.arms else build_space(self.methods, self.axes)

    @cached_property
    def fixed_fields(self) -> dict[str, FlatField]:
        """The fields under `fixed`; those of one method after those of all, so that they win."""
        fields = {name: find_field(name, self.methods, f"fixed.{name}") for name in self.fixed}
        return dict(sorted(fields.items(), key=lambda item: item[0] != item[1].flat))

    def raw_trial(self, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The mapping that `resolve` makes the trial of configuration `params` from."""
        arm = self.arms[params[ARM]] if self.arms else ArmSpec()  # of a study
        method = arm.method or params.get("method", self.methods[0])
        raw = {section: value for section in SECTIONS if (value := getattr(self, section))}
        raw |= {"method": method, "epochs": arm.epochs or self.epochs}
        preset = self.preset.get(method) if isinstance(self.preset, dict) else self.preset
        if arm.preset or preset:
            raw["preset"] = arm.preset or preset
        for name, field in self.fixed_fields.items():
            if method in field.methods:
                raw = put(raw, field.path, self.fixed[name])
        for name, value in {**arm.settings, **arm.tuned}.items():
            raw = put(raw, find_field(name, [method], f"arms.{params.get(ARM)}.{name}").path, value)
        for name, value in params.items():
            if name in self.space.fields:
                raw = put(raw, self.space.fields[name].path, value)
        teacher = raw.get("teacher") or {}
        of_file = teacher.get("checkpoint") is not None
        if self.teacher_pixels == "imagenet" and of_file and not {"mean", "std"} & teacher.keys():
            raw["teacher"] = {**teacher, **IMAGENET._asdict()}
        return {**raw, "seed": seed}

    def trial(self, params: Mapping[str, Any], seed: int) -> TrialSpec:
        """The trial of configuration `params` (values of the axes that take part) with this seed.

        Axes that are left out stay at what the file says without them. Raises `UserError`.
        """
        try:
            return resolve(self.raw_trial(params, seed))
        except UserError as error:
            raise self.placed(error, params) from None

    def cost(self, arm: str) -> tuple[int, float | None]:
        """Epochs of an arm of a study, and their floating-point operations where those were counted."""
        epochs = self.arms[arm].epochs or self.epochs
        return epochs, self.arms[arm].flops(epochs)

    def baseline_trial(self) -> TrialSpec:
        """The no-teacher training of the comparison: the sweep's data, student, probe, views and optimizer.

        What its own section says comes before these. Without epochs of its own it has those of the sweep.
        """
        if self.baseline is None:
            raise UserError("baseline", "is missing", expected="`{method: moco}`")
        shared = ("student", "data", "probe", "views", "optim")
        raw: dict[str, Any] = {section: value for section in shared if (value := getattr(self, section))}
        for name, field in self.fixed_fields.items():
            if field.name == field.flat and field.path[0] in shared:
                raw = put(raw, field.path, self.fixed[name])
        own = self.baseline.model_dump(exclude_none=True)
        for section in ("views", "optim"):
            own[section] = {**raw.get(section, {}), **own[section]}
        try:
            return resolve({**raw, "epochs": self.epochs, **own, "seed": self.seeds[0]}, "baseline")
        except UserError as error:
            section = error.field.removeprefix("baseline.")
            shown = section if section.split(".")[0] in ("student", "data") else error.field
            raise UserError(shown, str(error).removeprefix(f"{error.field}: ")) from None

    def wanted_references(self) -> list[str]:
        """The rows of the comparison that this sweep can have.

        None by rankme, which is for trials of one method: raw pixels have the highest.
        """
        if self.probe.get("score") == RANKME:
            return []
        lacking = {"teacher": self.teacher, "baseline": self.baseline}
        return [name for name in self.references if lacking.get(name, True) is not None]

    def placed(self, error: UserError, params: Mapping[str, Any]) -> UserError:
        """`error` about a trial, its path where the user wrote the field: an axis, `fixed`, or a section."""
        flat = re.sub(r"^(config|optim)\.", "", error.field)
        for where, names in (("axes", params), ("fixed", self.fixed)):
            for name in names:
                field = self.space.fields.get(name) if where == "axes" else self.fixed_fields[name]
                if field is not None and (flat == field.flat or flat.startswith(field.flat + ".")):
                    return UserError(f"{where}.{name}", str(error).removeprefix(f"{error.field}: "))
        return error

    def written(self) -> SweepSpec:
        """As a study's file says it, without what was found out before it started."""
        arms = {label: arm.written() for label, arm in self.arms.items()}
        if self.study is not None and self.study.budget != "epochs":
            arms = {label: arm.model_copy(update={"epochs": None}) for label, arm in arms.items()}
        return self.model_copy(update={"arms": arms, "study": self.study and self.study.written()})

    def hash(self) -> str:
        """8 hex digits of everything written in the spec."""
        return digest(self.model_dump(mode="json"))


def difference(old: SweepSpec, new: SweepSpec) -> list[str]:
    """What changed, a line a field: `axes.gamma.log: [0.003, 3] -> [0.003, 1]`."""
    before, after = (dict(_leaves("", spec.model_dump(mode="json"))) for spec in (old, new))
    lines = []
    for path in sorted(before.keys() | after.keys()):
        was, now = (repr(side[path]) if path in side else "nothing" for side in (before, after))
        if was != now:
            lines.append(f"{path}: {was} -> {now}")
    return lines


def load_sweep(
    source: str | Path,
    overrides: list[str] | tuple[str, ...] = (),
    folder: Path | None = None,
    settings: bool = True,
) -> SweepSpec:
    """The sweep in a file, or the search space of that name, with overrides `path=value` laid over it.

    `folder` and `settings` are those of `absolute`.
    """
    path = find_space(source)
    raw = read_mapping(path)
    if "design" in raw:
        raise UserError(
            "SPEC",
            "is an ablation study",
            value=str(source),
            expected=f"`{shlex.join(['raykd', 'ablate', str(source)])}`",
        )
    for override in overrides:
        raw = lay_over(raw, override)
    return build_sweep({**named_by_file(path), **absolute(raw, folder, settings)})


def build_sweep(raw: Mapping[str, Any]) -> SweepSpec:
    """The sweep that `raw` describes. A grid that names no `samples` has as many as its points."""
    raw = {"teacher_pixels": "own", **spelled_out(as_mapping(raw, ""), SHORTHAND)}
    for key in raw:
        if key not in SweepSpec.model_fields:
            homes = [f"`{s}.{key}`" for s, model in SECTIONS.items() if key in model.model_fields]
            expected = " or ".join([*homes, "`fixed` or `axes` for a setting of the method"])
            raise UserError(
                str(key), "no such field", value=key, expected=expected, choices=SweepSpec.model_fields
            )
    sampler = raw.get("sampler")
    grid = isinstance(sampler, Mapping) and sampler.get("name") == "grid"
    if not grid or raw.get("samples") is not None:
        return build(SweepSpec, raw)
    spec = build(SweepSpec, {**raw, "samples": 1})
    levels = spec.sampler.levels if isinstance(spec.sampler, Grid) else 1
    return build(SweepSpec, {**raw, "samples": sum(1 for _ in spec.space.grid(levels))})


def find_space(source: str | Path) -> Path:
    """The file that `source` names: a path, `-`, or the name of a search space that comes with raykd."""
    return find_document(source, spaces(), "SPEC", "search space")


def spaces() -> dict[str, Path]:
    """Every search space that comes with raykd, by name."""
    return {file.stem: file for file in sorted(SPACES.glob("*.yaml"))}


def studies() -> dict[str, Path]:
    """Every ablation study that comes with raykd, by name (`rrkd_anchors`)."""
    return {file.stem: file for file in sorted((SPACES / "ablations").glob("*.yaml"))}


def about_space(path: Path) -> str:
    """The first line of the comment that a search space opens with."""
    with path.open(encoding="utf-8") as lines:
        return next(lines, "").lstrip("# ").strip()


def _check_point(point: Mapping[str, Any], at: int, spec: SweepSpec) -> None:
    for name, value in point.items():
        where = join("points", str(at), name)
        if name == "method" and len(spec.methods) > 1:
            if value not in spec.methods:
                raise UserError(where, "method is not in this sweep", value=value, choices=spec.methods)
        elif name not in spec.axes:
            raise UserError(where, "no such axis", value=name, choices=spec.axes)
        elif not spec.axes[name].contains(value):
            raise UserError(where, "lies outside the axis", value=value, expected=spec.axes[name].describe())


def _refuse_repeats(values: tuple[Any, ...]) -> None:
    for at, value in enumerate(values):
        if value in values[:at]:
            raise UserError(str(at), "stands there twice", value=value)


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(join(prefix, key), inner)
    else:
        yield prefix, value
