"""Which trials of a sweep share what the teacher says, and why others do not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raykd.console.wording import counted, in_bytes
from raykd.spec.axis_kinds import Integer, Pick
from raykd.spec.study import StudySpec
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError
from trainables.core.files import cache_folder
from trainables.spec.trial import TrialSpec
from trainables.targets.room import FOLDER, Room

if TYPE_CHECKING:
    from trainables.teachers.teacher import Ask  # which needs torch

# What of a trial decides which views the teacher sees, which teacher, and in which batches.
_SECTIONS = ("views", "data", "teacher")
_OPTIM = ("batch_size", "accumulate", "precision", "compile")
_NAMES = {"features": "features", "embed": "embeddings", "logits": "classes"}


def room_for(spec: SweepSpec) -> Room:
    """The room that the workers of a sweep get: none where each trial has answers of its own."""
    apart = math.prod(axes_apart(spec).values())
    return spec.targets.room if apart < spec.samples or apart == 1 else "off"


def axes_apart(spec: SweepSpec) -> dict[str, float]:
    """The axes at whose values trials have answers of their own: axis -> the number of values (inf: a range).

    The arms of a study are no axis of this kind.
    """
    found = {}
    for name, field in spec.space.fields.items():
        section, *rest = field.path
        if section in _SECTIONS or (section == "optim" and rest[0] in _OPTIM):
            axis = spec.space.axes[name]
            discrete = isinstance(axis, Pick | Integer)
            found[name] = float(len(axis.levels(spec.samples + 1))) if discrete else math.inf
    return found


def sharing(spec: SweepSpec) -> dict[str, Any]:
    """What is shared, for a plan: `room`, and `lines` of text."""
    return {"room": room_for(spec), "lines": list(_lines(spec))}


def _lines(spec: SweepSpec) -> Iterator[str]:
    from trainables.planning.sharing import AskedOf

    asked_of = AskedOf()
    who: dict[tuple[str, Ask], list[str]] = {}  # of which inputs, and what -> who asks it
    sizes: dict[tuple[str, Ask], int] = {}  # bytes of an epoch
    alone: dict[str, list[str]] = {}  # why -> who
    for name, trial in _trials(spec).items():
        try:
            asked = asked_of(trial)
        except UserError:  # the teacher of a study that has begun may be gone; what then fails says so
            continue
        if asked.why_not:
            alone.setdefault(asked.why_not, []).append(name)
        for ask, size in sorted(asked.bytes.items()):
            key = _inputs(trial), ask
            who.setdefault(key, []).append(name)
            sizes[key] = size
    # One line for what the same trials share.
    shared: dict[tuple[str, tuple[str, ...]], list[Ask]] = {}  # of which inputs, and who asks -> what
    for (inputs, ask), names in who.items():
        shared.setdefault((inputs, tuple(names)), []).append(ask)
    several = len(shared) + len(alone) > 1
    for (inputs, sharers), asks in shared.items():
        said = f"the {_what(asks)}" + (f" ({_listed(sharers)})" if several else "")
        if why := _own(spec, sharers):
            yield f"{said} are computed in every trial: {why}"
        else:
            total = in_bytes(sum(sizes[inputs, ask] for ask in asks))
            yield f"{said} are computed once a node, for {_sharers(spec)}: {total} an epoch"
    if any(not _own(spec, sharers) for _, sharers in shared):
        room = spec.targets.room
        most = "a quarter of what is free there" if isinstance(room, str) else in_bytes(room)
        where = cache_folder() / FOLDER
        yield f"  they are kept in {where}, at most {most}; `raykd clean --targets` removes them"
    for why, whose in alone.items():
        of = f" of {_listed(whose)}" if several else ""
        yield f"the teacher is asked in every step of every trial{of}: {why}"


def _what(asks: list[Ask]) -> str:
    """`teacher's embeddings of view 1`, `teachers' features of views 1 and 2`."""
    whose = "teachers'" if any(ask.teacher for ask in asks) else "teacher's"
    kinds = " and ".join(_NAMES[kind] for kind in sorted({ask.what for ask in asks}))
    views = [str(view + 1) for view in sorted({ask.view for ask in asks})]
    return f"{whose} {kinds} of view{'s' * (len(views) > 1)} {' and '.join(views)}"


def _trials(spec: SweepSpec) -> Mapping[str, TrialSpec]:
    """A trial of each method, or of each arm, by its name."""
    if isinstance(spec, StudySpec):
        return {label: spec.arm_trial(label) for label in spec.arms}
    return {trial.method: trial for trial in spec.trial_of_each()}


def _inputs(trial: TrialSpec) -> str:
    """What decides which views the teacher sees, which teacher, and in which batches; as text."""
    parts = [trial.views, trial.data, trial.teachers]
    return f"{parts} {[getattr(trial.optim, field) for field in _OPTIM]}"


def _own(spec: SweepSpec, names: Sequence[str]) -> str:
    """Why nothing is shared by the trials of these methods or arms; "" where something is."""
    if spec.targets.room == "off":
        return "`targets: off`"
    if room_for(spec) == "off":
        return f"each has its own, because of {_listed(axes_apart(spec))}"
    if isinstance(spec, StudySpec) and len(names) == 1 and len(spec.arms) > 1:
        return "no other arm asks the same of the same views"
    return ""


def _sharers(spec: SweepSpec) -> str:
    apart = axes_apart(spec)
    if not apart:
        return "all trials of a seed"
    several = f"{math.prod(apart.values()):.0f} combinations, {counted(spec.samples, 'trial')} a seed"
    return f"trials with the same {_listed(apart)} ({several})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
