"""Logistic regression, the usual linear probe, for a final score."""

from __future__ import annotations

import warnings
from typing import Any

from trainables.evaluation.probes.base import Features, Probe, ProbeResult

_STEPS = 1000  # of the optimizer at most


class Logistic(Probe):
    """scikit-learn's logistic regression (C = 1) on standardised features."""

    label = "logistic"
    summary = "logistic regression, for a final score (slow), percent"
    slow = True

    def score(self, features: Features, draws: int, seed: int) -> ProbeResult:
        """Percent of validation images that are classified right."""
        import numpy as np
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        from trainables.evaluation.ridge_regression import standardise

        x, x_val = (part.cpu().numpy() for part in standardise(features.train, features.val))
        y, y_val = features.train_labels.cpu().numpy(), features.val_labels.cpu().numpy()
        if len(np.unique(y)) == 1:  # scikit-learn refuses to fit one class
            return ProbeResult(100 * float((y_val == y[0]).mean()))
        model: Any = LogisticRegression  # scikit-learn has no types
        with warnings.catch_warnings():
            # A fit that is cut off does so for every trial, and is good to a tenth of a percent.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = model(max_iter=_STEPS).fit(x, y)
        return ProbeResult(100 * float(fitted.score(x_val, y_val)))
