"""Runs a sweep from its spec to its results: run, resume, extend.

The ledger is the only source of a sweep's state. A new driver replays it into sampler, scheduler and views,
and lets Tune run what is left. No state that Tune keeps is read again.
"""

from __future__ import annotations

import logging
import platform
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from os import getpid
from pathlib import Path
from typing import Any

from raykd.console.live import Console
from raykd.lanes import capacity
from raykd.lanes.actions import ACTIONS
from raykd.lanes.cluster import (
    LOCAL,
    check_joinable,
    connected,
    live_nodes,
    ray_address,
    send_logs,
    this_machine,
)
from raykd.lanes.demand import autoscaler_makes_room
from raykd.lanes.plugin_nodes import check_nodes
from raykd.process import signals, streams
from raykd.process.version import version
from raykd.records.earlier import Earlier
from raykd.records.format import FORMAT
from raykd.records.history import History, missing
from raykd.records.ledger import Ledger, refuse_lost
from raykd.records.recorded_spec import check_settings, spec_of
from raykd.records.recorder import Listener, Recorder
from raykd.records.views import refresh
from raykd.runs import tracking
from raykd.runs.budget import check_measures
from raykd.runs.changed_spec import (
    other_device,
    other_versions,
    refuse_changed_spec,
    refuse_other_inputs,
    refuse_other_samplers,
    unlike_today,
    with_changes,
)
from raykd.runs.drive import Drive, Replayed
from raykd.runs.evaluation import Evaluation, evaluable, pending
from raykd.runs.kinds import run_of
from raykd.runs.latencies import unmeasured
from raykd.runs.source import Source as Source
from raykd.spec.plugins import code_of, refuse_changed_code
from raykd.spec.sweep import SweepSpec
from raykd.spec.sweep_fields import MOST_TRIALS
from raykd.spec.tracking import check_installed
from raykd.spec.validate import check_resources
from raykd.storage.base import SweepFolder
from raykd.storage.cache import ready_cache
from raykd.storage.commands import command
from raykd.storage.new_sweep import LOG, removed_if_empty
from trainables.core import storage_retry
from trainables.core.errors import SweepFailed, UserError
from trainables.core.plugins import described, load

log = logging.getLogger("raykd.runs.sweep")
_LAST_WORD_S = 10.0  # wait for the storage at the end of a driver, which may end because the storage is lost


@dataclass(frozen=True)
class Place:
    """Where a sweep is run, and what its lanes can do (`actions`): the engine runs any trainable."""

    sweep: SweepFolder
    address: str | None = None  # of a Ray cluster
    actions: Mapping[str, str] = field(default_factory=lambda: ACTIONS)


def run(spec: SweepSpec, place: Place, console: Console, source: Source | None = None) -> History:
    """Run a new sweep. `source` is recorded for `resume`.

    Raises `UserError` if its folder holds a sweep already, and if the cluster can never hold its workers.
    """
    from raykd.searching.proposer import sampler_arguments

    _listen(console)
    place.sweep.own()
    if place.sweep.has_ledger():
        if Ledger.read(place.sweep):
            raise _there_is_one(spec, place.sweep)
    else:
        place.sweep.discard_copy()
    refuse_lost(place.sweep)
    earlier = run_of(spec).earlier(place.sweep)
    code = code_of(spec)
    # The cluster first: where it cannot hold a worker, no sweep is left behind.
    with (
        removed_if_empty(place.sweep) as clear,
        signals.cleared(clear),
        _cluster(spec, place, console) as cluster,
        Ledger.create(place.sweep) as ledger,
    ):
        recorder = Recorder(ledger, History())
        for _ in range(2):  # twice, because `repair` can make every other record again
            recorder(
                "sweep",
                spec=spec.model_dump(mode="json"),
                spec_hash=spec.hash(),
                source=source and source.recorded(),
                sampler={"name": spec.sampler.name, "arguments": sampler_arguments(spec)},
                scheduler=spec.scheduler.model_dump(mode="json"),
                versions=versions(),
                format=FORMAT,
                **({"plugins": described(code)} if code else {}),
            )
        _warm_start(earlier, recorder, console)
        return _drive(spec, recorder, place, console, cluster)


def _warm_start(earlier: Earlier | None, recorder: Recorder, console: Console) -> None:
    """Record what the sweep has from earlier ones, twice like its head: nothing else could make it again."""
    if earlier is not None:
        for _ in range(2):
            recorder("warm_start", **earlier.record())
        console.say(earlier.describe())


