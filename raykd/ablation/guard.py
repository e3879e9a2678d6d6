"""The confound guard: an arm may differ from the base in what the study declares, and in nothing else.

    spec, remarks = check_study(spec)       # raises UserError before anything is spent

What an arm declares are its settings, its method and its epochs. A further difference is refused, unless the
study allows it or it follows necessarily: another method has settings of its own, and may have no teacher.
Those are kept in `ArmSpec.also`, and every report names them, as it does a number of trained parameters that
is not the base's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raykd.ablation.arm_trials import placed, trial_of, under
from raykd.ablation.budget import with_epochs
from raykd.ablation.designs import same
from raykd.ablation.missing_files import refuse_missing_teacher
from raykd.spec.arms import ArmSpec
from raykd.spec.devices import check_gpus
from raykd.spec.study import StudySpec
from trainables.core.errors import UserError
from trainables.spec.parse import within
from trainables.spec.trial import TrialSpec
from trainables.training.resolve import flatten

Difference = dict[str, tuple[Any, Any]]  # flat name -> values in base and arm, None where there is none


def check_study(spec: StudySpec, memory: int | None = None) -> tuple[StudySpec, list[str]]:
    """The study with what was found out about it, and remarks: what can be run but may not be meant.

    `memory` is what each worker has, bytes, where that is known.

    Raises `UserError` for an arm that cannot be trained, is another one under another name, or differs in
    more than it says.
    """
    from trainables.planning.check import TrialChecker
    from trainables.planning.compute import trained_parameters

    check_gpus(spec.workers)
    trials = {label: trial_of(spec, label) for label in spec.arms}
    refuse_equal(trials, spec.study.base)
    base = trials[spec.study.base]
    also = {label: undeclared(spec, label, base, trial) for label, trial in trials.items()}
    checker = TrialChecker(spec.workers.count, memory)
    remarks = []
    for label, trial in trials.items():
        try:
            refuse_missing_teacher(trial)
            checker.check(trial)
        except UserError as error:
            raise placed(spec, label, error) from None
        remarks += [remark for remark in checker.remarks(trial).values() if remark not in remarks]
        remarks += _one_function(label, checker.same_choices(trial), flatten(base), flatten(trial))
    if spec.baseline is not None:
        try:
            checker.check(spec.baseline_trial())
        except UserError as error:
            raise within("baseline", error) from None
    spec = with_epochs(spec, trials)
    arms = {}
    for label, arm in spec.arms.items():
        parameters = trained_parameters(trials[label], checker.context)
        arms[label] = arm.model_copy(update={"also": also[label], "trained_parameters": parameters})
    rules = spec.study.model_copy(update={"step": _grain(base)})
    return spec.model_copy(update={"arms": arms, "study": rules}), remarks


def differences(base: TrialSpec, arm: TrialSpec) -> Difference:
    """Every field in which two trials differ, the seed left out."""
    before, after = flatten(base), flatten(arm)
    return {
        name: (before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
        if name != "seed" and not (name in before and name in after and same(before[name], after[name]))
    }


def undeclared(spec: StudySpec, label: str, base: TrialSpec, arm: TrialSpec) -> Difference:
    """What differs beyond what the arm declares and yet may; `UserError` for what may not."""
    declared = [*_declared(spec.arms[label]), *_declared(spec.arms[spec.study.base])]
    other = base.method != arm.method
    may: Difference = {}
    refused: Difference = {}
    for name, values in differences(base, arm).items():
        if under(name, declared):
            continue
        own = other and (name in base.config or name in arm.config)
        taught = name.startswith("teacher.") and (base.teacher is None) != (arm.teacher is None)
        # What a teacher was trained on follows from which teacher it is.
        follows = name in ("teacher.mean", "teacher.std") and any(d.startswith("teacher") for d in declared)
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


def refuse_equal(trials: Mapping[str, TrialSpec], base: str) -> None:
    """Raise `UserError` where two arms are one trial."""
    seen: dict[str, str] = {trials[base].signature(): base}
    for label, trial in trials.items():
        first = seen.setdefault(trial.signature(), label)
        if first != label:
            what = "the base" if first == base else f"arm {first!r}"
            raise UserError(f"arms.{label}", f"is the same as {what}", expected="a setting that changes it")


def _declared(arm: ArmSpec) -> list[str]:
    own = {"method": arm.method, "epochs": arm.epochs}
    return [*arm.settings, *arm.tuned, *(name for name, value in own.items() if value is not None)]


def _whole_teacher(found: Difference, base: TrialSpec, arm: TrialSpec) -> Difference:
    """A teacher that one side lacks, in one entry."""
    if (base.teacher is None) == (arm.teacher is None):
        return found
    left = {name: values for name, values in found.items() if not name.startswith("teacher.")}
    sides = [trial.teacher.arch if trial.teacher is not None else None for trial in (base, arm)]
    return {**left, "teacher": (sides[0], sides[1])}


def _one_function(
    label: str,
    groups: Mapping[str, Iterable[tuple[str, ...]]],
    base: Mapping[str, Any],
    arm: Mapping[str, Any],
) -> list[str]:
    """Remarks on levels that are one function under two names, so that nothing can come of comparing them."""
    return [
        f"arm {label!r}: {field} {base[field]} and {arm[field]} are one function with these networks"
        for field, found in groups.items()
        for group in found
        if base.get(field) != arm.get(field) and {base.get(field), arm.get(field)} <= set(group)
    ]


def _grain(trial: TrialSpec) -> float:
    """The steps in which scores come: one image more or fewer, in percent; over the draws of a k-shot probe.

    0 for a score that counts no images.
    """
    from trainables.data.data_sets import check_data
    from trainables.evaluation.probes import shots

    if trial.probe.score == "rankme":
        return 0.0
    images = min(check_data(trial.data).validation_images, trial.probe.max_images)
    draws = trial.probe.draws if shots(trial.probe.score) else 1
    return 100 / (images * draws) if images else 0.0
