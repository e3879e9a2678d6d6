"""Logistic regression, the usual linear probe, for a final score."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from trainables.evaluation.probes.base import Features, Probe, ProbeResult

if TYPE_CHECKING:
    from torch import Tensor

_STEPS = 1000  # of the optimizer at most


class Logistic(Probe):
    """scikit-learn's logistic regression (C = 1) on standardised features."""

    label = "logistic"
    summary = "logistic regression, for a final score (slow), percent"
    slow = True

    def score(self, features: Features, draws: int, seed: int) -> ProbeResult:
        """Percent of validation images that are classified right."""
        right = self.hits(features, draws, seed)
        return ProbeResult(100 * float(right.mean()))

    def hits(self, features: Features, draws: int, seed: int) -> Tensor:
        """(M,) float64: 1 for a validation image that is classified right, else 0."""
        return fitted_hits(features, 1.0)


def fitted_hits(features: Features, strength: float) -> Tensor:
    """(M,) float64: which validation images a fit with the inverse strength C = `strength` classifies right.

    scikit-learn fits, on the CPU.
    """
    import numpy as np
    import torch
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    from trainables.evaluation.ridge_regression import standardise

    x, x_val = (part.cpu().numpy() for part in standardise(features.train, features.val))
    y, y_val = features.train_labels.cpu().numpy(), features.val_labels.cpu().numpy()
    if len(np.unique(y)) == 1:  # scikit-learn refuses to fit one class
        return torch.from_numpy(y_val == y[0]).double()
    model: Any = LogisticRegression  # scikit-learn has no types
    with warnings.catch_warnings():
        # A fit that is cut off does so for every trial, and is good to a tenth of a percent.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = model(C=strength, max_iter=_STEPS).fit(x, y)
    return torch.from_numpy(fitted.predict(x_val) == y_val).double()
