"""Optuna's ask and tell, without Ray: proposes configurations and learns from trials.

    proposer = Proposer(spec)
    while (proposal := proposer.propose()) is not None:
        ...                                   # record it; after a `Repeat` ask again
        proposer.report(proposal.trial, epoch, score)
        proposer.end(proposal.trial, "finished")

Proposals depend only on the spec and on what the proposer was told so far: each proposal has a sampler of its
own, seeded by (sampler seed, running number). So a proposer that is restored from a history goes on like the
one that wrote it. What Optuna is told of a trial:

- finished: COMPLETE with its best score over the epochs, as `History` reports it;
- stopped: PRUNED with its scores as intermediate values (TPE knows that an early score is no result). One
  that ran on for `proxy.audit` is told likewise, without what came later: a search proposes the same with an
  audit and without it;
- with several objectives, finished or stopped: COMPLETE with the best score so far and the sizes (`told.py`);
  FAIL where a size is not known;
- refused, because its student is over a limit or cannot take the images: for TPE PRUNED without a score, and
  with a constraint violated by the share above the limit, so that it proposes within the limits; else FAIL;
- failed, or without a finite score: FAIL. In flight: RUNNING, which TPE's constant liar takes into account.

Each replicate of a configuration and each repeated proposal is one more observation. Trials of earlier sweeps
(`warm_start`) are observations before the first proposal, whose number is 0 in a ledger all the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Protocol

from raykd.records.earlier import Earlier
from raykd.records.history import History, TrialRecord
from raykd.searching.optuna_state import End, StudyState, make_sampler
from raykd.searching.refusals import Latency, judge, refused_end, student_of
from raykd.searching.told import Told, sizes_among, told_of
from raykd.spec.samplers import Grid
from raykd.spec.search import SearchSpec
from raykd.spec.size_sections import student_key
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError
from trainables.training.flat_names import flatten


class Wait:
    """There is no trial to run now, but there may be one when others have ended."""


WAIT = Wait()
REPEATS_IN_A_ROW = 100  # after so many, all configurations of the space count as tried
REFUSALS_IN_A_ROW = 500  # after so many, the sampler is taken to find none within the limits


@dataclass(frozen=True)
class Proposal:
    """A trial to run: the fields of a `suggest` record."""

    number: int  # running number, shared with repeats
    trial: str  # signature
    arm: str
    replicate: int  # the seed
    params: dict[str, Any]  # axis -> value
    config: dict[str, Any]  # flat name -> value
    origin: str  # sampler | point | preset | grid | replicate
    attrs: dict[str, Any]  # the sampler's own state with this trial, plain JSON
    student: str  # 8 hex digits of what the student is
    size: dict[str, float]  # of the student: params, macs

    def record(self) -> dict[str, Any]:
        """The fields of the ledger's `suggest` record."""
        return asdict(self)


@dataclass(frozen=True)
class Repeat:
    """A proposal that was made before, or that cannot be trained: the fields of a `repeat` record."""

    number: int
    params: dict[str, Any]
    trial: str | None  # signature of the trial that was proposed before; None: it cannot be trained
    reason: str | None  # why it cannot be trained
    attrs: dict[str, Any]
    over: dict[str, float] = field(default_factory=dict)  # limit -> by which share it is exceeded
    size: dict[str, float] = field(default_factory=dict)  # of a refused student
    name: str = ""  # that a refused trial would have

    def record(self) -> dict[str, Any]:
        """The fields of the ledger's `repeat` record."""
        found = asdict(self)
        return found if self.over else {n: v for n, v in found.items() if n not in ("over", "size", "name")}


class Proposes(Protocol):
    """What chooses the next trial and is told its scores: `Proposer`, or `ablation.rounds` for a study."""

    @property
    def exhausted(self) -> bool:
        """Has it nothing more to propose, although it may propose more trials?"""

    def propose(self) -> Proposal | Repeat | Wait | None:
        """The next trial; None when there is none any more."""

    def report(self, trial: str, epoch: int, value: float) -> None:
        """Take in a trial's score at an epoch."""

    def end(self, trial: str, status: str) -> None:
        """Take in the end of a trial."""


