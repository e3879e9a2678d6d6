"""Optuna's TPE sampler with the same proposals, at a cost that hardly grows with the number of trials.

Optuna reads every trial anew for each proposal: it sorts them, finds the axes that occur together, and turns
each value into a number. Here a trial is read once, when it has ended. The model, its random numbers and its
order of operations are Optuna's.

Every trial that is not among the best (25 at most) is a kernel of the density that a proposal keeps away
from. Beyond `max_kernels` of these a fixed random sample stands for all, which estimates the same density.
Trials in flight are always among them.
"""

from __future__ import annotations

import math
from bisect import insort
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import default_gamma
from optuna.search_space import IntersectionSearchSpace
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace, _SearchSpaceGroup
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from raykd.spec.samplers.parts.parzen import Parzen

# Versions of Optuna whose `_sample` is what `SteadyTPE._sample` does. Others propose by their own code.
VERSIONS = ("5.0",)

_memories: WeakKeyDictionary[Study, _Memory] = WeakKeyDictionary()


def make_tpe(max_kernels: int, **arguments: Any) -> TPESampler:
    """A sampler with the proposals of `TPESampler(**arguments)` up to `max_kernels` trials.

    With other versions of Optuna than those in `VERSIONS` it has these proposals for any number of trials.
    """
    known = ".".join(optuna.__version__.split(".")[:2]) in VERSIONS
    return SteadyTPE(max_kernels, **arguments) if known else TPESampler(**arguments)


