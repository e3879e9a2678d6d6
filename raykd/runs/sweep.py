"""A sweep from its spec to its results: run, resume, extend.

The ledger is the only truth. A new driver replays it, brings sampler, scheduler and views back to where
they were, and lets Tune run what is left. Tune keeps no state that is read again.
"""

from __future__ import annotations

import logging
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from os import getpid
from pathlib import Path
from typing import Any, NamedTuple

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
from raykd.process import signals, streams
from raykd.process.version import version
from raykd.records.format import FORMAT
from raykd.records.history import History, missing
from raykd.records.ledger import Ledger, refuse_lost
from raykd.records.recorded_spec import check_settings, spec_of
from raykd.records.recorder import Listener, Recorder
from raykd.runs.changed_spec import (
    other_device,
    other_versions,
    refuse_changed_spec,
    refuse_other_inputs,
    refuse_other_samplers,
    unlike_today,
)
from raykd.runs.drive import Drive
from raykd.spec.sweep import MOST_TRIALS, SweepSpec
from raykd.storage.cache import ready_cache
from raykd.storage.commands import command
from raykd.storage.folders import (
    check_writable,
    fetch,
    holds_ledger,
    mirror,
    mirrored,
    named,
    origin_of,
    own_sweep,
)
from raykd.storage.new_sweep import LOG, fresh
from trainables.core import storage_retry
from trainables.core.errors import SweepFailed, UserError

log = logging.getLogger("raykd.runs.sweep")
_LAST_WORD_S = 10.0  # a driver that ends because the storage is lost does not wait for it again


@dataclass(frozen=True)
class Place:
    """Where and by whom a sweep is run. `actions` is what its lanes can do: the engine runs any trainable."""

    folder: Path  # the sweep's own
    address: str | None = None  # of a Ray cluster
    actions: Mapping[str, str] = field(default_factory=lambda: ACTIONS)


class Source(NamedTuple):
    """What a spec was read from, kept so that `resume` sees when it has changed."""

    path: Path
    overrides: list[str]

    @classmethod
    def of(cls, path: Path, overrides: list[str]) -> Source | None:
        """None for a pipe or standard input, which cannot be read again: the ledger holds what it said."""
        return cls(path, overrides) if path.resolve().is_file() else None

    def recorded(self) -> dict[str, Any]:
        """For the ledger, with the folder that relative paths in the spec start from."""
        return {"path": str(self.path.resolve()), "overrides": self.overrides, "folder": str(Path.cwd())}


def run(spec: SweepSpec, place: Place, console: Console, source: Source | None = None) -> History:
    """Run a new sweep.

    Raises `UserError` if there is one in its folder, or if the cluster can never hold what it asks for.
    """
    from raykd.search.proposer import sampler_arguments

    _listen(console)
    own_sweep(place.folder)
    origin = origin_of(place.folder)
    if holds_ledger(place.folder):
        if Ledger.read(place.folder):
            raise _there_is_one(spec, place)
    elif origin is not None:
        shutil.rmtree(place.folder, ignore_errors=True)  # the copy of a sweep that was removed there
    refuse_lost(place.folder)
    # The cluster first: one that cannot hold a worker leaves no sweep behind.
    with (
        fresh(place.folder) as clear,
        signals.cleared(clear),
        _cluster(spec, place, console) as cluster,
        Ledger.create(place.folder) as ledger,
    ):
        recorder = Recorder(ledger, History())
        for _ in range(2):  # all else can be made again after damage, and this cannot
            recorder(
                "sweep",
                spec=spec.model_dump(mode="json"),
                spec_hash=spec.hash(),
                source=source and source.recorded(),
                sampler={"name": spec.sampler.name, "arguments": sampler_arguments(spec)},
                scheduler=spec.scheduler.model_dump(mode="json"),
                versions=versions(),
                format=FORMAT,
            )
        return _drive(spec, recorder, place, console, cluster)


