"""Refuses or remarks on a sweep that would go on differently: its file, its teacher or raykd has changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from raykd.records.history import ENDED, History
from raykd.records.recorded_spec import of_another_version, writer
from raykd.runs.drive import Replayed, replayed
from raykd.runs.kinds import run_of
from raykd.spec.difference import difference
from raykd.spec.search import SearchSpec
from raykd.spec.sweep import SweepSpec
from raykd.storage.base import Storage
from trainables.core.errors import UserError
from trainables.spec.inputs import AS_STUDENT
from trainables.spec.normalisation import IMAGENET, normalisation_from

AnySpec = TypeVar("AnySpec", bound=SweepSpec)


def refuse_changed_spec(spec: SweepSpec, history: History, storage: Storage | Path) -> SweepSpec | None:
    """Raise `UserError` where the file that the sweep was started from gives another spec now.

    `storage` holds the sweep. A file that no longer exists is no change. Returns what the file says now, with
    the trackers, which may change; None where there is no file.
    """
    source = (history.sweep or {}).get("source")
    if source is None or not Path(source["path"]).is_file():
        return None
    then = spec.written()
    written = run_of(spec).reread(source, storage)
    now = as_begun(written, then)
    if now.hash() != then.hash():
        raise UserError(
            "spec",
            f"{source['path']} is not what this sweep was started with: {'; '.join(difference(then, now))}",
            expected="the file as it was, `--as-started` to go on with what was written down, or a new name",
        )
    return written


def as_begun(now: SweepSpec, then: SweepSpec) -> SweepSpec:
    """The spec `now` with the defaults that were valid when the sweep began with the spec `then`.

    An older raykd recorded 0 where `workers.gpus` was left out. An older raykd also fed every teacher with
    ImageNet's mean and deviation, and cut and resized images for it as for the student. So these values in
    `now` are no difference. It kept all checkpoints, capped no baseline, and started with the sampler's own
    proposals.
    """
    if then.workers.gpus == 0 and now.workers.gpus is None:
        workers = now.workers.model_copy(update={"gpus": then.workers.gpus})
        now = now.model_copy(update={"workers": workers})
    teacher = now.teacher
    usual = then.teacher_pixels == "imagenet" and "mean" not in (then.teacher or {})
    if (
        usual
        and isinstance(teacher, dict)
        and normalisation_from(teacher.get("mean"), teacher.get("std")) == IMAGENET
    ):
        teacher = {name: value for name, value in teacher.items() if name not in ("mean", "std")}
    if then.teacher_pixels != "trained" and isinstance(teacher, dict):
        younger = {name for name in AS_STUDENT if name not in (then.teacher or {})}
        teacher = {n: value for n, value in teacher.items() if n not in younger or value != AS_STUDENT[n]}
    baseline, keep = now.baseline, now.keep_checkpoints
    if baseline is not None and then.baseline is not None and then.baseline.cap == "none":
        baseline = baseline.model_copy(update={"cap": "none"})
    if isinstance(now, SearchSpec) and isinstance(then, SearchSpec):
        start = then.start if then.start == "sampler" else now.start
        now = now.model_copy(update={"start": start, "budget": then.budget})  # a budget may be raised
    return now.model_copy(
        update={
            "baseline": baseline,
            "teacher_pixels": then.teacher_pixels,
            "track": then.track,  # what a sweep is told to does not change it
            "evaluate": then.evaluate,  # nor what is asked of its students afterwards
            "keep_checkpoints": "all" if then.keep_checkpoints == "all" else keep,
            "teacher": teacher,
        }
    )


def refuse_other_inputs(spec: SweepSpec, history: History) -> None:
    """Raise `UserError` where a trial would have another signature today.

    A signature is a hash of all that defines a trial, the content of the teacher's file included.
    """
    trials = list(history.trials.values())
    # The trials that go on, and the first one, since another version may compute shared settings otherwise.
    for trial in [*trials[:1], *(trial for trial in trials[1:] if trial.status not in ENDED)]:
        now = spec.trial(trial.params, trial.replicate).signature()
        if now != trial.trial:
            by = writer(history)
            raise UserError(
                "name",
                f"trial {trial.trial} would be {now} today: the teacher's file or raykd"
                f"{f' (then {by})' if by else ''} has changed since",
                expected="both as they were, or a new sweep",
            )


def refuse_other_samplers(spec: SweepSpec, history: History) -> Replayed:
    """Sampler and scheduler as the ledger left them.

    Raises `UserError` where it cannot be replayed to them, before Ray starts.
    """
    try:
        return replayed(spec, history)
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        raise of_another_version(history, f"its trials cannot be told to the sampler: {error}") from None


def other_versions(history: History, now: Mapping[str, str]) -> list[str]:
    """A line that names the packages whose version differs from the last driver's; [] if none does."""
    known = [
        record["versions"] for record in (history.sweep, *history.drivers) if record and "versions" in record
    ]
    then = known[-1] if known else {}
    changed = [
        f"{name} {then[name]} -> {now[name]}" for name in now if then.get(name, now[name]) != now[name]
    ]
    if not changed:
        return []
    return [f"other versions than before, so trials from here on may differ a little: {', '.join(changed)}"]


def other_device(history: History, now: str) -> str:
    """A remark where trials go on with another kind of device (GPU, CPU) than before; else "".

    The kinds differ in numerical precision, and a trial's signature does not contain the kind.
    """
    then = next((record["device"] for record in reversed(history.drivers) if record.get("device")), now)
    return (
        ""
        if then == now
        else f"trained on {then}s before, on {now}s from here on: scores may differ a little"
    )


def unlike_today(spec: SweepSpec, history: History) -> str:
    """A remark where an older sweep feeds its teacher other pixels than today's raykd would; else ""."""
    from trainables.teachers.feeding import remark

    for trial in list(history.trials.values())[:1] if spec.teacher_pixels == "imagenet" else []:
        for teacher in spec.trial(trial.params, trial.replicate).teachers:
            if told := remark(teacher):
                return f"{told}. It goes on as it began; a new sweep feeds the teacher as it was trained"
    return ""


def with_changes(spec: AnySpec, now: SweepSpec) -> AnySpec:
    """`spec` with what may change while a sweep goes on, as its file says it `now`.

    That is whom it is told to, what is evaluated, and how much it may spend.
    """
    budget = {"budget": now.spends} if isinstance(spec, SearchSpec) else {}
    return spec.model_copy(update={"track": now.track, "evaluate": now.evaluate, **budget})