class SteadyTPE(TPESampler):
    """`TPESampler` for an objective that is maximised; for several it is that itself.

    Trials may violate constraints.
    """

    def __init__(self, max_kernels: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._max_kernels = max_kernels

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The axes that are drawn together."""
        if study._is_multi_objective():
            return super().infer_relative_search_space(study, trial)
        memory = _memory(study, trial)
        self._search_space = memory.intersection
        if self._group:
            self._group_decomposed_search_space = memory.groups
        return super().infer_relative_search_space(study, trial)

    def _sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if study._is_multi_objective():
            return super()._sample_relative(study, trial, search_space)
        if not search_space or _memory(study, trial).count < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if study._is_multi_objective():
            return super()._sample(study, trial, search_space)
        memory = _memory(study, trial)
        columns = memory.columns(search_space)
        if self._constant_liar:
            for number, running in memory.open.items():
                if number != trial.number and running.state == TrialState.RUNNING:
                    columns.put(number, self._get_params(running, study))
        below = memory.best(default_gamma(memory.count))
        sides = []
        others = columns.but([*below, trial.number], self._max_kernels, list(memory.open))
        for observed in (columns.of(below), others):
            sides.append(Parzen(observed, search_space, self._parzen_estimator_parameters))
        samples = sides[0].sample(self._rng.rng, self._n_ei_candidates)
        values = self._compute_acquisition_func(samples, *sides)
        found: dict[str, Any] = TPESampler._compare(samples, values)
        for number in memory.open:
            columns.drop(number)
        return {name: axis.to_external_repr(found[name]) for name, axis in search_space.items()}


class _Columns:
    """The values of each trial on some axes, as Optuna's internal numbers: one row a trial's number."""

    def __init__(self, space: dict[str, BaseDistribution]) -> None:
        self._space = dict(space)
        self._rows = np.zeros((64, len(space)))
        self._has = np.zeros(64, dtype=bool)  # whether a row counts
        self._dice = np.random.default_rng(0)
        self._ranks = self._dice.random(64)  # of many rows, those with the least ranks are a random sample

    def put(self, number: int, params: dict[str, Any]) -> None:
        """Note a trial with these values, if it has all axes."""
        while number >= len(self._has):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._ranks = np.concatenate([self._ranks, self._dice.random(len(self._ranks))])
            self._has = np.concatenate([self._has, np.zeros_like(self._has)])
        if self._space.keys() <= params.keys():
            self._rows[number] = [axis.to_internal_repr(params[name]) for name, axis in self._space.items()]
            self._has[number] = True

    def drop(self, number: int) -> None:
        """Forget a trial."""
        if number < len(self._has):
            self._has[number] = False

    def of(self, numbers: list[int]) -> dict[str, Any]:
        """axis -> values of these trials, those left out that lack an axis."""
        return self._taken([number for number in numbers if self._has[number]])

    def but(self, numbers: list[int], most: int, first: list[int]) -> dict[str, Any]:
        """axis -> values of all trials but these; of more than `most` a sample with those in `first`."""
        mask = self._has.copy()
        mask[[number for number in numbers if number < len(mask)]] = False
        found = np.flatnonzero(mask)
        if len(found) > most:
            ranks = self._ranks.copy()
            ranks[[number for number in first if number < len(ranks)]] = -1
            found = np.sort(found[np.argpartition(ranks[found], most)[:most]])
        return self._taken(found)

    def _taken(self, which: Any) -> dict[str, Any]:
        rows = self._rows[which] if len(which) else self._rows[:0]
        return {name: rows[:, column].copy() for column, name in enumerate(self._space)}


class _Memory:
    """What is known of a study's trials that have ended with a score, and which ones are open."""

    def __init__(self) -> None:
        self.open: dict[int, FrozenTrial] = {}
        self.count = 0  # trials that are COMPLETE or PRUNED
        self.groups = _Groups()
        self.intersection = IntersectionSearchSpace(include_pruned=True)
        self._known = 0  # trials that were looked at
        self._ended: list[FrozenTrial] = []
        self._complete: list[tuple[float, int]] = []  # sorted, the best first: (-value, number)
        self._pruned: list[tuple[float, float, int]] = []  # likewise: (-step, -value, number)
        self._infeasible: list[tuple[float, int]] = []  # sorted, the nearest first: (violation, number)
        self._columns: dict[tuple[str, ...], _Columns] = {}

    def look(self, study: Study, count: int) -> None:
        """Take in what has changed of the first `count` trials since the last look."""
        storage = study._storage
        for number in [*self.open, *range(self._known, count)]:
            trial = storage.get_trial(
                storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
            )
            if trial.state.is_finished():
                self.open.pop(number, None)
                self._end(trial)
            else:
                self.open[number] = trial
        self._known = max(self._known, count)

    def _end(self, trial: FrozenTrial) -> None:
        violation = sum(value for value in trial.constraints.values() if value > 0)
        if violation > 0 and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            insort(self._infeasible, (violation, trial.number))
        elif trial.state == TrialState.COMPLETE:
            insort(self._complete, (-float(trial.value or 0.0), trial.number))
        elif trial.state == TrialState.PRUNED:
            step, value = max(trial.intermediate_values.items(), default=(-1, 0.0))
            worst = math.isnan(value)
            insort(self._pruned, (float(-step), math.inf if worst else -value, trial.number))
        else:
            return
        self.count += 1
        self._ended.append(trial)
        self.groups.add(trial)
        for columns in self._columns.values():
            columns.put(trial.number, trial.params)

    def best(self, most: int) -> list[int]:
        """The numbers of the best trials, in their order: complete ones, stopped ones, infeasible ones."""
        found = [number for *_, number in self._complete[:most]]
        found += [number for *_, number in self._pruned[: most - len(found)]]
        found += [number for *_, number in self._infeasible[: most - len(found)]]
        return sorted(found)

    def columns(self, space: dict[str, BaseDistribution]) -> _Columns:
        """The values of the ended trials on these axes."""
        key = tuple(space)
        if key not in self._columns:
            self._columns[key] = _Columns(space)
            for trial in self._ended:
                self._columns[key].put(trial.number, trial.params)
        return self._columns[key]


class _Groups(_GroupDecomposedSearchSpace):
    """The axes that occur together. Of trials with the same axes only the first counts."""

    def __init__(self) -> None:
        super().__init__(include_pruned=True)
        self._first: dict[frozenset[str], FrozenTrial] = {}

    def add(self, trial: FrozenTrial) -> None:
        """Note the axes of a trial that has ended."""
        first = self._first.setdefault(frozenset(trial.distributions), trial)
        if trial.number < first.number:
            self._first[frozenset(trial.distributions)] = trial

    def calculate(self, study: Study, use_cache: bool = False) -> _SearchSpaceGroup:
        """As Optuna computes it from all trials, in the order of their numbers."""
        found = _SearchSpaceGroup()
        for trial in sorted(self._first.values(), key=lambda trial: trial.number):
            found.add_distributions(trial.distributions)
        return found


def _memory(study: Study, trial: FrozenTrial) -> _Memory:
    """What is known of the trials up to this one, which is the newest."""
    if study not in _memories:
        _memories[study] = _Memory()
    _memories[study].look(study, trial.number + 1)
    return _memories[study]