def _listen(console: Console) -> None:
    """What the storage has to say goes to the screen; what the screen's own streams have, to the log."""
    storage_retry.tell_with(console.warn)
    streams.tell_with(log.info)


def _there_is_one(spec: SweepSpec, place: Place) -> UserError:
    return UserError(
        "name",
        f"there is a sweep of this name in {named(place.folder.parent)}",
        value=spec.name,
        expected=f"`{command('ablate' if spec.study else 'resume', place.folder)}` to go on with it, or "
        "`--set name=OTHER`",
    )


def resume(place: Place, console: Console, *, extend: int = 0, as_started: bool = False) -> History:
    """Go on with a sweep that was interrupted, or add `extend` configurations (of a study, replicates) to it.

    Raises `UserError` with the difference if the file that the spec came from now says something else, unless
    `as_started` asks for what was written down at the start.
    """
    _listen(console)
    own_sweep(place.folder, make=True)  # the first time that a machine drives a remote sweep
    with Ledger.open(place.folder) as ledger:
        history = History.of(ledger.records)
        spec = spec_of(history)
        check_settings(spec, history)
        if not as_started:
            refuse_changed_spec(spec, history, place.folder.parent)
        if extend:
            _refuse_more(spec, history, extend)
        recorder = Recorder(ledger, history)
        if ledger.cut:
            console.warn(ledger.cut)
        if history.done and not extend and not missing(spec, history):
            console.say("every trial of this sweep has ended", "green")
            _log_of(place.folder)
            _views(spec, history, place.folder)
            mirror(place.folder)
            return history
        refuse_other_inputs(spec, history)
        refuse_other_samplers(spec, history)
        for line in other_versions(history, versions()):
            console.warn(line)
        if said := unlike_today(spec, history):
            console.warn(said)
        with _cluster(spec, place, console) as cluster:
            if extend:
                recorder("extend", samples=extend * max(1, len(spec.arms)))  # of a study, replicates of each
            return _drive(spec, recorder, place, console, cluster)


def _refuse_more(spec: SweepSpec, history: History, extend: int) -> None:
    """`UserError` for more trials than can be meant, and for replicates that would claim too much.

    Those of a sequential study may; others of it would answer nothing.
    """
    from raykd.ablation.conclusions import conclude

    most = (MOST_TRIALS - history.total) // (len(spec.arms) or len(spec.seeds))
    if extend > most:
        problem = f"a sweep has at most {MOST_TRIALS:,} trials, and this one has {history.total:,}"
        raise UserError("--extend", problem, value=extend, expected=f"at most {max(0, most):,}")
    rules = spec.study
    if rules is None or not rules.sequential:
        return
    if rules.decide:
        raise UserError(
            "--extend",
            f"by replicate {rules.replicates} `decide` has spent all of the error that it may make, "
            f"alpha = {rules.alpha:g}: what is open then stays open",
            value=extend,
            expected="a `max_replicates` as large as you can pay for, since clear arms stop early; a study "
            "with a larger one and another name takes these seeds again, so the two together may claim a "
            f"difference that is not there in up to {2 * rules.alpha:g} of all studies",
        )
    arms = conclude(spec, history).arms
    if all(arm.verdict.reason == "precision" for arm in arms if arm.verdict is not None):
        problem = f"every interval is within ± {rules.precision:g} points already"
        raise UserError(
            "--extend", problem, value=extend, expected="another study with a smaller `precision`"
        )


@contextmanager
def _cluster(spec: SweepSpec, place: Place, console: Console) -> Iterator[dict[str, Any]]:
    """Ray for the sweep, once it is sure that it can hold a worker group."""
    from raykd.lanes.demand import grows
    from raykd.spec.validate import check_resources

    target = ray_address(place.address)
    memory = None
    if target == LOCAL:
        check_resources(spec.workers, [this_machine()])
        memory = capacity.room(spec.workers)
    for remark in check_joinable(target):  # before the storage is touched
        console.warn(remark)
    check_writable(place.folder)
    ready_cache()
    log_file = _log_of(place.folder)
    send_logs(log_file)  # from here on it holds what is said, and what is lost of it
    _say_data(spec, console)
    console.waits_for("starting Ray on this machine" if target == LOCAL else f"joining Ray at {target}")
    with connected(target, log_file) as cluster:
        if target != LOCAL:
            console.say(f"joined the Ray cluster at {target}")
        try:
            check_resources(spec.workers, live_nodes())
        except UserError:
            if target == LOCAL or not grows(spec.workers):
                raise
        yield {**cluster, "alone": target == LOCAL, "memory": memory}


