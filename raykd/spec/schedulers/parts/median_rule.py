"""Tune's median stopping rule with the same verdicts, at a cost that does not grow with the trials."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from typing import Any

import numpy as np
from ray.tune.schedulers import MedianStoppingRule, TrialScheduler


class MedianRule(MedianStoppingRule):
    """`MedianStoppingRule` for epochs and finite scores that are to be maximised.

    Tune computes the mean score of every other trial anew at each report. But a trial that has reached an
    epoch has one mean up to this epoch for ever. So each mean is computed once, and the means of an epoch are
    kept sorted. A trial that reports an earlier epoch after a later one would change its mean: from then on
    Tune's own code decides.
    """

    def __init__(self, **settings: Any) -> None:
        """`settings` are those of Tune's rule."""
        super().__init__(**settings)
        self._means: dict[int, list[float]] = defaultdict(list)  # epoch -> each trial's mean up to it, sorted
        self._in_order = True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The verdict on a report."""
        own = self._results[trial]
        before = int(own[-1][self._time_attr]) if own else 0
        epoch = int(result[self._time_attr])
        # A replay may feed what followed a stop: the driver, with all records, had let the trial go on.
        self._stopped_trials.discard(trial)
        self._in_order = self._in_order and before < epoch
        if not self._in_order:
            return str(super().on_trial_result(tune_controller, trial, result))
        for passed in range(before + 1, epoch):
            self._keep_mean(trial, passed)
        own.append(result)
        verdict = TrialScheduler.CONTINUE
        if epoch >= self._grace_period:
            means = self._means[epoch]  # not yet with that of this trial
            best = max(report[self._metric] for report in own)
            if len(means) >= self._min_samples_required and best < _median(means):
                self._stopped_trials.add(trial)
                verdict = TrialScheduler.STOP
        self._keep_mean(trial, epoch)
        return str(verdict)

    def _keep_mean(self, trial: Any, epoch: int) -> None:
        mean = float(self._running_mean(trial, epoch))
        if np.isfinite(mean):
            insort(self._means[epoch], mean)


def _median(ordered: list[float]) -> float:
    """The median of sorted numbers, to the last bit as `np.median` gives it."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else float(np.mean(ordered[half - 1 : half + 1]))
