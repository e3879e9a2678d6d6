"""TensorBoard's files, written from the ledger: `tensorboard --logdir SWEEP/tensorboard`.

One run a trial, `tensorboard/TRIAL/`: at its start an HParams session with the whole flat config, after each
epoch its scalars, at its end its true status. One experiment summary in `tensorboard/` itself declares the
axes with their domains. (Ray's own logger writes one a trial, of which TensorBoard shows the first.)

A run's file follows from the trial's records, in their order. So after a crash the whole events in it are
kept, a torn one is cut off, and what is missing is appended. A TensorBoard that is open sees the file grow.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

from raykd.records.evaluations import column_of, current, trial_scores
from raykd.records.history import ENDED, History, TrialRecord
from raykd.records.ledger import Record
from raykd.records.scalars import scalars
from raykd.spec.axis import Axis
from raykd.spec.sweep import SweepSpec
from trainables.core.files import opened, own_folder, read_bytes, replacing

FOLDER = "tensorboard"
METRICS = {  # the columns beside the axes: few, because every table and plot has all of them
    "score": ("best score", "the best epoch so far"),
    "last": ("last score", "the last epoch"),
    "epoch": ("epochs", "epochs finished"),
}
SIZE_METRICS = {  # of a sweep whose students may differ
    "size/params": ("parameters", "of the student, as it is exported"),
    "size/macs": ("multiply-adds", "of the student, for one image"),
    "size/latency": ("latency", "of the student's forward pass, milliseconds"),
}
_OPENING = 2  # events of a run before its first epoch
_LATENCY = "latency"
_VERSION = "brain.Event:2"  # the first event of every file
_STATUS = {
    "finished": api_pb2.STATUS_SUCCESS,
    "stopped": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
}


class TensorBoardWriter:
    """A listener of the recorder: appends every record that TensorBoard shows to its file."""

    def __init__(self, folder: Path, spec: SweepSpec) -> None:
        """`folder` is the sweep's; files go to `folder/tensorboard`."""
        self.folder = folder / FOLDER
        self.space = spec.space
        self.weighed = bool(getattr(spec, "objective", ()) or getattr(spec, "limits", None))
        self.seeds = spec.replicates
        self._begun: set[str] = set()
        self._declared: set[str] = set()  # the tasks that have a column

    def __call__(self, record: Record, history: History) -> None:
        """A record was written; `history` holds it already."""
        kind = record["kind"]
        if kind == "evaluated":
            self.evaluated(record, history)
        elif kind == "latency":
            self.measured(record, history)
        elif kind in ("start", "report", "end"):
            trial = history.trials[record["trial"]]
            if kind == "start":
                self.begin(trial)
            elif kind == "report" and trial.times.get(record["epoch"]) == record["time"]:  # not a repetition
                self.report(trial, record["epoch"])
            elif kind == "end" and trial.ended == record["time"]:
                self.end(trial)

    def begin(self, trial: TrialRecord) -> None:
        """Open the trial's run. A further attempt at the trial continues the same run."""
        if trial.trial not in self._begun:
            self._begun.add(trial.trial)
            _write(self._path(trial), "ab", self._opening(trial, None))

    def report(self, trial: TrialRecord, epoch: int) -> None:
        """Add the scalars of an epoch."""
        self.begin(trial)
        _write(self._path(trial), "ab", [_epoch(trial, epoch)])

    def end(self, trial: TrialRecord) -> None:
        """Add how the trial ended."""
        self.begin(trial)
        _write(self._path(trial), "ab", [_end(trial)])

    def evaluated(self, record: Record, history: History) -> None:
        """Add the score of a task to the run of its trial, and its column where that is new."""
        trial = history.trials.get(record["trial"] or "")
        if trial is None or record["reason"] is not None:
            return
        events = _evaluations(_by_trial(history)[trial.trial])
        self.begin(trial)
        _write(self._path(trial), "ab", events[-1:])
        if not self._declared.issuperset(_columns(history)):
            self._declare(history)

    def measured(self, record: Record, history: History) -> None:
        """Add the latency of a student to the runs of its trials that have begun."""
        for trial in history.trials.values():
            if (event := _latency(trial, record)) is not None:
                self.begin(trial)
                _write(self._path(trial), "ab", [event])

    def rebuild(self, history: History) -> None:
        """Make all files as `history` says. What is right in them stays."""
        own_folder(self.folder)
        self._declare(history)
        evaluated = _by_trial(history)
        for trial in history.trials.values():
            ended = trial.status in ENDED
            if trial.started is None and not ended:
                continue
            self._begun.add(trial.trial)
            path = self._path(trial)
            results = evaluated.get(trial.trial, [])
            later = _latency(trial, history.latencies.get(trial.student))
            wanted = _OPENING + len(trial.reports) + ended + len(results) + (later is not None)
            whole, size = _whole_events(path)
            if whole > wanted:  # of another sweep: the folder was copied or edited by hand
                whole = size = 0
            if path.exists() and path.stat().st_size != size:
                with opened(path, "rb+") as file:
                    file.truncate(size)
            if whole < wanted:
                _write(path, "ab", self._events(trial, results, later)[whole:])

    def _events(self, trial: TrialRecord, results: Iterable[Record], later: Event | None) -> list[Event]:
        found = [_epoch(trial, epoch) for epoch in trial.reports]  # in the order in which they came
        found += [_end(trial)] if trial.status in ENDED else []
        found += _evaluations(results)
        if later is not None:
            after = (at for at, event in enumerate(found) if event.wall_time > later.wall_time)
            found.insert(next(after, len(found)), later)
        return [*self._opening(trial, later), *found]

    def _opening(self, trial: TrialRecord, later: Event | None) -> list[Event]:
        """The first events; without the latency where it was measured `later`."""
        began = trial.started if trial.started is not None else trial.suggested
        axes = self.space.axes
        values = {name: _plain(value) for name, value in trial.config.items() if name not in axes}
        # A conditional axis that this trial does not have is an empty cell.
        for name, axis in axes.items():
            if name in trial.params:
                values[name] = _of_type(_levels(axis), axis.encode(trial.params[name]))
        session = summary_v2.hparams_pb(values, trial_id=trial.trial, start_time_secs=began)
        for name, size in trial.size.items():
            if name != _LATENCY or later is None:
                session.value.add(tag=f"size/{name}", simple_value=size)
        return [
            Event(wall_time=began, file_version=_VERSION),
            Event(wall_time=began, step=0, summary=session),
        ]

    def _declare(self, history: History) -> None:
        """The one experiment summary."""
        created = history.sweep["time"] if history.sweep else 0.0
        infos = []
        for name, axis in self.space.axes.items():
            info = api_pb2.HParamInfo(name=name, description=axis.describe())
            _domain(axis).update_hparam_info(info)
            # Columns that "differ" come first and are shown. An axis with empty cells comes last, because the
            # plot of parallel coordinates leaves out every trial without a value in a shown column.
            info.differs = not self.space.conditions[name]
            infos.append(info)
        if len(self.seeds) > 1:
            info = api_pb2.HParamInfo(name="seed", description="replicate", differs=True)
            summary_v2.Discrete([float(seed) for seed in self.seeds]).update_hparam_info(info)
            infos.append(info)
        differ = self.weighed or any(name.partition(".")[0] == "student" for name in self.space.axes)
        tasks = _columns(history)
        self._declared = set(tasks)
        shown = {
            **METRICS,
            **(SIZE_METRICS if differ else {}),
            **{tag: (tag, "on the test split, the mean over the suite's seeds") for tag in tasks},
        }
        metrics = [
            summary_v2.Metric(tag, display_name=name, description=description)
            for tag, (name, description) in shown.items()
        ]
        experiment = api_pb2.Experiment(
            hparam_infos=infos, metric_infos=[m.as_proto() for m in metrics], time_created_secs=created
        )
        data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
        events = [
            Event(wall_time=created, file_version=_VERSION),
            Event(wall_time=created, summary=_summary(metadata.EXPERIMENT_TAG, data)),
        ]
        with replacing(self.folder / _name(0, "sweep")) as temporary:
            _write(temporary, "wb", events)

    def _path(self, trial: TrialRecord) -> Path:
        began = trial.started if trial.started is not None else trial.suggested
        return self.folder / trial.trial / _name(began, trial.trial)


