"""What searches and ablation studies have in common: the sections of their trials, and how they are run.

`SearchSpec` (`search.py`) and `StudySpec` (`study.py`) are the two kinds of sweep. Where one field is written
more than once, the narrower place wins: preset < section (`optim: {lr: …}`) < `fixed` < axis or arm.
Reading a spec needs neither torch nor Ray; `validate.py` and `ablation/guard.py` say whether it can work.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from pydantic import (
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from raykd.spec import teachers
from raykd.spec.budget_section import BudgetSpec
from raykd.spec.places import placed_under
from raykd.spec.space import Space
from raykd.spec.sweep_defaults import without
from raykd.spec.sweep_fields import SweepFields
from trainables.core.errors import UserError
from trainables.evaluation.probes import find_probe
from trainables.spec.trial import TrialSpec, digest
from trainables.training.flat_names import SECTIONS, TEACHER, FlatField, find_field, put
from trainables.training.resolve import resolve


class SweepSpec(SweepFields):
    """What a search and a study share: what is trained, how much, and with which means."""

    kind: ClassVar[str]  # in words
    starts_by: ClassVar[str]  # the verb of the command line that starts such a sweep
    resumes_by: ClassVar[str]  # and the one that goes on with it
    # A spec in a ledger has the keys of both kinds, as when they were one model; these are the other kind's.
    of_other_kind: ClassVar[dict[str, Any]]

    @model_validator(mode="before")
    @classmethod
    def _without_other_kind(cls, raw: Any) -> Any:
        return without(cls.of_other_kind, raw) if isinstance(raw, Mapping) else raw

    @model_serializer(mode="wrap")
    def _recorded(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped = {**dump(self), **self.of_other_kind}
        # Unused, as before these were fields.
        unused = ["plugins", "teachers", "track", "warm_start", "proxy", "evaluate", "latency", "limits"]
        unused += ["objective", "budget"]
        return without(unused, dumped)

    # --- what each kind of sweep says for itself ----------------------------------------------------------

    @property
    @abstractmethod
    def space(self) -> Space:
        """The axes in order, with their conditions."""

    @property
    def samples_per_extension(self) -> int:
        """How many samples `--extend 1` adds."""
        return 1

    @property
    def replicates(self) -> tuple[int, ...]:
        """The seeds that a configuration is trained with."""
        return self.seeds

    @abstractmethod
    def raw_trial(self, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The mapping that `resolve` makes the trial of configuration `params` from."""

    @abstractmethod
    def trial_of_each(self) -> Iterator[TrialSpec]:
        """A trial of each method, or of each arm; the first one stands for the sweep."""

    @abstractmethod
    def configurations(self) -> Iterator[dict[str, Any]]:
        """A configuration of each method and each teacher, or of each arm."""

    def trials_with_inputs(self) -> Iterable[TrialSpec]:
        """Those of `trial_of_each` that may need other data or another teacher than the first one."""
        return ()

    def written(self) -> Self:
        """As the user's file says it, without what was found out before the sweep started."""
        return self

    @property
    def needs_latency(self) -> bool:
        """Whether a trial may start only once the latency of its student is known."""
        return False

    @property
    def spends(self) -> BudgetSpec | None:
        """What it may spend in all; None: no limit."""
        return None

    # --- its trials ---------------------------------------------------------------------------------------

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of its methods, as written."""
        return (self.method,) if isinstance(self.method, str) else self.method

    @property
    def trials(self) -> int:
        """How many trials the sweep has: every configuration once per seed."""
        return self.samples * len(self.seeds)

    @property
    def audited_share(self) -> float:
        """The share of the stopped trials that run on for the audit of the proxy."""
        return self.proxy.audit if self.proxy is not None else 0.0

    @cached_property
    def fixed_fields(self) -> dict[str, FlatField]:
        """The fields under `fixed`; those of one method after those of all, so that they win."""
        fields = {name: find_field(name, self.methods, f"fixed.{name}") for name in self.fixed}
        return dict(sorted(fields.items(), key=lambda item: item[0] != item[1].flat))

    def trial(self, params: Mapping[str, Any], seed: int) -> TrialSpec:
        """The trial of configuration `params` (values of the axes that take part) with this seed.

        Axes of a search that are left out stay at what the file says without them. Raises `UserError`.
        """
        try:
            return resolve(self.raw_trial(params, seed))
        except UserError as error:
            raise self.placed(error, params) from None

    def _raw_trial(
        self,
        method: str,
        preset: str | None,
        epochs: int,
        values: Iterable[tuple[tuple[str, ...], Any]],
        seed: int,
    ) -> dict[str, Any]:
        """The mapping of a trial; `values` (path -> value) are laid over the sections and `fixed`."""
        raw: dict[str, Any] = {section: value for section in SECTIONS if (value := getattr(self, section))}
        raw |= {"method": method, "epochs": epochs}
        laid = [
            (field.path, self.fixed[name])
            for name, field in self.fixed_fields.items()
            if method in field.methods
        ]
        laid += values
        whole = [value for path, value in laid if path == (TEACHER,)]
        if chosen := (whole or [raw.get(TEACHER)])[-1]:
            if whole:
                teachers.refuse_unnamed(chosen, self.teachers, TEACHER)
            raw[TEACHER] = teachers.by_name(chosen, self.teachers, TEACHER)
        if preset := preset or (self.preset.get(method) if isinstance(self.preset, dict) else self.preset):
            raw["preset"] = preset
        for path, value in laid:
            if path == (TEACHER,):
                continue
            if path[0] == TEACHER and isinstance(raw.get(TEACHER), list):
                teachers.refuse_part(path)
            raw = put(raw, path, value)
        if self.teacher_pixels != "trained" and raw.get(TEACHER):
            raw[TEACHER] = teachers.with_older_pixels(raw[TEACHER], self.teacher_pixels == "imagenet")
        return {**raw, "seed": seed}

    def teacher_rows(self) -> dict[str, dict[str, Any]]:
        """Name of the row of each teacher among the references -> the teacher, as the file says it."""
        return teachers.rows(filter(None, self.every_teacher()), self.teachers)

    def trials_of_rows(self) -> dict[str, TrialSpec]:
        """Name of the row of each teacher -> a trial with this teacher alone. Raises `UserError`."""
        names, found = self.teacher_rows(), dict[str, TrialSpec]()
        for params in self.configurations():
            given = teachers.parts(self.chosen_teacher(params) or [], self.teachers, TEACHER)
            trials = self.trial(params, self.seeds[0]).of_each_teacher  # none where the method needs none
            for (_, raw), trial in zip(given, trials, strict=False):
                raw.pop("weight", None)
                row = next(name for name, teacher in names.items() if teacher == raw)
                found.setdefault(row, trial)
        return {name: found[name] for name in names if name in found}

    def baseline_trial(self) -> TrialSpec:
        """The no-teacher training of the comparison: the sweep's data, student, probe, views and optimizer.

        What its own section says comes before these. Without epochs of its own it has those of the sweep.
        Raises `UserError` where the sweep has no baseline, or one that cannot be trained.
        """
        if self.baseline is None:
            raise UserError("baseline", "is missing", expected="`{method: moco}`")
        shared = ("student", "data", "probe", "views", "optim")
        raw: dict[str, Any] = {section: value for section in shared if (value := getattr(self, section))}
        for name, field in self.fixed_fields.items():
            if field.name == field.flat and field.path[0] in shared:
                raw = put(raw, field.path, self.fixed[name])
        own = self.baseline.model_dump(exclude_none=True, exclude={"cap"})
        for section in ("views", "optim"):
            own[section] = {**raw.get(section, {}), **own[section]}
        try:
            return resolve({**raw, "epochs": self.epochs, **own, "seed": self.seeds[0]}, "baseline")
        except UserError as error:
            section = error.field.removeprefix("baseline.")
            shown = section if section.split(".")[0] in ("student", "data") else error.field
            raise error.at(shown) from None

    def wanted_references(self) -> list[str]:
        """The rows of the comparison that this sweep can have.

        None if the score compares trials of one method alone: by RankMe raw pixels would be the best.
        """
        score = find_probe(self.probe.get("score"))
        if score is not None and not score.comparable:
            return []
        rows = {"teacher": list(self.teacher_rows()), "baseline": ["baseline"] if self.baseline else []}
        return [row for name in self.references for row in rows.get(name, [name])]

    def placed(self, error: UserError, params: Mapping[str, Any]) -> UserError:
        """`error` about a trial, its path where the user wrote the field: an axis, `fixed`, or a section."""
        found = placed_under("fixed", {name: self.fixed_fields[name] for name in self.fixed}, error)
        return found or teachers.placed(error, self.chosen_teacher(params), self.teachers)

    def chosen_teacher(self, params: Mapping[str, Any]) -> Any:
        """The teacher of configuration `params`, as the file says it: a name, a mapping or several."""
        return self.fixed.get(TEACHER, self.teacher)

    def every_teacher(self) -> Iterable[Any]:
        """The teachers of all trials, likewise."""
        return [self.chosen_teacher({})]

    def hash(self) -> str:
        """8 hex digits of everything written in the spec."""
        return digest(self.model_dump(mode="json"))
