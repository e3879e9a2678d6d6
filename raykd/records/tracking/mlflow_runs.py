"""MLflow: one run a trial, in one experiment a sweep. A tag holds which trial a run is of.

By default the runs go to a database in the sweep's folder: mlflow no longer writes folders of text files
unless it is told to, and SQLite is what it has instead.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from raykd.records.tracking.base import Place, Tracker
from raykd.records.tracking.run import INTERRUPTED, Run

DATABASE = "mlflow.db"
_ID, _SWEEP = "raykd.run", "raykd.sweep_key"
_STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    INTERRUPTED: "KILLED",
}
_MOST_METRICS, _MOST_PARAMS, _PAGE = 1000, 100, 1000  # of one request
_LONGEST_PARAM, _LONGEST_TAG = 500, 5000  # characters; later versions take more
_Values = dict[tuple[str, int], float]  # metric and step -> value
_NO_NAME = re.compile(r"[^\w\-. :/]")  # what a name of mlflow may not hold


class MlflowRuns(Tracker):
    """Writes runs by the `mlflow` package: to a database, a server, or a folder."""

    live = True

    def __init__(self, options: dict[str, Any], place: Place) -> None:
        local = f"sqlite:///{place.folder / DATABASE}"
        uri = options.get("uri") or os.environ.get("MLFLOW_TRACKING_URI") or local
        if uri.startswith("file:") or ":" not in uri:  # the user's own choice
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        name = options.get("experiment") or os.environ.get("MLFLOW_EXPERIMENT_NAME") or place.sweep
        self.where = f"{uri} {name}"
        self._client = MlflowClient(uri)
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage != "active":
            raise ValueError(
                f"the experiment {name!r} was deleted; `mlflow experiments restore`, or another name"
            )
        artifacts = (place.folder / "mlartifacts").as_uri() if uri == local else None
        self._experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(name, artifact_location=artifacts)
        )
        self._key = place.key
        self._runs: dict[str, list[str]] = {}  # run -> mlflow's ids of it; one, unless an answer was lost
        self._known = False  # whether these are all that there are
        self._open: set[str] = set()  # runs that this object knows to hold what it wrote

    def write(self, run: Run) -> None:
        if not self._known:
            self._runs, self._known = self._of_sweep(), True
        self._known = False  # until this is done: an answer of a server may be lost
        self._write(run)
        self._known = True

    def _write(self, run: Run) -> None:
        open_already = run.id in self._open
        self._open.discard(run.id)  # until it is known to hold all of this
        held = {} if open_already else self._take(run)
        at = self._runs[run.id][0]
        metrics = [metric for metric in _metrics(run) if (metric.key, metric.step) not in held]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(at, metrics=metrics[start : start + _MOST_METRICS])
        self._client.log_batch(at, tags=[RunTag(*tag) for tag in _tags(run).items()])
        if run.status == "running":
            if not open_already:
                self._client.update_run(at, status=_STATUS[run.status])
            self._open.add(run.id)
        else:
            ended = run.ended if run.ended is not None else max([run.started, *(e.time for e in run.epochs)])
            self._client.set_terminated(at, _STATUS[run.status], end_time=_milliseconds(ended))

    def _take(self, run: Run) -> _Values:
        """Find mlflow's run or make one, with its parameters. Returns the metrics that it holds.

        One that holds what its trial has not reported, or that cannot be read, is deleted first.
        """
        known = self._runs.get(run.id, [])
        first, held = None, _Values()
        if known and (found := self._held(known[0])) is not None and _part_of(found, run):
            first, held = known[0], found
        for other in known:
            if other != first:
                self._client.delete_run(other)
        if first is None:
            tags = {_ID: run.id, "mlflow.source.name": "raykd", **_tags(run)}
            made = self._client.create_run(
                self._experiment, _milliseconds(run.started), tags, run_name=run.name
            )
            first = made.info.run_id
        self._runs[run.id] = [first]
        there = self._client.get_run(first).data.params
        params = [Param(name, value) for name, value in _params(run).items() if name not in there]
        for at in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(first, params=params[at : at + _MOST_PARAMS])
        return held

    def _held(self, at: str) -> _Values | None:
        """The metrics that mlflow's run holds; None where a folder's file ends in half a line."""
        try:
            keys = self._client.get_run(at).data.metrics
            every = [metric for key in keys for metric in self._client.get_metric_history(at, key)]
        except (MlflowException, ValueError) as error:
            if "malformed" in str(error).lower():
                return None
            raise
        return {(metric.key, metric.step): metric.value for metric in every}

    def _of_sweep(self) -> dict[str, list[str]]:
        """The ids of the sweep's runs that mlflow holds, by run; the oldest first."""
        found: dict[str, list[str]] = defaultdict(list)
        token: str | None = None
        while token != "":
            page = self._client.search_runs(
                [self._experiment], f"tags.`{_SWEEP}` = '{self._key}'", max_results=_PAGE, page_token=token
            )
            for each in page:
                if _ID in each.data.tags:
                    found[each.data.tags[_ID]].append(each.info.run_id)
            token = page.token or ""
        return dict(found)


def _part_of(held: _Values, run: Run) -> bool:
    """Whether every metric in `held` is one of the run's. One that is not finite may come back otherwise."""
    wanted = {(metric.key, metric.step): metric.value for metric in _metrics(run)}
    return all(
        at in wanted and (wanted[at] == value or not math.isfinite(wanted[at])) for at, value in held.items()
    )


def _metrics(run: Run) -> list[Metric]:
    return [
        Metric(_name(name), value, _milliseconds(each.time), each.epoch)
        for each in run.epochs
        for name, value in each.scalars.items()
    ]


def _params(run: Run) -> dict[str, str]:
    return {_name(name): _text(value)[:_LONGEST_PARAM] for name, value in run.config.items()}


def _tags(run: Run) -> dict[str, str]:
    found = {"kind": run.kind, "status": run.status, **run.facts}
    return {f"raykd.{_name(name)}": _text(value)[:_LONGEST_TAG] for name, value in found.items()}


def _name(name: str) -> str:
    return _NO_NAME.sub("_", name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
