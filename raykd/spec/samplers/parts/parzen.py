"""Optuna's Parzen estimator with the same densities, to the last bit, in less time.

The densities of 24 candidates under 5,000 kernels are most of what a proposal of TPE costs. Optuna computes
them over a cube (candidates, kernels, axes), in a dozen temporary arrays of its size. Here each axis is added
in place, in Optuna's order of operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import _BatchedCategoricalDistributions

_MOST_AXES = 7  # numpy adds up more numbers than these in another order


class Parzen(_ParzenEstimator):
    """`_ParzenEstimator` of Optuna."""

    def log_pdf(self, samples_dict: dict[str, Any]) -> Any:
        """(candidates,) the logarithm of each candidate's density."""
        mixture, at = self._mixture_distribution, self._transform(samples_dict)
        kinds = mixture.distributions
        spans = [
            (kind, np.log(at[:, i]) if kind.is_log else at[:, i])
            for i, kind in enumerate(kinds)
            if not isinstance(kind, _BatchedCategoricalDistributions)
        ]
        inside = all(
            kind.step == 0.0 and (kind.adapted_low <= x).all() and (x <= kind.adapted_high).all()
            for kind, x in spans
        )
        if not inside or len(spans) > _MOST_AXES:
            return super().log_pdf(samples_dict)
        total = np.zeros((len(at), len(mixture.weights)))
        for i, kind in enumerate(kinds):
            if isinstance(kind, _BatchedCategoricalDistributions):
                total += np.log(kind.weights.T)[at[:, i].astype(np.int64)]
        if spans:
            total += _spans(spans)
        total += np.log(mixture.weights[np.newaxis])
        most = total.max(axis=1)
        most[np.isneginf(most)] = 0
        total -= most[:, None]
        with np.errstate(divide="ignore"):
            return np.log(np.exp(total, out=total).sum(axis=1)) + most


def _spans(spans: list[tuple[Any, Any]]) -> Any:
    """(candidates, kernels) the logarithm of the product of truncated normal densities over axes."""
    mus = np.asarray([kind.mu for kind, _ in spans]).T
    sigmas = np.asarray([kind.sigma for kind, _ in spans]).T
    low = np.asarray([kind.adapted_low for kind, _ in spans])
    high = np.asarray([kind.adapted_high for kind, _ in spans])
    masses = _truncnorm._log_gauss_mass((low - mus) / sigmas, (high - mus) / sigmas)
    scales = np.log(sigmas)
    total = np.zeros((len(spans[0][1]), len(mus)))
    one = np.empty_like(total)
    for axis, (kind, x) in enumerate(spans):
        np.subtract(x[:, None], kind.mu, out=one)
        one /= kind.sigma
        np.multiply(one, one, out=one)
        one *= -0.5
        one -= _truncnorm._norm_pdf_logC
        one -= masses[:, axis]
        one -= scales[:, axis]
        total += one
    return total