class Proposer:
    """Proposes at most `samples` configurations, each once per seed of the spec."""

    def __init__(self, spec: SearchSpec, samples: int | None = None, earlier: Earlier | None = None) -> None:
        """`earlier` is what the sweep has from others. Their trials have ended before its first one."""
        earlier = earlier or Earlier()
        self.spec = spec
        self.samples = spec.samples if samples is None else samples
        known = [told.params for told in earlier.told]
        first = [(origin, at) for origin, at in spec.first_points if origin == "point" or at not in known]
        self._points = first + [("point", spec.space.with_parents(one.params)) for one in earlier.points]
        self._state = StudyState(sizes=len(spec.objective[1:]))
        for told in earlier.told:
            found = student_of(spec, told.params)
            sizes = sizes_among(spec.objective, found.known)
            end = (
                self._refused(found.over) if sizes is None else Told([], told.scores, told.status, sizes).end
            )
            if end is not None and spec.sampler.learns_limits and found.over:
                end = end._replace(over=found.over)
            self._state.place(*spec.space.encode(told.params), spec.sampler.attrs_of_earlier, end)
        self._first = self._state.size  # Optuna's number of the proposal with number 0
        self._earlier = self._state.study.get_trials(deepcopy=False)
        self.study = self._state.study  # to read, for plots and importance
        self._told: dict[str, Told] = {}
        self._replicates: deque[tuple[dict[str, Any], int]] = deque()
        self._configurations = 0  # proposed so far, without repeats
        self._repeats = 0
        self._in_a_row = 0
        self._refused_in_a_row = 0
        self._latency: Latency | None = None
        self._held: tuple[int, dict[str, Any], int, str] | None = None  # waits for its student's latency

    @property
    def exhausted(self) -> bool:
        """Were all configurations of the space proposed, although `samples` would allow more?"""
        return self._gives_up or (self._grid() and self._next_on_grid() is None)

    @property
    def _gives_up(self) -> bool:
        refused = self._refused_in_a_row >= REFUSALS_IN_A_ROW and not self._grid()
        return refused or self._in_a_row >= REPEATS_IN_A_ROW

    @property
    def running(self) -> list[int]:
        """Numbers of the observations whose result Optuna does not have yet."""
        return [number - self._first for number in self._state.running()]

    def measure_by(self, latency: Latency) -> None:
        """Refuse by latencies from now on, as `latency` gives them; without it these limits do not count."""
        self._latency = latency

    def propose(self) -> Proposal | Repeat | Wait | None:
        """The next trial, or a `Repeat` to record before the next call; None when nothing is left to try.

        `WAIT` while the latency of the next trial's student is measured.
        """
        if self._held is not None:
            return self._propose(*self._held)
        if self._replicates:
            params, seed = self._replicates.popleft()
            return self._propose(
                self._state.place(*self.spec.space.encode(params)), params, seed, "replicate"
            )
        if self._configurations >= self.samples or self._gives_up:
            return None
        slot = self._configurations + self._repeats
        if slot < len(self._points):
            origin, number, params = self._points[slot][0], *self._ask(self._points[slot][1])
        elif self._grid():
            on_grid = self._next_on_grid()
            if on_grid is None:
                return None
            origin, number, params = "grid", self._state.place(*self.spec.space.encode(on_grid)), on_grid
        else:
            origin, number, params = "sampler", *self._ask({})
        return self._propose(number, params, self.spec.seeds[0], origin)

    def report(self, trial: str, epoch: int, value: float) -> None:
        """Take in a score of a trial in flight. The first one of an epoch counts, if it is finite."""
        told = self._told[trial]
        if math.isfinite(value) and told.status is None and epoch not in told.scores:
            told.scores[epoch] = float(value)

    def end(self, trial: str, status: str) -> None:
        """Take in a trial's end: finished, stopped or failed. Optuna is told for its repeats as well."""
        told = self._told[trial]
        if told.status is None:
            told.status = status
            end = told.end
            assert end is not None
            for number in told.numbers:
                self._state.tell(number, end)

    def replay(self, history: History) -> None:
        """Take in everything that a history holds. Trials that have not ended stay in flight."""
        repeats = {int(record["number"]): record for record in history.repeats}
        trials = {trial.number: trial for trial in history.trials.values()}
        told = {trial.trial: told_of(trial, self.spec.objective) for trial in trials.values()}
        for number in sorted(repeats.keys() | trials.keys()):
            if number in trials:
                self._replay_trial(trials[number], told[trials[number].trial])
            else:
                record = repeats[number]
                name, attrs = record["trial"], record.get("attrs") or {}
                over = record.get("over") or {}
                end = self._refused(over) if name is None else told[name].end
                placed = self._state.place(*self.spec.space.encode(record["params"]), attrs, end)
                self._count_repeat(placed, name, over)
        seen = {(trial.arm, trial.replicate) for trial in trials.values()}
        for trial in sorted(trials.values(), key=lambda t: t.number):
            if trial.replicate == self.spec.seeds[0]:
                missing = [s for s in self.spec.seeds if (trial.arm, s) not in seen]
                self._replicates.extend((trial.params, seed) for seed in missing)

    # --- within -------------------------------------------------------------------------------------------

    def _replay_trial(self, trial: TrialRecord, told: Told) -> None:
        number = self._state.place(*self.spec.space.encode(trial.params), trial.attrs, told.end)
        if (due := number - self._first) != trial.number:
            raise UserError("ledger", f"trial {trial.trial} has number {trial.number}, and {due} is next")
        self._note_trial(number, trial.trial, trial.origin != "replicate", told)

    def _ask(self, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """(Optuna's number, configuration) as the sampler proposes it, with some values given."""
        number = self._state.size
        sampler = make_sampler(self.spec.sampler, number, self._earlier)
        values, _ = self.spec.space.encode(given)
        return number, self._state.ask(sampler, values, self.spec.space.suggest)

    def _propose(
        self, number: int, params: dict[str, Any], seed: int, origin: str
    ) -> Proposal | Repeat | Wait:
        attrs, at, self._held = self._state.attrs(number), number - self._first, None
        try:
            trial = self.spec.trial(params, seed)
        except UserError as error:
            self._note_repeat(number, None)
            return Repeat(at, params, None, str(error), attrs)
        name = trial.signature()
        if name in self._told:
            self._note_repeat(number, name)
            return Repeat(at, params, name, None, attrs)
        found = judge(self.spec, trial, params, self._latency)
        if found is None:
            self._held = number, params, seed, origin
            return WAIT
        if found.over:
            self._note_repeat(number, None, found.over)
            return Repeat(at, params, None, found.reason, attrs, found.over, found.size, name)
        told = Told([], {}, sizes=sizes_among(self.spec.objective, found.known))
        self._note_trial(number, name, origin != "replicate", told)
        if origin != "replicate":
            self._replicates.extend((params, seed) for seed in self.spec.seeds[1:])
        settings, student = flatten(trial), student_key(trial)
        return Proposal(at, name, trial.arm(), seed, params, settings, origin, attrs, student, found.size)

    def _note_trial(self, number: int, name: str, new: bool, told: Told) -> None:
        self._told[name] = told
        self._told[name].numbers.append(number)
        self._configurations += new
        self._in_a_row = self._refused_in_a_row = 0

    def _note_repeat(self, number: int, name: str | None, over: Mapping[str, float] | None = None) -> None:
        self._count_repeat(number, name, over or {})
        end = self._refused(over or {}) if name is None else self._told[name].end
        if end is not None:
            self._state.tell(number, end)

    def _count_repeat(self, number: int, name: str | None, over: Mapping[str, float]) -> None:
        self._repeats += 1
        if over:
            self._refused_in_a_row += 1
        else:
            self._in_a_row += 1
        if name is not None:
            self._told[name].numbers.append(number)

    def _refused(self, over: Mapping[str, float]) -> End:
        """What Optuna is told of a configuration that was not trained."""
        return refused_end(over if self.spec.sampler.learns_limits else {})

    def _grid(self) -> bool:
        return isinstance(self.spec.sampler, Grid)

    def _next_on_grid(self) -> dict[str, Any] | None:
        sampler = self.spec.sampler
        levels = sampler.levels if isinstance(sampler, Grid) else 1
        at = self._configurations + self._repeats - len(self._points)
        grid: Iterator[dict[str, Any]] = islice(self.spec.space.grid(levels), max(at, 0), None)
        return next(grid, None)


def sampler_arguments(spec: SweepSpec) -> dict[str, Any]:
    """Every setting of the sweep's sampler, for the ledger. None is left to a default of Optuna's."""
    return spec.sampler.model_dump(mode="json", exclude={"name"})
