"""From the file that a user writes about an ablation study to its `StudySpec`.

    spec = load_study("search_spaces/ablations/rrkd_anchors.yaml", ["replicates=3"], Path("sweeps"))
    spec = load_study("rrkd_anchors", ["preset=paper"], Path("sweeps"))
    spec.arms                       # label -> what the arm changes of the base
    spec.arm_trial(label, seed=0)   # its first replicate

This module refuses what can be refused without data and networks; `guard.py` refuses the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raykd.ablation.study_arms import arms_of, check_allowed, factors_of, published_of
from raykd.ablation.study_file import StudyFile
from raykd.export.trial import chosen, config_of
from raykd.records.recorded_spec import spec_of
from raykd.records.views import find, read
from raykd.spec.arms import ArmSpec
from raykd.spec.data_defaults import with_kept_images
from raykd.spec.document import find_document, named_by_file, parse_yaml, read_mapping
from raykd.spec.overrides import lay_over
from raykd.spec.paths import absolute, absolute_flat, absolute_suites
from raykd.spec.plugins import bring_plugins
from raykd.spec.presets import others, with_preset
from raykd.spec.search import SearchSpec, build_sweep
from raykd.spec.sections import SHORTHAND
from raykd.spec.shipped import studies
from raykd.spec.study import StudySpec
from raykd.spec.sweep_defaults import as_new
from raykd.storage.base import Storage
from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build, join, spelled_out
from trainables.training.flat_names import put

FEWEST_TO_LOOK = 3  # pairs at the first look of a sequential study
_BASE = (  # the keys of a base
    *(
        "method",
        "preset",
        "student",
        "teacher",
        "teachers",
        "data",
        "views",
        "optim",
        "probe",
        "epochs",
        "fixed",
    ),
    "teacher_pixels",
    "plugins",  # of a sweep whose best trial is the base
)
_ENGINE = (  # as of a search
    *("workers", "lanes", "targets", "time_limit", "references", "baseline", "attempts"),
    *("failures_in_a_row", "keep_checkpoints", "plugins", "track", "evaluate"),
)
_RULES = ("precision", "decide", "margin", "alpha", "score_at", "budget", "retune")  # taken over as they are


def load_study(
    source: str | Path,
    overrides: list[str] | tuple[str, ...],
    storage: Storage | Path,
    folder: Path | None = None,
    settings: bool = True,
) -> StudySpec:
    """The study in a file, or the one of that name, with overrides `path=value` laid over it.

    `storage` holds the sweep that a base may name. Relative paths start from `folder`, by default this
    process's working folder. Without `settings` the paths of arms stay as written: as before ledger format 1.
    Raises `UserError`.
    """
    path = find_study(source)
    raw = {**named_by_file(path), **read_mapping(path)}
    return read_study(raw, overrides, storage, folder, settings, path)


def read_study(
    raw: Mapping[str, Any],
    overrides: list[str] | tuple[str, ...],
    storage: Storage | Path,
    folder: Path | None = None,
    settings: bool = True,
    path: Path | None = None,
) -> StudySpec:
    """The study that `raw`, the content of the file `path`, describes; the rest as of `load_study`."""
    _refuse_search(raw)
    raw = with_preset(dict(raw), overrides)
    for override in others(overrides):
        raw = _override(raw, override)
    bring_plugins(raw, path, folder)
    if isinstance(raw.get("base"), Mapping):
        raw = {**raw, "base": with_kept_images(absolute(dict(raw["base"]), folder), "base")}
    raw = absolute_suites(raw, folder)
    return build_study(raw, storage, folder, settings)


def _refuse_search(raw: Mapping[str, Any]) -> None:
    """`UserError` for the file of a search, which has no design."""
    if "design" not in raw:
        expected = "`design: one_at_a_time`, say; a search space goes with `raykd run`"
        raise UserError("design", "is missing", expected=expected)


def find_study(source: str | Path) -> Path:
    """The file that `source` names: a path, `-`, or the name of a study that comes with raykd."""
    return find_document(source, studies(), "STUDY", "study")


def build_study(
    raw: Mapping[str, Any], storage: Storage | Path, folder: Path | None = None, settings: bool = True
) -> StudySpec:
    """The study that `raw`, the content of a study's file, describes; the rest as of `load_study`.

    Raises `UserError` for a key, a value or a combination that cannot work.
    """
    _refuse_search(raw)
    raw = spelled_out(raw, SHORTHAND)
    file = build(StudyFile, raw)
    replicates, looks = _replicates(file)
    shared = _base(file, storage)
    engine = {name: value for name, value in raw.items() if name in _ENGINE}
    means = {"sampler": {"name": "random"}, "scheduler": {"name": "none"}}
    common = spelled_out({"name": file.name, **shared, **engine, **means}, SHORTHAND)
    base = build_sweep({**common, "samples": 1})
    if not isinstance(base.method, str):
        raise UserError("base.method", "is more than one", value=base.method, expected="`design: compare`")
    arms = arms_of(file, base)
    if settings:  # their labels keep the paths as written
        arms = {
            label: arm.model_copy(update={"settings": absolute_flat(arm.settings, folder)})
            for label, arm in arms.items()
        }
    against = _against(file, arms)
    # Fields of all methods, so that `fixed` reaches each arm that has them.
    methods = tuple(dict.fromkeys([base.method, *(arm.method or base.method for arm in arms.values())]))
    check_allowed(file.allow, methods)
    rules = {
        "design": file.design,
        "base": against,
        "replicates": replicates,
        "looks": looks,
        "allow": file.allow,
        "published": published_of(file, arms),
        "factors": factors_of(file, base) if file.design == "factorial" else {},
        **{name: getattr(file, name) for name in _RULES},
    }
    samples = len(arms) * replicates
    own = {"method": methods, "samples": samples, "arms": arms, "study": rules}
    return build(StudySpec, {**as_new(common), **own})


def _replicates(file: StudyFile) -> tuple[int, tuple[int, ...]]:
    """The most replicates, and after how many of them a sequential study looks (none of a fixed one)."""
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
    """The sections that all arms share."""
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
                join("base", name), "is missing", expected=SearchSpec.model_fields[name].description
            )
    return absolute(base)


def _best_of(name: str, trial: str | None, storage: Storage | Path) -> dict[str, Any]:
    """The sections of the best trial, or of `trial`, of the sweep called `name`."""
    from trainables.teachers.feeding import own_fields

    history = read(find(storage, name))
    spec = spec_of(history)
    best = chosen(spec, history, trial)[1]
    config = config_of(spec, best)
    written = config.get("teacher")
    for teacher, one in zip(best.teachers, written if isinstance(written, list) else [written], strict=False):
        for field in own_fields(teacher):
            del one[field]  # each arm finds these again, because its teacher may be another one
    config |= {"teachers": spec.teachers} if spec.teachers else {}
    return {section: config[section] for section in _BASE if section in config}


def _against(file: StudyFile, arms: Mapping[str, ArmSpec]) -> str:
    """The label of the arm that the others are compared with: that of `against`, or the first one."""
    if file.against is None:
        return next(iter(arms))
    if file.design != "compare":
        raise UserError("against", "goes with `design: compare`; here it is the base")
    if file.against not in arms:
        raise UserError("against", "no such arm", value=file.against, choices=arms)
    return file.against


def _override(raw: dict[str, Any], override: str) -> dict[str, Any]:
    """`raw` with one override: `base.…` as in a search space; names of factors and arms may hold dots."""
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