def _listen(console: Console) -> None:
    """Show the storage's messages on the screen, and write those about the screen's streams to the log."""
    storage_retry.tell_with(console.warn)
    streams.tell_with(log.info)


def _there_is_one(spec: SweepSpec, sweep: SweepFolder) -> UserError:
    return UserError(
        "name",
        f"there is a sweep of this name in {sweep.storage}",
        value=spec.name,
        expected=f"`{command(spec.resumes_by, sweep)}` to go on with it, or `--set name=OTHER`",
    )


def resume(place: Place, console: Console, *, extend: int = 0, as_started: bool = False) -> History:
    """Go on with a sweep that was interrupted, or add `extend` configurations (of a study: replicates).

    Raises `UserError` with the difference if the spec's file has changed since. With `as_started` the file is
    not looked at.
    """
    _listen(console)
    place.sweep.own(make=True)  # the first time that a machine drives a remote sweep
    with Ledger.open(place.sweep) as ledger:
        history = History.of(ledger.records)
        spec = spec_of(history)
        if not history.done or extend:
            refuse_changed_code(history.sweep or {}, described(_recorded_plugins(history)))
        check_settings(spec, history)
        if not as_started and (now := refuse_changed_spec(spec, history, place.sweep.storage)) is not None:
            spec = with_changes(spec, now)
        check_installed(spec.track)
        spec = evaluable(spec, console, raises=history.done and not extend)
        if extend:
            _refuse_more(spec, history, extend)
        recorder = Recorder(ledger, history)
        if ledger.cut:
            console.warn(ledger.cut)
        left = missing(spec, history) or unmeasured(spec, history) or pending(spec, history, place.sweep)
        if history.done and not extend and not left:
            console.say("every trial of this sweep has ended", "green")
            _log_of(place.sweep)
            _views(spec, history, place.sweep.path)
            feeds = tracking.feeds(spec.track, history, place.sweep.path, console.warn)
            tracking.close(feeds, tracking.WHOLE_S)
            refresh(history, place.sweep.path)
            place.sweep.mirror()
            return history
        refuse_other_inputs(spec, history)
        if history.earlier is None and not history.trials:  # the driver died before it was recorded
            _warm_start(run_of(spec).earlier(place.sweep), recorder, console)
        ready = refuse_other_samplers(spec, history)
        for line in other_versions(history, versions()):
            console.warn(line)
        if said := unlike_today(spec, history):
            console.warn(said)
        with _cluster(spec, place, console) as cluster:
            if extend:
                recorder("extend", samples=extend * spec.samples_per_extension)
            return _drive(spec, recorder, place, console, cluster, None if extend else ready)


def evaluate(place: Place, console: Console, asked: Evaluation) -> History:
    """Evaluate networks of a sweep, and train nothing. Raises `UserError` while another driver has it."""
    _listen(console)
    place.sweep.own(make=True)
    with Ledger.open(place.sweep) as ledger:
        history = History.of(ledger.records)
        spec = spec_of(history)
        refuse_changed_code(history.sweep or {}, described(_recorded_plugins(history)))
        check_settings(spec, history)
        recorder = Recorder(ledger, history)
        if ledger.cut:
            console.warn(ledger.cut)
        for line in other_versions(history, versions()):
            console.warn(line)
        with _cluster(spec, place, console) as cluster:
            return _drive(spec, recorder, place, console, cluster, asked=asked)


def _recorded_plugins(history: History) -> list[str]:
    """The modules that the sweep was started with, imported. Raises `UserError` where one is not here."""
    named = list((history.sweep or {}).get("plugins", {}))
    for name in named:
        load(name)
    return named


def _refuse_more(spec: SweepSpec, history: History, extend: int) -> None:
    """Raise `UserError` for too many trials, and for more replicates of a sequential study.

    More replicates of a study with `decide` would exceed its error rate. With `precision` they are refused
    where every interval is narrow enough already.
    """
    most = (MOST_TRIALS - history.total) // (spec.samples_per_extension * len(spec.seeds))
    if extend > most:
        problem = f"a sweep has at most {MOST_TRIALS:,} trials, and this one has {history.total:,}"
        raise UserError("--extend", problem, value=extend, expected=f"at most {max(0, most):,}")
    run_of(spec).refuse_extension(history, extend)


