"""A sweep that would go on as another one than it was: the spec's file, the teacher or raykd has changed."""

from __future__ import annotations

from pathlib import Path

from raykd.records.history import History
from raykd.spec.sweep import SweepSpec, difference, load_sweep
from trainables.errors import UserError
from trainables.normalisation import IMAGENET, said


def refuse_drift(spec: SweepSpec, history: History, storage: Path) -> None:
    source = (history.sweep or {}).get("source")
    if source is None or not Path(source["path"]).is_file():
        return
    if spec.study is not None:
        from raykd.ablation.study import load_study

        now, then = load_study(source["path"], source["overrides"], storage), spec.written()
    else:
        now, then = load_sweep(source["path"], source["overrides"]), spec
    now = as_begun(now, then)
    if now.hash() != then.hash():
        raise UserError(
            "spec",
            f"{source['path']} is not what this sweep was started with: {'; '.join(difference(then, now))}",
            expected="the file as it was, `--as-started` to go on with what was written down, or a new name",
        )


def as_begun(now: SweepSpec, then: SweepSpec) -> SweepSpec:
    """`now` with what a sweep keeps from its beginning, whatever became the default since.

    Where it began with ImageNet's values for every teacher, these say nothing in `now` either.
    """
    teacher = dict(now.teacher or {})
    usual = then.normalisation == "imagenet" and "mean" not in (then.teacher or {})
    if usual and said(teacher.get("mean"), teacher.get("std")) == IMAGENET:
        teacher = {name: value for name, value in teacher.items() if name not in ("mean", "std")}
    return now.model_copy(
        update={"normalisation": then.normalisation, "teacher": teacher if now.teacher is not None else None}
    )


def refuse_other_inputs(spec: SweepSpec, history: History) -> None:
    """A trial's name is a hash of all that defines it, the teacher file's content included."""
    for trial in list(history.trials.values())[:1]:
        now = spec.trial(trial.params, trial.replicate).signature()
        if now != trial.trial:
            raise UserError(
                "name",
                f"trial {trial.trial} would be {now} today: the teacher's file or raykd has changed since",
                expected="both as they were, or a new sweep",
            )


def unlike_today(spec: SweepSpec, history: History) -> str:
    """A remark where a sweep of before goes on feeding its teacher what it was not trained on; else empty."""
    from trainables.teacher_pixels import remark

    for trial in list(history.trials.values())[:1] if spec.normalisation == "imagenet" else []:
        teacher = spec.trial(trial.params, trial.replicate).teacher
        if teacher is not None and (told := remark(teacher)):
            return f"{told}. It goes on as it began; a new sweep feeds the teacher as it was trained"
    return ""
