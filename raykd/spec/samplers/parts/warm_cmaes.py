"""CMA-ES that begins where earlier trials were best (WS-CMA-ES, Nomura et al. 2021, arXiv 2012.06932).

Optuna's own `source_trials` wants trials with exactly the axes that CMA-ES models. Trials of a space with
picks have others as well, which are left out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

_LEAST = 10  # trials, for the best tenth to be one


class WarmCMAES(CmaEsSampler):
    """`CmaEsSampler` for a study that begins with `earlier` trials of other sweeps."""

    def __init__(self, earlier: Sequence[FrozenTrial], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._earlier = earlier

    def _init_optimizer(self, trans: Any, direction: Any) -> Any:
        """The first distribution; with too few earlier trials on these axes it is that of a cold start."""
        axes = trans._search_space
        sources = [
            create_trial(
                value=trial.value,
                params={name: trial.params[name] for name in axes},
                distributions={name: trial.distributions[name] for name in axes},
            )
            for trial in self._earlier
            if axes.keys() <= trial.params.keys() and self._counts(trial)
        ]
        self._source_trials = sources if len(sources) >= _LEAST else None
        return super()._init_optimizer(trans, direction)

    def _counts(self, trial: FrozenTrial) -> bool:
        stopped = trial.state == TrialState.PRUNED and self._consider_pruned_trials
        return (trial.state == TrialState.COMPLETE or stopped) and trial.value is not None
