"""Notices that trials fail one after another for one reason, which is then hardly theirs.

A library that does not load, a folder that a node does not see, a full temporary folder: every next trial
would fail as the last one did, until none is left. A sweep that notices this stops, and says the reason.
"""

from __future__ import annotations

import re

from raykd.records.history import TrialRecord
from trainables.core.errors import SweepFailed

_LONGER = 3  # times as many once a trial has ended well: the sweep can work, and these trials may be why
# What differs between trials that fail for one reason: trials' names, numbers, losses that are no number.
_VARIES = re.compile(r"\b[0-9a-f]{8}\b|\d+(?:[.,]\d+)*(?:e[+-]?\d+)?|\b(?:nan|[-+]?inf)\b", re.IGNORECASE)


class FailureStreak:
    """The trials that failed last, as long as they fail alike and no trial ends otherwise.

    The sweep should stop after `most` of them (None: never); after three times as many once a trial has ended
    well. They have to be of `most` settings, or of all `settings` that a sweep has, if these are
    fewer: one setting that cannot work fails once for every seed.
    """

    def __init__(self, most: int | None, settings: int) -> None:
        self._most = most
        self._settings = settings
        self._worked = False  # whether a trial has ended well
        self.trials: list[TrialRecord] = []

    def add(self, trial: TrialRecord) -> None:
        """Take in a trial that has ended."""
        if trial.status != "failed":
            self._worked = True
            self.trials = []
            return
        if self.trials and _pattern(self.trials[-1]) != _pattern(trial):
            self.trials = []
        self.trials.append(trial)

    def check(self) -> None:
        """Raise `SweepFailed` if the sweep should stop."""
        if self.reason is not None:
            raise SweepFailed(self.reason)

    @property
    def reason(self) -> str | None:
        """Why the sweep should stop; None while it should not."""
        if self._most is None:
            return None
        most = self._most * (_LONGER if self._worked else 1)
        arms = {trial.arm for trial in self.trials}
        if len(self.trials) < most or len(arms) < min(self._most, self._settings):
            return None
        lanes = {trial.lane for trial in self.trials}
        where = f", all on {next(iter(lanes))}" if len(lanes) == 1 else ""
        return f"{len(self.trials)} trials in a row failed alike{where}: {self.trials[-1].reason}"


def _pattern(trial: TrialRecord) -> str:
    """Its reason without what differs from trial to trial."""
    return _VARIES.sub("#", trial.reason or "")
