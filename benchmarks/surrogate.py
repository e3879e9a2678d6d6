"""Recorded curves of a search space (`record_curves.py`), and a surrogate that has a curve for any trial.

    world = Surrogate(load("quickstart"))
    world.curve(params, salt=0)      # a score for each epoch

A curve of the surrogate is what a regression says of the configuration, plus the residual curve of a recorded
trial: one of those of which it said about the same last score, drawn by a hash of the configuration and
`salt`. So a curve has the trend of its configuration, and the scatter and the wiggles of real ones. The
residuals are those of trials that the regression had not seen. They hold its own error too, which makes the
surrogate noisier than real trials are: what is near a good configuration is less surely good.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold, cross_val_predict

from raykd.spec.axis_kinds import Log, Pick
from raykd.spec.search import SearchSpec, load_sweep
from raykd.spec.space import METHOD

FOLDER = Path(__file__).resolve().parent / "curves"
ALIKE = 10  # recorded trials that a residual is drawn from


@dataclass(frozen=True)
class Curves:
    """The recorded trials of a search space that reached their last epoch."""

    spec: SearchSpec
    params: list[dict[str, Any]]
    scores: np.ndarray  # (trials, epochs)
    failed: int  # left out


def load(name: str) -> Curves:
    """What `record_curves.py` recorded in `benchmarks/curves/NAME.parquet`."""
    table = pq.read_table(FOLDER / f"{name}.parquet")
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    spec, rows = load_sweep(about["space"], json.loads(about["overrides"])), table.to_pylist()
    whole = [row for row in rows if len(row["scores"]) == spec.epochs]
    params = [json.loads(row["params"]) for row in whole]
    scores = np.array([row["scores"] for row in whole], dtype=np.float64)
    return Curves(spec, params, scores, len(rows) - len(whole))


class Surrogate:
    """A regression on recorded curves, and their residuals."""

    def __init__(self, curves: Curves) -> None:
        self.curves, self._axes = curves, curves.spec.space.axes
        self._x = np.array([self._features(params) for params in curves.params])
        folds = KFold(10, shuffle=True, random_state=0)
        self._model = _regression()
        self.unseen = cross_val_predict(_regression(), self._x, curves.scores, cv=folds)
        self._residuals = curves.scores - self.unseen
        self._model.fit(self._x, curves.scores)

    @property
    def error(self) -> tuple[float, float, float]:
        """Of last scores of unseen trials: points (RMSE), the scores' own deviation, rank correlation."""
        last, said = self.curves.scores[:, -1], self.unseen[:, -1]
        rmse = float(np.sqrt(np.mean((last - said) ** 2)))
        return rmse, float(last.std()), float(spearmanr(last, said).statistic)

    def curve(self, params: Mapping[str, Any], salt: int) -> np.ndarray:
        """(epochs,) scores of a configuration; `salt` draws another residual."""
        text = json.dumps(params, sort_keys=True)
        x = self._features(params)
        drawn = int.from_bytes(hashlib.sha256(f"{salt} {text}".encode()).digest()[:4], "big")
        # The trees themselves: `predict` of the forest takes 20 times as long for one configuration.
        trees = [one.tree_.predict(x[None].astype(np.float32))[0, :, 0] for one in self._model.estimators_]
        said: np.ndarray = np.mean(trees, axis=0)
        alike = np.argsort(np.abs(self.unseen[:, -1] - said[-1]))[:ALIKE]
        return said + self._residuals[alike[drawn % len(alike)]]

    def _features(self, params: Mapping[str, Any]) -> np.ndarray:
        """Each axis in 0..1, logarithmic ones by their logarithm; a column a level of a pick; else 0."""
        found: list[float] = []
        for name, axis in {METHOD: None, **self._axes}.items():
            value = params.get(name)
            if axis is None or isinstance(axis, Pick):
                levels = self.curves.spec.methods if axis is None else axis.pick
                found += [float(value == level) for level in levels]
            elif value is None:
                found.append(0.0)
            else:
                at = [math.log(v) if isinstance(axis, Log) else v for v in (*axis.extremes()[:2], value)]
                found.append((at[2] - at[0]) / (at[1] - at[0]))
        return np.array(found)


def _regression() -> ExtraTreesRegressor:
    return ExtraTreesRegressor(n_estimators=200, random_state=0, n_jobs=1)
