"""Weights & Biases: one run a trial, in one group a sweep.

Offline every process that writes a run makes a file of its own, and `wandb sync` of several files of one run
lets the later ones overwrite the earlier ones, or, in newer versions, append to them. So offline a run is
written whole, into one file: when its trial ends, and when its driver ends before it. The file of a run that
went on replaces the older one, and is synced again.

Online the server knows how far a run is. A run is opened once a process, with `resume="allow"`, and gets the
epochs behind those that the server has.
"""

from __future__ import annotations

import errno
import netrc
import os
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb

from raykd.records.tracking.base import Off, Place, Tracker
from raykd.records.tracking.run import INTERRUPTED, Epoch, Run

FOLDER = "wandb"  # below `tracking`: `wandb sync SWEEP/tracking/wandb`
_WRITING = ".writing"  # beside it, where wandb-core writes; a file moves into FOLDER when it is whole
_ROOM = 32 << 20  # bytes that must be free: wandb-core does not say that a disk is full
_CLOUD = "https://api.wandb.ai"
_CONNECT_S = 30.0
_UPLOAD_S = 45.0  # less than a driver waits


class WandbRuns(Tracker):
    """Writes runs by the `wandb` package, which has a process of its own for it (wandb-core)."""

    def __init__(self, options: dict[str, Any], place: Place) -> None:
        mode = options.get("mode") or _usual_mode()
        if mode == "disabled":
            raise Off("WANDB_MODE is `disabled`")
        self.live = mode == "online"
        self._place = place
        self._folder = place.folder / FOLDER
        self._writing = place.folder / _WRITING
        self._project = options.get("project") or os.environ.get("WANDB_PROJECT") or "raykd"
        self._entity = options.get("entity") or os.environ.get("WANDB_ENTITY")
        server = os.environ.get("WANDB_BASE_URL", _CLOUD)
        at = f"{server} {self._entity or ''}/{self._project}"
        self.where = at if self.live else f"{self._folder} {at}"
        self._open: dict[str, wandb.Run] = {}  # online: runs that have not ended
        self._discard()

    def write(self, run: Run) -> None:
        if not self.live:
            self._replace(run)
            return
        active = self._open.pop(run.id, None)  # until it is known to hold all of this
        if active is None:
            active = self._begin(run, resume="allow")
            known = active.starting_step  # epochs below are on the server
            _log(active, [each for each in run.epochs if each.epoch >= known])
        else:
            _log(active, run.epochs)
        if run.status == "running":
            self._open[run.id] = active
        else:
            _end(active, run)

    def close(self) -> None:
        wandb.teardown()
        self._discard()

    def _replace(self, run: Run) -> None:
        """Write the whole run into one new file, in the place of an older one."""
        self._discard()
        self._writing.mkdir(parents=True)
        if shutil.disk_usage(self._writing).free < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._writing))
        active = self._begin(run)
        _log(active, run.epochs)
        _end(active, run)
        (made,) = self._writing.glob("*/offline-run-*")
        for own in ("logs", "tmp"):  # wandb-core's, about this minute
            shutil.rmtree(made / own, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        for older in self._folder.glob(f"offline-run-*-{run.id}"):
            shutil.rmtree(older)
        stamp = datetime.fromtimestamp(run.started, timezone.utc).strftime("%Y%m%d_%H%M%S")
        made.rename(self._folder / f"offline-run-{stamp}-{run.id}")

    def _begin(self, run: Run, **how: Any) -> wandb.Run:
        settings = wandb.Settings(
            **_understood(
                mode="online" if self.live else "offline",
                root_dir=str(self._writing),
                base_url=os.environ.get("WANDB_BASE_URL", _CLOUD),
                silent=True,
                console="off",
                init_timeout=_CONNECT_S,
                finish_timeout=_UPLOAD_S,
                finish_timeout_raises=True,
                # About the trial, and not about the driver's machine, its code and its load.
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            )
        )
        self._writing.mkdir(parents=True, exist_ok=True)
        active = wandb.init(
            id=run.id,
            name=run.name,
            project=self._project,
            entity=self._entity,
            group=self._place.sweep,
            job_type=run.kind,
            config={**run.config, "raykd": run.facts},
            allow_val_change=True,
            reinit="create_new",
            settings=settings,
            **how,
        )
        active.define_metric("epoch", hidden=True)
        active.define_metric("*", step_metric="epoch")
        return active

    def _discard(self) -> None:
        """Remove what a writer that was killed has left."""
        if not self._open:
            shutil.rmtree(self._writing, ignore_errors=True)


def _log(active: wandb.Run, epochs: list[Epoch]) -> None:
    for each in epochs:
        active.log({**each.scalars, "_timestamp": each.time}, step=each.epoch)


def _end(active: wandb.Run, run: Run) -> None:
    active.summary.update({"status": run.status, **{k: run.facts[k] for k in _SHOWN if k in run.facts}})
    if run.status == INTERRUPTED:
        active.mark_preempting()
    active.finish(exit_code=1 if run.status in ("failed", INTERRUPTED) else 0)


_SHOWN = ("best_epoch", "reason")


def _usual_mode() -> str:
    """What the user has told wandb: by WANDB_MODE, by `wandb offline`, or by logging in; else offline."""
    said = wandb.setup().settings.mode
    if os.environ.get("WANDB_MODE") or said in ("offline", "disabled"):
        return "online" if said in ("run", "shared") else str(said).replace("dryrun", "offline")
    return "online" if _logged_in() else "offline"


def _logged_in() -> bool:
    """Whether there is a key for the server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", _CLOUD)).hostname or ""
    try:
        return (
            netrc.netrc(os.environ.get("NETRC", Path("~/.netrc").expanduser())).authenticators(host)
            is not None
        )
    except (OSError, netrc.NetrcParseError):
        return False


def _understood(**settings: Any) -> dict[str, Any]:
    """Those of these settings that the installed version of wandb has."""
    return {name: value for name, value in settings.items() if name in wandb.Settings.model_fields}
