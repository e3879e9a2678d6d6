"""A search space: what the user writes about a search, and the trial that each of its configurations is.

spec = load_sweep("search_spaces/quickstart.yaml", ["samples=4", "axes.lr=[1e-3, 1e-2]"])
trial = spec.trial({"lr": 1e-3}, seed=0)
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from raykd.spec import teachers
from raykd.spec.axis_kinds import Pick
from raykd.spec.axis_parse import AnyAxis
from raykd.spec.budget_section import BudgetSpec
from raykd.spec.data_defaults import with_kept_images
from raykd.spec.description import Description, without_description
from raykd.spec.document import find_document, named_by_file, read_mapping
from raykd.spec.overrides import lay_over
from raykd.spec.paths import absolute
from raykd.spec.places import placed_under, refuse_repeats
from raykd.spec.plugins import bring_plugins
from raykd.spec.preset_points import preset_points
from raykd.spec.samplers import Grid
from raykd.spec.sections import SHORTHAND
from raykd.spec.shipped import spaces
from raykd.spec.size_sections import LatencySpec, LimitsSpec
from raykd.spec.space import METHOD, Space, build_space
from raykd.spec.sweep import SweepSpec
from raykd.spec.sweep_defaults import as_new, without
from trainables.core.errors import UserError
from trainables.core.other_words import field_for
from trainables.spec.parse import as_mapping, build, join, spelled_out
from trainables.spec.trial import TrialSpec
from trainables.training.flat_names import SECTIONS, TEACHER

Objective = Literal["score", "params", "macs", "latency"]


class SearchSpec(SweepSpec):
    """A search: which settings vary, and which values are tried first."""

    kind, starts_by, resumes_by = "search", "run", "resume"
    of_other_kind: ClassVar[dict[str, Any]] = {"arms": {}, "study": None}

    axes: dict[str, AnyAxis] = Field({}, description="flat name -> what varies")
    points: tuple[dict[str, Any], ...] = Field((), description="configurations to try first")
    start: Literal["presets", "sampler"] = Field(
        "sampler",
        description="what is tried after `points`. presets: each method's own settings, what a new sweep "
        "does unless its sampler is random or a grid; sampler: what it proposes, as in sweeps before this "
        "was a field",
    )
    objective: tuple[Objective, ...] = Field(
        (), description="what is searched for: score, or score with some of params, macs, latency"
    )
    limits: LimitsSpec | None = Field(
        None, description="of a student: `{params: 5M, macs: 300M, latency: 20ms}`"
    )
    budget: BudgetSpec | None = Field(
        None, description="what it may spend in all: `{gpu_hours: 40}`, or `{cpu_hours: 100}`"
    )
    warm_start: tuple[str, ...] = Field(
        (), description="earlier sweeps, by name or folder, whose trials the sampler is told"
    )

    @field_validator("axes", mode="before")
    @classmethod
    def _without_empty(cls, raw: Any) -> dict[str, Any]:
        # `--set axes.gamma=` takes an axis out.
        return {name: axis for name, axis in as_mapping(raw, "").items() if axis is not None}

    @field_validator("warm_start", mode="before")
    @classmethod
    def _one_or_several(cls, raw: Any) -> Any:
        return (raw,) if isinstance(raw, str) else raw if raw is not None else ()

    @field_validator("warm_start")
    @classmethod
    def _sources(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for at, source in enumerate(sources):
            if not source.strip("/"):
                raise UserError(str(at), "names no sweep", value=source, expected="a sweep's name or folder")
        refuse_repeats(sources)
        return sources

    @field_validator("budget")
    @classmethod
    def _some_hours(cls, budget: BudgetSpec | None) -> BudgetSpec | None:
        return budget if budget is not None and budget.set else None

    @field_validator("limits")
    @classmethod
    def _some_limit(cls, limits: LimitsSpec | None) -> LimitsSpec | None:
        return limits if limits is not None and limits.set else None

    @field_validator("objective", mode="before")
    @classmethod
    def _one_word(cls, raw: Any) -> Any:
        return (raw,) if isinstance(raw, str) else raw if raw is not None else ()

    @field_validator("objective")
    @classmethod
    def _with_score(cls, objective: tuple[Objective, ...]) -> tuple[Objective, ...]:
        refuse_repeats(objective)
        if objective and "score" not in objective:
            problem = "the smallest student of all needs no search"
            raise UserError("", problem, value=list(objective), expected="`score` among them")
        sizes = tuple(name for name in objective if name != "score")
        return ("score", *sizes) if sizes else ()

    @model_validator(mode="after")
    def _weighed(self) -> Self:
        if self.objective and not self.sampler.weighs:
            problem = f"{self.sampler.name} takes one objective"
            raise UserError("sampler.name", problem, value=self.sampler.name, expected="tpe or nsgaii")
        if self.warm_start and "latency" in self.objective:
            problem = "does not go with `latency` among the objectives: other sweeps have other latencies"
            raise UserError("warm_start", problem, value=list(self.warm_start), expected="params or macs")
        return self

    @model_validator(mode="after")
    def _latency(self) -> Self:
        if self.latency is None and self.needs_latency:
            object.__setattr__(self, "latency", LatencySpec())
        return self

    @model_validator(mode="after")
    def _axes_and_points(self) -> Self:
        for name in self.fixed:
            if name in self.axes:
                raise UserError(f"fixed.{name}", "is an axis too", expected=f"either this or `axes.{name}`")
        if (axis := self.axes.get(TEACHER)) is not None:
            levels = axis.pick if isinstance(axis, Pick) else (axis.describe(),)
            for level in levels:
                teachers.refuse_unnamed(str(level), self.teachers, f"axes.{TEACHER}")
        for at, point in enumerate(self.points):
            _check_point(point, at, self)
        if self.warm_start and isinstance(self.sampler, Grid):
            problem = "does not go with a grid, which tries every configuration whatever was tried before"
            raise UserError(
                "warm_start", problem, value=list(self.warm_start), expected="a sampler that learns"
            )
        return self

    @property
    def needs_latency(self) -> bool:
        """Whether a trial may start only once the latency of its student is known."""
        limited = self.limits is not None and self.limits.latency is not None
        return limited or "latency" in self.objective

    @property
    def spends(self) -> BudgetSpec | None:
        """What it may spend in all; None: no limit."""
        return self.budget

    @cached_property
    def space(self) -> Space:
        """The axes in order, with their conditions."""
        return build_space(self.methods, self.axes)

    @cached_property
    def first_points(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """(origin, configuration) of what is tried before the sampler proposes; it fills in missing axes."""
        points = [("point", self.space.with_parents(point)) for point in self.points]
        if self.start == "presets" and self.sampler.learns:
            presets = preset_points(
                self.methods, self.space, lambda params: self.trial(params, self.seeds[0])
            )
            own = [("preset", point) for point in presets]
            points += [(origin, point) for origin, point in own if ("point", point) not in points]
        return tuple(points)

    def raw_trial(self, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The mapping that `resolve` makes the trial of configuration `params` from."""
        fields = self.space.fields if params else {}  # a mistake in the axes is the business of `space`
        values = [(fields[name].path, value) for name, value in params.items() if name in fields]
        return self._raw_trial(params.get(METHOD, self.methods[0]), None, self.epochs, values, seed)

    def trial_of_each(self) -> Iterator[TrialSpec]:
        """A trial of each method with its axes at their first levels, in the order of the methods."""
        for params in self._of_methods():
            yield self.trial(params, self.seeds[0])

    def configurations(self) -> Iterator[dict[str, Any]]:
        """A configuration of each method, and of each teacher of the axis over teachers."""
        yield from self._of_methods()
        for name in self.every_teacher() if TEACHER in self.axes else ():
            yield self.space.around({TEACHER: name})

    def trials_with_inputs(self) -> Iterator[TrialSpec]:
        """A trial of each of these, if there is an axis over teachers."""
        for params in self.configurations() if TEACHER in self.axes else ():
            yield self.trial(params, self.seeds[0])

    def _of_methods(self) -> Iterator[dict[str, Any]]:
        several = len(self.methods) > 1
        for method in self.methods:
            yield self.space.around({METHOD: method} if several else {})

    def chosen_teacher(self, params: Mapping[str, Any]) -> Any:
        """The teacher of configuration `params`, as the file says it."""
        return params.get(TEACHER, super().chosen_teacher(params))

    def every_teacher(self) -> Iterable[Any]:
        """The teachers of all trials, likewise."""
        axis = self.axes.get(TEACHER)
        return axis.levels(0) if axis is not None else super().every_teacher()

    def placed(self, error: UserError, params: Mapping[str, Any]) -> UserError:
        """`error` about a trial, its path where the user wrote the field: an axis, `fixed`, or a section."""
        fields = self.space.fields if params else {}
        of_axes = {name: fields[name] for name in params if name in fields}
        return placed_under("axes", of_axes, error) or super().placed(error, params)