def _epoch(trial: TrialRecord, epoch: int) -> Event:
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(trial, epoch).items()]
    return Event(wall_time=trial.times[epoch], step=epoch, summary=Summary(value=values))


def _latency(trial: TrialRecord, record: Record | None) -> Event | None:
    """The latency of its student, if it was measured after the trial had begun; else None."""
    began = trial.started if trial.started is not None else trial.ended
    if record is None or trial.student != record["student"] or began is None or began > record["time"]:
        return None
    value = float(record["metrics"].get("median_ms", math.nan))
    summary = Summary(value=[Summary.Value(tag=f"size/{_LATENCY}", simple_value=value)])
    return Event(wall_time=record["time"], step=0, summary=summary)


def _by_trial(history: History) -> dict[str, list[Record]]:
    """The results of tasks on each trial's student."""
    found: dict[str, list[Record]] = {}
    for record in current(history.evaluated):
        if record["trial"]:
            found.setdefault(record["trial"], []).append(record)
    return found


def _evaluations(results: Iterable[Record]) -> list[Event]:
    """A scalar for each result of a task on a student: the mean so far, so that the last one is the mean."""
    events, found = [], dict[str, list[float]]()
    for record in results:
        scores = found.setdefault(column_of(record), [])
        scores.append(record["metrics"].get("score", math.nan))
        value = Summary.Value(tag=column_of(record), simple_value=fmean(scores))
        events.append(Event(wall_time=record["time"], step=len(scores), summary=Summary(value=[value])))
    return events


