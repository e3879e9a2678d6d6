"""What the user writes about an ablation study, and the sweep over arms that it compiles to.

    spec = load_study("search_spaces/ablations/rrkd_anchors.yaml", ["replicates=3"], Path("sweeps"))
    spec = load_study("rrkd_anchors", ["preset=paper"], Path("sweeps"))
    spec.arms                               # label -> what the arm changes of the base
    spec.trial({"arm": label}, seed=0)      # its first replicate

Everything that can be refused without looking at data or networks is refused here; `guard.py` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raykd.ablation import designs
from raykd.ablation.published import published_of
from raykd.ablation.study_file import StudyFile
from raykd.spec.arms import ArmSpec, Budget
from raykd.spec.document import find_document, named_by_file, parse_yaml, read_mapping
from raykd.spec.overrides import lay_over
from raykd.spec.paths import absolute, absolute_flat
from raykd.spec.presets import others, with_preset
from raykd.spec.sections import SHORTHAND
from raykd.spec.space import searchable
from raykd.spec.sweep import SweepSpec, build_sweep, studies
from raykd.storage.base import Storage
from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build, join, spelled_out
from trainables.training.resolve import FlatField, find_field, flat_fields, flatten, put

FEWEST_TO_LOOK = 3  # pairs at the first look of a sequential study
_BASE = (
    *("method", "preset", "student", "teacher", "data", "views", "optim", "probe", "epochs", "fixed"),
    "teacher_pixels",
)
_ENGINE = ("workers", "lanes", "time_limit", "references", "baseline", "attempts")
_RULES = ("precision", "decide", "margin", "alpha", "score_at", "budget", "retune")
_VARIES = {  # design -> the section that says what varies
    "one_at_a_time": "factors",
    "grid": "factors",
    "factorial": "factors",
    "leave_one_out": "components",
    "compare": "arms",
}
_ELSEWHERE = {  # what arms differ in otherwise
    "method": "`design: compare`, with an arm a method: `arms: {moco: {method: moco}}`",
    "epochs": "`design: compare`, with `epochs` in an arm; or `budget`, for what is equal between arms",
    "seed": "`replicates: 5`, which gives every arm the same five seeds",
}


def load_study(
    source: str | Path,
    overrides: list[str] | tuple[str, ...],
    storage: Storage | Path,
    folder: Path | None = None,
    settings: bool = True,
) -> SweepSpec:
    """The study in a file, or the one of that name, with overrides `path=value` laid over it.

    `storage` holds the sweep that a base may name. Relative paths start from `folder`, by default this
    process's working folder. Without `settings` those of arms stay as they are: as before ledger format 1.
    """
    path = find_study(source)
    written = read_mapping(path)
    _refuse_search(written)
    raw = with_preset({**named_by_file(path), **written}, overrides)
    for override in others(overrides):
        raw = _override(raw, override)
    if isinstance(raw.get("base"), Mapping):
        raw = {**raw, "base": absolute(dict(raw["base"]), folder)}
    return build_study(raw, storage, folder, settings)


def _refuse_search(raw: Mapping[str, Any]) -> None:
    if "design" not in raw:
        expected = "`design: one_at_a_time`, say; a search space goes with `raykd run`"
        raise UserError("design", "is missing", expected=expected)


def find_study(source: str | Path) -> Path:
    """The file that `source` names: a path, `-`, or the name of a study that comes with raykd."""
    return find_document(source, studies(), "STUDY", "study")


def build_study(
    raw: Mapping[str, Any], storage: Storage | Path, folder: Path | None = None, settings: bool = True
) -> SweepSpec:
    """The sweep over arms that `raw` describes; the rest as of `load_study`.

    Raises `UserError`, with the reason, for what cannot work.
    """
    _refuse_search(raw)
    raw = spelled_out(raw, SHORTHAND)
    file = build(StudyFile, raw)
    replicates, looks = _replicates(file)
    shared = _base(file, storage)
    engine = {name: value for name, value in raw.items() if name in _ENGINE}
    common = {"name": file.name, **shared, **engine, "sampler": "random", "scheduler": {"name": "none"}}
    base = build_sweep({**common, "samples": 1})
    if not isinstance(base.method, str):
        raise UserError("base.method", "is more than one", value=base.method, expected="`design: compare`")
    arms = _arms(file, base)
    if settings:  # their labels keep the paths as written
        arms = {
            label: arm.model_copy(update={"settings": absolute_flat(arm.settings, folder)})
            for label, arm in arms.items()
        }
    against = _against(file, arms)
    # Fields of all methods, so that `fixed` reaches each arm that has them.
    methods = tuple(dict.fromkeys([base.method, *(arm.method or base.method for arm in arms.values())]))
    _check_allowed(file.allow, methods)
    rules = {
        "design": file.design,
        "base": against,
        "replicates": replicates,
        "looks": looks,
        "allow": file.allow,
        "published": published_of(file, arms),
        "factors": _factors(file, base) if file.design == "factorial" else {},
        **{name: getattr(file, name) for name in _RULES},
    }
    return build_sweep(
        {**common, "method": methods, "samples": len(arms) * replicates, "arms": arms, "study": rules}
    )


def _replicates(file: StudyFile) -> tuple[int, tuple[int, ...]]:
    """Replicates at most, and after how many a sequential study looks."""
    sequential = [name for name in ("precision", "decide") if getattr(file, name)]
    if len(sequential) == 2:
        raise UserError("decide", "and `precision` ask different questions", expected="one of them")
    if not sequential:
        if file.max_replicates is not None:
            raise UserError("max_replicates", "goes with `decide` or `precision`", expected="`replicates`")
        if file.replicates is None:
            raise UserError(
                "replicates", "is missing", expected="`replicates: 5`, or `decide: true` and `max_replicates`"
            )
        if file.replicates < 2:
            problem = "one replicate has no spread, so no interval"
            raise UserError("replicates", problem, value=file.replicates, expected="at least 2, better 5")
        return file.replicates, ()
    how = sequential[0]
    if file.design == "factorial":
        problem = "closes arms one by one, and effects need every arm at every replicate"
        raise UserError(how, problem, expected="`replicates`, or `design: grid`")
    if file.replicates is not None:
        raise UserError("replicates", f"is what `{how}` finds out", expected="`max_replicates`")
    if file.max_replicates is None or file.max_replicates < FEWEST_TO_LOOK:
        raise UserError(
            "max_replicates",
            f"`{how}` has to know where it ends",
            value=file.max_replicates,
            expected=f"at least {FEWEST_TO_LOOK}",
        )
    return file.max_replicates, tuple(range(FEWEST_TO_LOOK, file.max_replicates + 1))


def _base(file: StudyFile, storage: Storage | Path) -> dict[str, Any]:
    """The sections of a sweep that all arms share."""
    base = dict(file.base)
    if "sweep" in base:
        over = {name: value for name, value in base.items() if name not in ("sweep", "trial")}
        if over:
            problem, name = "a base that is a sweep's best trial is taken as it is", next(iter(over))
            raise UserError(f"base.{name}", problem, expected="`sweep` and, if not the best, `trial`")
        return _best_of(str(base["sweep"]), base.get("trial"), storage)
    for name in base:
        if name not in _BASE:
            raise UserError(join("base", name), "no such field", value=name, choices=(*_BASE, "sweep"))
    for name in ("method", "student", "epochs"):
        if name not in base:
            raise UserError(
                join("base", name), "is missing", expected=SweepSpec.model_fields[name].description
            )
    return absolute(base)


def _best_of(name: str, trial: str | None, storage: Storage | Path) -> dict[str, Any]:
    from raykd.export.trial import chosen, config_of
    from raykd.records.recorded_spec import spec_of
    from raykd.records.views import find, read
    from trainables.teachers.feeding import is_own

    history = read(find(storage, name))
    spec = spec_of(history)
    best = chosen(spec, history, trial)[1]
    config = config_of(spec, best)
    if best.teacher is not None and is_own(best.teacher):
        # Found again for each arm, whose teacher may be another one.
        del config["teacher"]["mean"], config["teacher"]["std"]
    return {section: config[section] for section in _BASE if section in config}


def _arms(file: StudyFile, base: SweepSpec) -> designs.Arms:
    section = _VARIES[file.design]
    for other in ("factors", "components", "arms"):
        if other != section and getattr(file, other):
            raise UserError(other, f"is no part of `design: {file.design}`", expected=f"`{section}`")
    if not getattr(file, section):
        raise UserError(section, "is missing", expected=StudyFile.model_fields[section].description)
    for name in ("resolution",) if file.design != "factorial" else ():
        if getattr(file, name) is not None:
            raise UserError(name, f"is no part of `design: {file.design}`", expected="`design: factorial`")
    if section == "factors":
        factors = _factors(file, base)
        if file.design == "one_at_a_time":
            arms = designs.one_at_a_time(factors, _values(factors, base))
        elif file.design == "grid":
            arms = designs.grid(factors)
        else:
            arms = designs.factorial(factors, file.resolution)
    elif section == "components":
        named = {
            c: _flat(settings, base.methods, f"components.{c}") for c, settings in file.components.items()
        }
        arms = designs.leave_one_out(named)
    else:
        arms = designs.compare(
            {label: _arm(label, raw, base, file.budget) for label, raw in file.arms.items()}
        )
    if len(arms) < 2:
        raise UserError(section, "leaves nothing to compare: there is one arm", expected="another level")
    return arms


def _factors(file: StudyFile, base: SweepSpec) -> dict[str, tuple[Any, ...]]:
    """Flat name -> levels, none of them twice."""
    fields = {name: _field(name, base.methods, f"factors.{name}") for name in file.factors}
    found: dict[str, tuple[Any, ...]] = {}
    for name, levels in file.factors.items():
        for at, level in enumerate(levels):
            if any(designs.same(level, other) for other in levels[:at]):
                raise UserError(f"factors.{name}.{at}", "stands there twice", value=level)
        if file.design != "one_at_a_time" and len(levels) < 2:
            raise UserError(
                f"factors.{name}", "does not vary", value=list(levels), expected="2 levels or more"
            )
        found[_unique(fields[name], found, f"factors.{name}")] = levels
    return found


def _values(factors: Mapping[str, Any], base: SweepSpec) -> dict[str, Any]:
    flat = flatten(base.trial({}, 0))
    return {name: flat.get(name) for name in factors}


def _flat(settings: Mapping[str, Any], methods: tuple[str, ...], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        field = _field(name, methods, join(where, name))
        found[_unique(field, found, join(where, name))] = value
    return found


def _field(name: str, methods: tuple[str, ...], where: str) -> FlatField:
    """The field of that name, if arms may differ in it."""
    if name in _ELSEWHERE:
        raise UserError(where, "is no factor", expected=_ELSEWHERE[name])
    return searchable(name, methods, where)


def _unique(field: FlatField, found: Mapping[str, Any], where: str) -> str:
    if field.flat in found:
        raise UserError(where, f"is {field.flat}, which stands there already")
    return field.flat


def _arm(label: str, raw: Mapping[str, Any], base: SweepSpec, budget: Budget) -> dict[str, Any]:
    from trainables.methods import load_method

    own = {name: raw[name] for name in ("method", "preset", "epochs") if name in raw}
    method = load_method(str(own.get("method", base.methods[0])), f"arms.{label}.method").name
    settings = {name: value for name, value in raw.items() if name not in own}
    if "epochs" in own and budget != "epochs":
        raise UserError(f"arms.{label}.epochs", f"is what `budget: {budget}` finds out", value=own["epochs"])
    return {**own, **_flat(settings, (method,), f"arms.{label}")}


def _check_allowed(names: tuple[str, ...], methods: tuple[str, ...]) -> None:
    """A field, or a section of fields (`views`)."""
    known = flat_fields(methods)
    for at, name in enumerate(names):
        if not any(field.startswith(f"{name}.") for field in known):
            find_field(name, methods, f"allow.{at}")


def _against(file: StudyFile, arms: Mapping[str, ArmSpec]) -> str:
    if file.against is None:
        return next(iter(arms))
    if file.design != "compare":
        raise UserError("against", "goes with `design: compare`; here it is the base")
    if file.against not in arms:
        raise UserError("against", "no such arm", value=file.against, choices=arms)
    return file.against


def _override(raw: dict[str, Any], override: str) -> dict[str, Any]:
    """`base.…` as in a search space; the names of factors and arms have dots of their own."""
    path, equals, text = override.partition("=")
    head, _, rest = path.strip().partition(".")
    if equals and rest and head == "base":
        return {**raw, "base": lay_over(as_mapping(raw.get("base"), "base"), f"{rest}={text}")}
    if equals and rest and head in ("factors", "components", "arms"):
        value = parse_yaml(text, f"--set {override}")
        section = as_mapping(raw.get(head), head)
        if value is None:
            return {**raw, head: {name: kept for name, kept in section.items() if name != rest}}
        return put(raw, (head, rest), value)
    return lay_over(raw, override)
