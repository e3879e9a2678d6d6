"""The proposer of a study. It goes round by round: every open arm gets a replicate before any gets the next.

It has the methods of `Proposer`. In a fixed study all arms stay open to the end. A sequential study looks
after the rounds that its rules name, once all trials of these rounds have ended. It then closes the arms that
have an answer; the base stays open while another arm does. Proposals depend on the spec, on earlier proposals
and on the results of the rounds before a look, and on nothing else. So a `Rounds` that is rebuilt from a
history goes on as the one that wrote it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from raykd.ablation.conclusions import extended_rules, score_of, verdicts
from raykd.records.history import ENDED, History, TrialRecord
from raykd.searching.proposer import WAIT, Proposal, Wait
from raykd.searching.refusals import size_of
from raykd.spec.arms import ARM
from raykd.spec.size_sections import student_key
from raykd.spec.study import StudySpec
from raykd.stats.paired import FloatArray
from trainables.training.flat_names import flatten

Cell = tuple[str, int]  # arm, replicate


def rounds_used(spec: StudySpec, history: History) -> int:
    """How many rounds, from the first, the looks of a study have used.

    A look was taken if a later round has begun, or if the study ended at it before its last round.
    """
    begun = max((trial.replicate + 1 for trial in history.trials.values()), default=0)
    ended = history.exhausted and begun < history.samples // len(spec.arms)
    looks = extended_rules(spec, history).looks
    return max((look for look in looks if look < begun or (ended and look == begun)), default=0)


class Rounds:
    """Proposes at most `samples` trials (arm, seed), seed by seed."""

    def __init__(self, spec: StudySpec, samples: int | None = None) -> None:
        self.spec = spec
        self.rules = spec.study
        self.samples = spec.samples if samples is None else samples
        self._cells: dict[str, Cell] = {}  # trial -> its cell, in the order of proposal
        self._records: dict[Cell, TrialRecord] = {}  # results so far
        self._places: set[Cell] = set()
        self._closed = False
        self._decided: dict[int, list[str]] = {}  # rounds -> the arms that stay open after them

    @property
    def exhausted(self) -> bool:
        """Whether the study has ended with fewer trials than `samples`."""
        return self._closed

    def propose(self) -> Proposal | Wait | None:
        """The next trial; `WAIT` until a round has ended; None when nothing is left to run."""
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
        """Take over the trials of a history. Those that have not ended count as running."""
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
        """The arm's trial of this seed, with the next number."""
        made = replace(self.make(label, seed), number=len(self._cells))
        self._note(made.trial, (label, seed), made.number)
        return made

    def make(self, label: str, seed: int) -> Proposal:
        """The arm's trial of this seed, with number 0."""
        params = {ARM: label}
        trial = self.spec.trial(params, seed)
        size = size_of(self.spec, trial, params)
        name, arm, config = trial.signature(), trial.arm(), flatten(trial)
        return Proposal(0, name, arm, seed, params, config, "round", {}, student_key(trial), size)

    def _note(self, name: str, cell: Cell, number: int) -> None:
        """Remember that this trial was proposed."""
        self._cells[name] = cell
        self._places.add(cell)
        self._records[cell] = TrialRecord(name, number, "", cell[1], {ARM: cell[0]}, {}, "round", {}, 0.0)

    def _open(self, seed: int) -> list[str] | None:
        """The arms that get replicate `seed`; None while a look that decides it is not due."""
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
        """The arms that stay open after so many rounds; None while a trial of these rounds runs."""
        before = [r for cell, r in self._records.items() if cell[1] < rounds]
        if any(record.status not in ENDED for record in before):
            return None
        base = self.rules.base
        others = [label for label in self.spec.arms if label != base]
        found = verdicts(self.rules, self._scores(others, rounds) - self._scores([base], rounds))
        going = {label for label, verdict in zip(others, found, strict=True) if not verdict.stopped}
        return [label for label in self.spec.arms if label in going or (label == base and going)]

    def _scores(self, labels: list[str], rounds: int) -> FloatArray:
        """Scores (arms, rounds) in points, NaN where there is none."""
        rows = []
        for label in labels:
            found = [score_of(self.rules, self._records.get((label, seed))) for seed in range(rounds)]
            rows.append([math.nan if score is None else score for score in found])
        return np.array(rows)