@contextmanager
def _cluster(spec: SweepSpec, place: Place, console: Console) -> Iterator[dict[str, Any]]:
    """Ray for the sweep, once it is known to hold a worker group."""
    target = ray_address(place.address)
    memory = None
    if target == LOCAL:
        check_resources(spec.workers, [this_machine()])
        check_measures(spec, spec.workers, [this_machine()])
        memory = capacity.room(spec.workers)
    for remark in check_joinable(target):  # before the storage is touched
        console.warn(remark)
    place.sweep.check_writable()
    ready_cache()
    log_file = _log_of(place.sweep)
    send_logs(log_file)  # from here on the log holds what is shown
    _say_data(spec, console)
    console.waits_for("starting Ray on this machine" if target == LOCAL else f"joining Ray at {target}")
    with connected(target, log_file) as cluster:
        if target != LOCAL:
            console.say(f"joined the Ray cluster at {target}")
        try:
            check_resources(spec.workers, live_nodes())
        except UserError:
            if target == LOCAL or not autoscaler_makes_room(spec.workers):
                raise
        code = code_of(spec)
        if target != LOCAL:
            check_nodes(code)
        yield {**cluster, "alone": target == LOCAL, "memory": memory, "plugins": code}


def _log_of(sweep: SweepFolder) -> Path:
    """The sweep's log file. For a remote sweep it is fetched first, and this driver appends to it."""
    log_file = sweep.path / LOG
    sweep.storage.pull(log_file)
    return log_file


def _drive(
    spec: SweepSpec,
    recorder: Recorder,
    place: Place,
    console: Console,
    cluster: dict[str, Any],
    ready: Replayed | None = None,
    asked: Evaluation | None = None,
) -> History:
    from raykd.records.tables import LiveTables, write_tables

    history, folder = recorder.history, place.sweep.path
    device = "GPU" if spec.workers.on(live_nodes()).gpus else "CPU"
    if said := other_device(history, device):
        console.warn(said)
    own = {"host": socket.gethostname(), "pid": getpid()}
    recorder("driver", event="start", **own, versions=versions(), format=FORMAT, device=device)
    views = _views(spec, history, folder)
    tables = LiveTables(folder)
    trackers = tracking.feeds(spec.track, history, folder, console.warn)
    recorder.listeners += [console, *views, *trackers, tables]
    try:
        with place.sweep.mirrored():
            try:
                Drive(spec, recorder, console, place.sweep, place.actions, ready, asked).go(cluster)
                if not signals.received():
                    # What lanes reported last may wait for the storage still. Without it this is no good end.
                    recorder.settle()
            finally:
                with signals.held(), storage_retry.hurried(_LAST_WORD_S):
                    with suppress(SweepFailed):
                        recorder("driver", event="end", **own)
                    recorder.close()
                    recorder.catch_up()
                    tables.close()
                    tracking.close(trackers)
                    with suppress(OSError):  # `status` writes them, too
                        write_tables(history, folder)
            run_of(spec).write_results(history, folder)
    except BaseException as error:
        if isinstance(error, SweepFailed) or signals.received():
            by = asked.goes_on_by if asked is not None else command("resume", place.sweep)
            console.warn(f"go on with:  {by}")
        raise
    return history


def _say_data(spec: SweepSpec, console: Console) -> None:
    """Show how the data's files are understood. Workers report data that are not on this machine."""
    from raykd.runs.plan import data_of

    with suppress(UserError):
        for line in data_of(spec)["lines"]:
            console.say(line)


def _views(spec: SweepSpec, history: History, folder: Path) -> list[Listener]:
    """Rebuild TensorBoard's files and the dashboard's study from the ledger.

    Local ones may be out of date, since another machine may have driven the sweep. Returns the listeners that
    keep them up to date.
    """
    from raykd.records.dashboard import DashboardStudy
    from raykd.records.tensorboard import TensorBoardWriter

    tensorboard, dashboard = TensorBoardWriter(folder, spec), DashboardStudy(folder, spec)
    for rebuild in (tensorboard.rebuild, dashboard.rebuild):
        storage_retry.with_retry(partial(rebuild, history), f"{folder} cannot be written")
    if history.trials:
        run_of(spec).write_results(history, folder)
    return [tensorboard, dashboard]


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    packages = {name: metadata.version(name) for name in ("ray", "torch", "torchvision", "timm", "optuna")}
    return {"python": platform.python_version(), "raykd": version(), **packages}