def _columns(history: History) -> list[str]:
    """The tasks that a trial's student was evaluated on, as columns."""
    return list(trial_scores(history.evaluated))


def _end(trial: TrialRecord) -> Event:
    ended = trial.ended or 0.0
    info = plugin_data_pb2.SessionEndInfo(status=_STATUS[trial.status], end_time_secs=ended)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    return Event(wall_time=ended, step=trial.epoch, summary=_summary(metadata.SESSION_END_INFO_TAG, data))


def _summary(tag: str, data: plugin_data_pb2.HParamsPluginData) -> Summary:
    # As `summary_v2` does for session starts. TensorBoard's function for session ends needs TensorFlow.
    value = Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )
    return Summary(value=[value])


def _levels(axis: Axis) -> list[Any] | None:
    """The levels of a discrete axis; None for an interval."""
    return list(axis.domain.values) if axis.domain.kind == "discrete" else None


def _type(levels: list[Any] | None) -> type:
    """The type of an axis for TensorBoard, which allows one: text if the levels have several types."""
    kinds = {float if type(level) in (int, float) else type(level) for level in levels or [0.0]}
    kind = kinds.pop()
    return kind if not kinds and kind in (bool, float, str) else str


def _of_type(levels: list[Any] | None, value: Any) -> bool | float | str:
    kind = _type(levels)
    plain = _plain(value)
    if kind is str:
        return plain if isinstance(plain, str) else json.dumps(plain)
    return float(plain) if kind is float and isinstance(plain, int | float) else plain


def _domain(axis: Axis) -> summary_v2.Domain:
    levels = _levels(axis)
    if levels is None:
        low, high = axis.domain.values
        return summary_v2.RealInterval(float(low), float(high))
    return summary_v2.Discrete([_of_type(levels, level) for level in levels], dtype=_type(levels))


def _plain(value: Any) -> bool | float | str:
    """A value as HParams takes it: lists and mappings are JSON, None is `none`."""
    if value is None:
        return "none"
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _name(time: float, name: str) -> str:
    return f"events.out.tfevents.{int(time):010d}.{name}"


def _write(path: Path, mode: str, events: Iterable[Event]) -> None:
    own_folder(path.parent)
    with opened(path, mode) as file:
        for event in events:
            data = event.SerializeToString()
            length = struct.pack("<Q", len(data))
            file.write(b"".join([length, _checksum(length), data, _checksum(data)]))


def _checksum(data: bytes) -> bytes:
    """The masked CRC-32C of TFRecord files. TensorBoard's own function takes 0.1 ms a kilobyte."""
    crc = int(google_crc32c.value(data))
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _whole_events(path: Path) -> tuple[int, int]:
    """(number of whole events at the beginning of the file, bytes they take)."""
    if not path.exists():
        return 0, 0
    data = read_bytes(path)
    count = size = 0
    while size + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, size)
        end = size + 12 + length + 4
        if _checksum(data[size : size + 8]) != data[size + 8 : size + 12] or end > len(data):
            break
        if _checksum(data[size + 12 : end - 4]) != data[end - 4 : end]:
            break
        count, size = count + 1, end
    return count, size
