"""The numbers of an epoch as TensorBoard and the experiment trackers show them, by the same names."""

from __future__ import annotations

import math

from raykd.records.history import TrialRecord


def scalars(trial: TrialRecord, epoch: int) -> dict[str, float]:
    """Of a reported epoch: `score` is the best so far, `last` this epoch's score; the rest is as reported."""
    metrics = dict(trial.reports[epoch])
    last, best = metrics.pop("score", math.nan), trial.best_at(epoch)
    found = {"epoch": float(epoch)}
    if best is not None:
        found["score"] = best
    if math.isfinite(last):  # pages that read JSON would take a NaN for text
        found["last"] = last
    return {**found, **metrics}
