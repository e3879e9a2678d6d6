"""What a trial asks its teacher, how large the answers are, and why some cannot be shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainables.core.isolation import isolated
from trainables.methods import load_method
from trainables.methods.base import TAUGHT
from trainables.planning.check import TrialChecker
from trainables.planning.compute import bare_teacher, epoch_steps
from trainables.spec.trial import TrialSpec
from trainables.teachers.teacher import Ask, Teacher, What

MAPS = "it compares feature maps, which are too large to keep"
MIXED = "it mixes images, so an answer is of use to one step alone"
BATCH = "with `teacher.batch_norm: batch` an answer depends on the other images of its batch"


@dataclass(frozen=True)
class Asked:
    """The answers that a trial can share."""

    bytes: Mapping[Ask, int]  # what it asks -> bytes of an epoch, in float32
    why_not: str = ""  # why the teacher is asked in every step of every trial; "": it is not, or is not asked


class AskedOf:
    """Tells `Asked` of trials. A teacher that several of them have is built once."""

    def __init__(self) -> None:
        self._context = TrialChecker().context
        self._teachers: dict[str, Teacher] = {}

    def __call__(self, trial: TrialSpec) -> Asked:
        """What `trial` asks. Raises `UserError` for a teacher whose file cannot be read."""
        kind = load_method(trial.method)
        config = kind.Config(**trial.config)
        if trial.teacher is None or not kind.needs & TAUGHT:
            return Asked({})
        asks = kind.asks(config)
        if not asks:
            maps = "feature_maps" in kind.requires(config)
            return Asked({}, MIXED if kind.mixes(config) and not maps else MAPS)
        images = epoch_steps(trial) * trial.optim.batch_size
        sizes = {
            Ask(what, view, at): images * (4 * self._width(one, what) + 8)
            for at, one in enumerate(trial.of_each_teacher)
            for what, view in asks
            if trial.teachers[at].batch_norm == "eval"
        }
        return Asked(sizes, "" if sizes else BATCH)

    def _width(self, trial: TrialSpec, what: What) -> int:
        key = f"{trial.teacher} {trial.data}"
        if key not in self._teachers:
            with isolated(trial.seed):
                self._teachers[key] = bare_teacher(trial, self._context)
        return self._teachers[key].width(what)