def _log_of(folder: Path) -> Path:
    """The sweep's log, as the last driver left it, on whichever machine: there it goes on."""
    log_file = folder / LOG
    if origin_of(folder) is not None:
        fetch(log_file)
    return log_file


def _drive(
    spec: SweepSpec, recorder: Recorder, place: Place, console: Console, cluster: dict[str, Any]
) -> History:
    from raykd.records.tables import write_tables

    history, folder = recorder.history, place.folder
    device = "GPU" if spec.workers.on(live_nodes()).gpus else "CPU"
    if said := other_device(history, device):
        console.warn(said)
    own = {"host": socket.gethostname(), "pid": getpid()}
    recorder("driver", event="start", **own, versions=versions(), format=FORMAT, device=device)
    views = _views(spec, history, folder)
    tables = _Every(5.0, lambda: write_tables(history, folder))
    recorder.listeners += [console, *views, tables]
    try:
        with mirrored(folder):
            try:
                Drive(spec, recorder, console, folder, place.actions).go(cluster)
            finally:
                with signals.held():
                    with suppress(SweepFailed), storage_retry.limited(_LAST_WORD_S):
                        recorder("driver", event="end", **own)
                    recorder.catch_up()
                    with suppress(OSError):  # `status` writes them, too
                        write_tables(history, folder)
            _write_study(spec, history, folder)
    except BaseException as error:
        if isinstance(error, SweepFailed) or signals.received():
            console.warn(f"go on with:  {command('resume', folder)}")
        raise
    return history


def _say_data(spec: SweepSpec, console: Console) -> None:
    """What is taken for what. Data that are not here are the workers' to complain of."""
    from raykd.runs.plan import data_of

    with suppress(UserError):
        for line in data_of(spec)["lines"]:
            console.say(line)


def _write_study(spec: SweepSpec, history: History, folder: Path) -> None:
    """What the data of a study support so far, as files."""
    if spec.study is None:
        return
    from raykd.ablation.conclusions import conclude
    from raykd.ablation.report import write

    write(conclude(spec, history), folder)


def _views(spec: SweepSpec, history: History, folder: Path) -> list[Listener]:
    """TensorBoard's files, the dashboard's study and the tables, as the ledger says they should be.

    Those that lie here may be older: another machine may have driven the sweep since.
    """
    from raykd.records.dashboard import DashboardStudy
    from raykd.records.tables import write_tables
    from raykd.records.tensorboard import TensorBoardWriter

    tensorboard, dashboard = TensorBoardWriter(folder, spec), DashboardStudy(folder, spec)
    for rebuild in (tensorboard.rebuild, dashboard.rebuild, partial(write_tables, folder=folder)):
        storage_retry.with_retry(partial(rebuild, history), f"{folder} cannot be written")
    if history.trials:
        _write_study(spec, history, folder)
    return [tensorboard, dashboard]


def versions() -> dict[str, str]:
    """What this sweep ran with."""
    packages = ("ray", "torch", "torchvision", "timm", "optuna")
    of_packages = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "raykd": version(), **of_packages}


class _Every:
    """A listener that does its work at most once in so many seconds."""

    def __init__(self, seconds: float, work: Callable[[], None]) -> None:
        self._seconds = seconds
        self._work = work
        self._at = -seconds

    def __call__(self, *_: Any) -> None:
        if time.monotonic() - self._at >= self._seconds:
            self._work()
            self._at = time.monotonic()
