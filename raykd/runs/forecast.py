"""How long a study will take: from its own ended trials, or from a few steps of each arm, timed here.

`trainables/planning/timing.py` times training steps and probes as the trials will do them, as if this machine
were idle. The start of Ray and its lanes is given separately. The figure leaves out: decoding the data,
reference rows, communication between workers, and that lanes on one machine slow each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raykd.lanes.cluster import quiet, this_machine
from raykd.records.history import History
from raykd.runs.auxiliary import untrained
from raykd.runs.retune import searches
from raykd.spec.arms import ARM
from raykd.spec.study import StudySpec
from raykd.storage.base import Storage
from trainables.spec.trial import TrialSpec

if TYPE_CHECKING:
    from trainables.planning.timing import Timing


START_S = 30.0  # Ray and a machine's first lanes: 20 to 40 s on two cores
_BUSY = 1.5  # steps that take more than so many times as long show that the machine has other work


@dataclass(frozen=True)
class Forecast:
    """Seconds of one lane."""

    trial_s: dict[str, float]  # arm -> a whole trial; empty where none can be given
    how: str  # how the seconds were found, or why there are none
    lanes: int = 1  # at once, on this machine
    search_s: float = 0.0  # of the arms' own searches
    teacher_s: float = 0.0  # of training the teachers that have no file yet
    baseline_s: float = 0.0  # of the no-teacher baseline


def from_history(spec: StudySpec, history: History) -> Forecast | None:
    """The forecast from the study's trials that have ended; None where none has."""
    ended = [t for t in history.trials.values() if t.ended is not None and t.epoch]
    if not ended:
        return None
    every = sum(t.wall_s for t in ended) / sum(t.epoch for t in ended)
    found = {}
    for label in spec.arms:
        own = [t for t in ended if t.params[ARM] == label]
        epoch_s = sum(t.wall_s for t in own) / sum(t.epoch for t in own) if own else every
        found[label] = epoch_s * spec.cost(label)[0]
    return Forecast(found, "as this study's trials went so far", max(1, _lanes(spec)))


def forecast(spec: StudySpec, storage: Storage, baseline_epochs: int = 0) -> Forecast:
    """The forecast from a few steps of each arm on this machine; `storage` holds the trained teachers.

    `baseline_epochs` are those of the no-teacher baseline, 0 if there is none.
    It has no seconds for a study whose workers this machine cannot hold: another machine's speed is unknown.
    """
    lanes = _lanes(spec)
    if not lanes:
        return Forecast({}, "this machine cannot hold a lane of this study, so its speed says nothing")
    timer = _Timer(spec)
    found = {}
    for label, arm in spec.arms.items():
        trial = spec.arm_trial(label)
        alike = (arm.step_flops, arm.trained_parameters, trial.method, trial.views, trial.optim.batch_size)
        found[label] = timer.seconds(trial, str(alike))
    searched = sum(search.samples * found[label] for label, search in searches(spec).items())
    how = f"timed on a few steps of each arm on this machine's {timer.device}"
    if timer.busy > _BUSY:
        how += f" as if it were idle, while other work makes them take up to {timer.busy:.1f} times as long"
    taught, beside = sum(map(timer.seconds, untrained(spec, storage))), 0.0
    if baseline_epochs:
        beside = timer.seconds(spec.baseline_trial().model_copy(update={"epochs": baseline_epochs}))
    return Forecast(found, how, lanes, searched, taught, beside)


class _Timer:
    """Times trials. Trials that do the same arithmetic are timed once."""

    def __init__(self, spec: StudySpec) -> None:
        self.workers = spec.workers
        self.device, self.busy = "", 1.0
        self._known: dict[str, Timing] = {}

    def seconds(self, trial: TrialSpec, alike: str = "") -> float:
        """Seconds of a whole trial. Trials with the same `alike` (not "") have equally long steps."""
        from trainables.planning.timing import measure

        key = alike or trial.signature()
        if key not in self._known:
            self._known[key] = measure(
                trial, self.workers.count, max(1, int(self.workers.cpus)), self._where()
            )
        timing = self._known[key]
        self.device, self.busy = {"cuda": "GPU"}.get(timing.device, "CPU"), max(self.busy, timing.busy)
        return timing.of(trial)

    def _where(self) -> str:
        """The kind of device that workers on this machine would have: cuda or cpu."""
        return "cuda" if self.workers.on([this_machine()]).gpus else "cpu"


def _lanes(spec: StudySpec) -> int:
    """The number of lanes that this machine would hold."""
    quiet()
    held = spec.workers.lanes([this_machine()])
    return min(held, spec.lanes or held, spec.trials)
