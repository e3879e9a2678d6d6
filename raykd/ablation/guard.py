"""The confound guard: an arm may differ from the base in what the study declares, and in nothing else.

    spec, remarks = check_study(spec)       # raises UserError before any training

An arm declares its settings, its method and its epochs. Any other difference is refused, unless the study
allows it or it follows necessarily: another method has its own settings, and may have no teacher. Such
differences are kept in `ArmSpec.also`. Every report names them, and names the number of trained parameters
where it is not the base's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from raykd.ablation.arm_trials import placed, trial_of, under
from raykd.ablation.budget import with_epochs
from raykd.ablation.missing_files import refuse_missing_files
from raykd.spec.arms import ArmSpec
from raykd.spec.axis_kinds import same
from raykd.spec.devices import check_gpus
from raykd.spec.study import StudySpec
from raykd.spec.suite_check import check_evaluate
from raykd.spec.tracking import check_installed
from trainables.core.errors import UserError
from trainables.evaluation.probes import load_probe
from trainables.spec.inputs import InputFields
from trainables.spec.trial import TrialSpec
from trainables.training.flat_names import flatten

# What a network takes, which its file says; the size of its images is for the user to choose.
_OF_FILE = InputFields.model_fields.keys() - {"image_size"}

Difference = dict[str, tuple[Any, Any]]  # flat name -> values in base and arm, None where there is none


def check_study(spec: StudySpec, memory: int | None = None) -> tuple[StudySpec, list[str]]:
    """The study with what its arms turn out to be, and remarks on what can be run but may not be intended.

    `memory` is that of each worker, bytes, where it is known. Raises `UserError` for an arm that cannot be
    trained, that equals another arm, or that differs from the base in more than it declares.
    """
    from trainables.planning.check import TrialChecker
    from trainables.planning.compute import trained_parameters

    check_gpus(spec.workers)
    check_installed(spec.track)
    trials = {label: trial_of(spec, label) for label in spec.arms}
    refuse_equal(trials, spec.study.base)
    base = trials[spec.study.base]
    also = {label: undeclared(spec, label, base, trial) for label, trial in trials.items()}
    checker = TrialChecker(spec.workers.count, memory)
    remarks = []
    for label, trial in trials.items():
        try:
            refuse_missing_files(trial)
            checker.check(trial)
        except UserError as error:
            raise placed(spec, label, error) from None
        remarks += [remark for remark in checker.remarks(trial).values() if remark not in remarks]
        remarks += _one_function(label, checker.same_choices(trial), flatten(base), flatten(trial))
    if spec.baseline is not None:
        try:
            checker.check(spec.baseline_trial())
        except UserError as error:
            raise error.under("baseline") from None
    check_evaluate(spec)
    spec = with_epochs(spec, trials)
    parameters = {label: trained_parameters(trials[label], checker.context) for label in spec.arms}
    spec = spec.with_arms({a: {"also": also[a], "trained_parameters": parameters[a]} for a in spec.arms})
    rules = spec.study.model_copy(update={"step": _resolution(base)})
    return spec.model_copy(update={"study": rules}), remarks


def differences(base: TrialSpec, arm: TrialSpec) -> Difference:
    """Every field in which two trials differ, without the seed."""
    before, after = flatten(base), flatten(arm)
    return {
        name: (before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
        if name != "seed" and not (name in before and name in after and same(before[name], after[name]))
    }


def undeclared(spec: StudySpec, label: str, base: TrialSpec, arm: TrialSpec) -> Difference:
    """The differences that the arm does not declare and yet may have. Raises `UserError` for any other."""
    declared = [*_declared(spec.arms[label]), *_declared(spec.arms[spec.study.base])]
    other = base.method != arm.method
    may: Difference = {}
    refused: Difference = {}
    for name, values in differences(base, arm).items():
        if under(name, declared):
            continue
        own = other and (name in base.config or name in arm.config)
        taught = name.startswith("teacher.") and (base.teacher is None) != (arm.teacher is None)
        follows = _follows(name, declared)
        (may if own or taught or follows or under(name, spec.study.allow) else refused)[name] = values
    if refused:
        said = "; ".join(f"{name} is {a!r} there and {b!r} here" for name, (a, b) in refused.items())
        names = ", ".join(refused)
        raise UserError(
            f"arms.{label}",
            f"differs from {spec.study.base!r} in more than it says: {said}",
            expected=f"one value for both in `base` (or `base.fixed`), or `allow: [{names}]`",
        )
    return _whole_teacher(may, base, arm)


def _follows(name: str, declared: Iterable[str]) -> bool:
    """Whether a network's field follows from what is declared of the network.

    Each file says which images its network takes. A name of weights becomes a file, and an architecture with
    the tag of the weights.
    """
    section, _, field = re.sub(r"^teacher\.\d+\.", "teacher.", name).partition(".")  # one of several
    if section not in ("teacher", "student"):
        return False
    of_network = {one.partition(".")[2].partition(".")[0] for one in declared if under(one, [section])}
    if field in _OF_FILE:
        return bool(of_network)
    return field.partition(".")[0] in ("arch", "options", "checkpoint") and bool(
        of_network & {"arch", "pretrained"}
    )


def refuse_equal(trials: Mapping[str, TrialSpec], base: str) -> None:
    """Raise `UserError` where two arms are one trial."""
    seen: dict[str, str] = {trials[base].signature(): base}
    for label, trial in trials.items():
        first = seen.setdefault(trial.signature(), label)
        if first != label:
            what = "the base" if first == base else f"arm {first!r}"
            raise UserError(f"arms.{label}", f"is the same as {what}", expected="a setting that changes it")


def _declared(arm: ArmSpec) -> list[str]:
    """The names of the fields that an arm changes."""
    own = {"method": arm.method, "epochs": arm.epochs}
    return [*arm.settings, *arm.tuned, *(name for name, value in own.items() if value is not None)]


def _whole_teacher(found: Difference, base: TrialSpec, arm: TrialSpec) -> Difference:
    """`found` with one entry for the whole teacher, where only one side has a teacher."""
    if (base.teacher is None) == (arm.teacher is None):
        return found
    left = {name: values for name, values in found.items() if not name.startswith("teacher.")}
    sides = [", ".join(one.arch for one in trial.teachers) or None for trial in (base, arm)]
    return {**left, "teacher": (sides[0], sides[1])}


def _one_function(
    label: str,
    groups: Mapping[str, Iterable[tuple[str, ...]]],
    base: Mapping[str, Any],
    arm: Mapping[str, Any],
) -> list[str]:
    """Remarks on levels that are one function under two names, which makes their comparison useless."""
    return [
        f"arm {label!r}: {field} {base[field]} and {arm[field]} are one function with these networks"
        for field, found in groups.items()
        for group in found
        if base.get(field) != arm.get(field) and {base.get(field), arm.get(field)} <= set(group)
    ]


def _resolution(trial: TrialSpec) -> float:
    """The smallest step between two scores, points: one image, over the draws of a k-shot probe.

    0 for a score that counts no images.
    """
    from trainables.data.data_sets import check_data

    score = load_probe(trial.probe.score)
    if not score.counts_images:
        return 0.0
    images = min(check_data(trial.data).validation_images, trial.probe.max_images)
    draws = trial.probe.draws if score.shots else 1
    return 100 / (images * draws) if images else 0.0
