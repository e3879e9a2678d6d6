"""Who runs next in a study: replicate by replicate, every arm that is open gets one before any gets the next.

The same verbs as `Proposer`. Of a fixed study all arms stay open to the end. A sequential one looks after
the rounds that its rules name, when all of their trials have ended, and closes the arms whose answer is
there; the base goes on while any other arm does. What is proposed depends on the spec, on what was proposed,
and on the results of the rounds before a look, and on nothing else, so that a `Rounds` rebuilt from a history
goes on as the one that wrote it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from raykd.ablation.conclusions import extended_rules, score_of, verdicts
from raykd.records.history import ENDED, TrialRecord
from raykd.search.proposer import WAIT, Proposal, Wait
from raykd.spec.arms import ARM
from raykd.spec.study import StudySpec
from raykd.stats.paired import FloatArray
from trainables.training.resolve import flatten

if TYPE_CHECKING:
    from raykd.records.history import History

Cell = tuple[str, int]  # arm, replicate


class Rounds:
    """Proposes `samples` trials at most: (arm, seed), seed by seed."""

    def __init__(self, spec: StudySpec, samples: int | None = None) -> None:
        self.spec = spec
        self.rules = spec.study
        self.samples = spec.samples if samples is None else samples
        self._cells: dict[str, Cell] = {}  # trial -> its place, in the order of proposal
        self._records: dict[Cell, TrialRecord] = {}  # results so far
        self._places: set[Cell] = set()
        self._closed = False
        self._decided: dict[int, list[str]] = {}  # rounds -> the arms that go on: no later result changes it

    @property
    def exhausted(self) -> bool:
        """Is it over, with fewer trials than it might have had?"""
        return self._closed

    def propose(self) -> Proposal | Wait | None:
        """The next trial; `WAIT` until a round has ended; None when there is nothing more to run."""
        for seed in range(self.samples // len(self.spec.arms)):
            open_ = self._open(seed)
            if open_ is None:
                return WAIT
            for label in open_:
                if (label, seed) not in self._places:
                    return self._propose(label, seed)
        self._closed = len(self._cells) < self.samples
        return None

    def report(self, trial: str, epoch: int, value: float) -> None:
        """A score of a trial in flight. The first of an epoch counts."""
        record = self._records[self._cells[trial]]
        if epoch not in record.reports:
            record.reports[epoch] = {"score": value}
            if math.isfinite(value) and (record.best is None or value > record.best[0]):
                record.best = (value, epoch)

    def end(self, trial: str, status: str) -> None:
        """A trial's end: finished, stopped or failed."""
        self._records[self._cells[trial]].status = status

    def replay(self, history: History) -> None:
        """Take in all that a history holds. Trials that have not ended stay in flight."""
        self.rules = extended_rules(self.spec, history)
        self._decided.clear()
        for trial in sorted(history.trials.values(), key=lambda t: t.number):
            self._note(trial.trial, (trial.params[ARM], trial.replicate), trial.number)
            for epoch, metrics in trial.reports.items():
                if "score" in metrics:
                    self.report(trial.trial, epoch, metrics["score"])
            if trial.status in ENDED:
                self.end(trial.trial, trial.status)

    # --- within -------------------------------------------------------------------------------------------

    def _propose(self, label: str, seed: int) -> Proposal:
        made = replace(self.make(label, seed), number=len(self._cells))
        self._note(made.trial, (label, seed), made.number)
        return made

    def make(self, label: str, seed: int) -> Proposal:
        """An arm's trial of this seed, but for its number."""
        params = {ARM: label}
        trial = self.spec.trial(params, seed)
        return Proposal(0, trial.signature(), trial.arm(), seed, params, flatten(trial), "round", {})

    def _note(self, name: str, cell: Cell, number: int) -> None:
        self._cells[name] = cell
        self._places.add(cell)
        self._records[cell] = TrialRecord(name, number, "", cell[1], {ARM: cell[0]}, {}, "round", {}, 0.0)

    def _open(self, seed: int) -> list[str] | None:
        """The arms that replicate `seed` is run of; None while that is not known."""
        looks = [look for look in self.rules.looks if look <= seed]
        if not looks:
            return list(self.spec.arms)
        rounds = max(looks)
        if rounds not in self._decided:
            open_ = self._look(rounds)
            if open_ is None:
                return None
            self._decided[rounds] = open_
        return self._decided[rounds]

    def _look(self, rounds: int) -> list[str] | None:
        """The arms that go on after so many rounds; None while a trial of theirs has not ended."""
        before = [r for cell, r in self._records.items() if cell[1] < rounds]
        if any(record.status not in ENDED for record in before):
            return None
        base = self.rules.base
        others = [label for label in self.spec.arms if label != base]
        found = verdicts(self.rules, self._scores(others, rounds) - self._scores([base], rounds))
        going = {label for label, verdict in zip(others, found, strict=True) if not verdict.stopped}
        return [label for label in self.spec.arms if label in going or (label == base and going)]

    def _scores(self, labels: list[str], rounds: int) -> FloatArray:
        """(arms, rounds), NaN where there is none."""
        rows = []
        for label in labels:
            found = [score_of(self.rules, self._records.get((label, seed))) for seed in range(rounds)]
            rows.append([math.nan if score is None else score for score in found])
        return np.array(rows)