def load_sweep(
    source: str | Path,
    overrides: list[str] | tuple[str, ...] = (),
    folder: Path | None = None,
    settings: bool = True,
) -> SearchSpec:
    """The search in a file, or the search space of that name, with overrides `path=value` laid over it.

    `folder` and `settings` are those of `absolute`. Raises `UserError`, also for the file of a study.
    """
    path = find_space(source)
    raw = read_mapping(path)
    if "design" in raw:
        expected = f"`{shlex.join(['raykd', 'ablate', str(source)])}`"
        raise UserError("SPEC", "is an ablation study", value=str(source), expected=expected)
    return read_sweep({**named_by_file(path), **raw}, overrides, folder, settings, path)


def read_sweep(
    raw: Mapping[str, Any],
    overrides: list[str] | tuple[str, ...] = (),
    folder: Path | None = None,
    settings: bool = True,
    path: Path | None = None,
) -> SearchSpec:
    """The search that `raw`, the content of the file `path`, describes; the rest as of `load_sweep`."""
    laid = dict(raw)
    for override in overrides:
        laid = lay_over(laid, override)
    bring_plugins(laid, path, folder)
    return build_sweep(with_kept_images(absolute(laid, folder, settings)))


def build_sweep(raw: Mapping[str, Any]) -> SearchSpec:
    """The search that `raw` describes. A grid that names no `samples` has as many as its points.

    Raises `UserError` for a key or a value that cannot be.
    """
    raw = without_description(spelled_out(as_mapping(raw, ""), SHORTHAND))
    raw = without(SearchSpec.of_other_kind, raw)
    raw = {"start": "presets", **as_new(raw)}
    for key in raw:
        if key not in SearchSpec.model_fields:
            homes = [f"`{s}.{key}`" for s, model in SECTIONS.items() if key in model.model_fields]
            if not homes and "." in (meant := field_for(str(key)) or ""):
                homes = [f"`{meant}`"]
            expected = " or ".join([*homes, "`fixed` or `axes` for a setting of the method"])
            choices = (*SearchSpec.model_fields, *Description.model_fields)
            raise UserError(str(key), "no such field", value=key, expected=expected, choices=choices)
    sampler = raw.get("sampler")
    grid = isinstance(sampler, Mapping) and sampler.get("name") == "grid"
    if not grid or raw.get("samples") is not None:
        return build(SearchSpec, raw)
    spec = build(SearchSpec, {**raw, "samples": 1})
    levels = spec.sampler.levels if isinstance(spec.sampler, Grid) else 1
    return build(SearchSpec, {**raw, "samples": sum(1 for _ in spec.space.grid(levels))})


def find_space(source: str | Path) -> Path:
    """The file that `source` names: a path, `-`, or the name of a search space that comes with raykd."""
    return find_document(source, spaces(), "SPEC", "search space")


def _check_point(point: Mapping[str, Any], at: int, spec: SearchSpec) -> None:
    """`UserError` for a point with a value that its axis cannot take, or of no axis."""
    for name, value in point.items():
        where = join("points", str(at), name)
        if name == METHOD and len(spec.methods) > 1:
            if value not in spec.methods:
                raise UserError(where, "method is not in this sweep", value=value, choices=spec.methods)
        elif name not in spec.axes:
            _ = spec.space  # an axis whose name is wrong is the first thing to say
            raise UserError(where, "no such axis", value=name, choices=spec.axes)
        elif not spec.axes[name].contains(value):
            raise UserError(where, "lies outside the axis", value=value, expected=spec.axes[name].describe())
