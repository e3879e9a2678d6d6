"""Driving a sweep inside a process that belongs to somebody else: a notebook's kernel, a script, a service.

Whatever a driver changes of a process is put back: signal handlers, loggers, environment variables.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from raykd.console.bar import shown
from raykd.console.live import Console
from raykd.process import signals
from raykd.process.environment import kept
from trainables.core import storage_retry
from trainables.core.errors import StorageLost, UserError
from trainables.core.limits import check_address_space
from trainables.core.storage_retry import lost, passes

log = logging.getLogger("raykd.api")
_driving = threading.Lock()


@contextmanager
def driving(progress: bool | Console | None) -> Iterator[Console]:
    """The block may drive a sweep. Yields what shows it.

    A signal ends the block in good order. Then handlers are as before and the signal is raised again, so
    Ctrl-C becomes a `KeyboardInterrupt` and SIGTERM does what it would have done. With a `Console` the
    process is raykd's own, and nothing is done here. Raises `UserError` for a second sweep at the same time,
    and where Ray is in use already.
    """
    if isinstance(progress, Console):
        yield progress
        return
    if not _driving.acquire(blocking=False):
        problem = "this process drives a sweep already"
        raise UserError("raykd", problem, expected="one after the other, or each in a process of its own")
    ended: signals.Interrupted | None = None
    try:
        check_address_space()
        _refuse_used_ray()
        from raykd.lanes.cluster import QUIET  # Ray's variables, for raykd's use of Ray alone

        with kept(QUIET), _kept_logging(), signals.caught(ours=False):
            try:
                with shown(progress) as console, manners():
                    yield console
                ended = signals.interrupted()
            except (Exception, signals.Interrupted) as error:
                ended = signals.interrupted()
                if ended is None:
                    raise
                log.info("after %s", ended.name, exc_info=error)  # Ray receives signals, too
            finally:
                signals.done()
    finally:
        _driving.release()
    if ended is not None:
        signal.raise_signal(signal.Signals[ended.name])
        raise KeyboardInterrupt  # the signal's own handler went on


@contextmanager
def manners() -> Iterator[None]:
    """What a call has in common with a verb of the command line, which does it once for the process.

    Errors of a storage that is full or away become `StorageLost`, with the same text. In a notebook without
    widgets, timm's import of tqdm would print that these are missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")
            yield
    except OSError as error:
        if passes(error):
            raise StorageLost(lost(f"{error.filename or 'the storage'} cannot be used", error)) from error
        raise


def _refuse_used_ray() -> None:
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        raise UserError(
            "ray",
            "this process is connected to a Ray already",
            expected="`ray.shutdown()` before; `address=` names a cluster to join",
        )


@contextmanager
def _kept_logging() -> Iterator[None]:
    """The sweep's log takes all that is logged; the handlers that are there get no more than before."""
    root = logging.getLogger()
    level, handlers = root.level, [(handler, handler.level) for handler in root.handlers]
    named = [
        logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] == "ray"
    ]
    of_ray = [(logger, list(logger.handlers), logger.propagate) for logger in named]
    for handler, own in handlers:
        handler.setLevel(max(own, level))
    advice = logging.getLogger("ray.widgets.util")  # it would print that a notebook lacks widgets
    advised = advice.level
    advice.setLevel(logging.WARNING)
    try:
        yield
    finally:
        storage_retry.tell_with(log.warning)
        root.setLevel(level)
        advice.setLevel(advised)
        for handler in set(root.handlers) - {handler for handler, _ in handlers}:
            root.removeHandler(handler)
            handler.close()
        for handler, own in handlers:
            handler.setLevel(own)
        for logger, own_handlers, propagate in of_ray:
            logger.handlers[:], logger.propagate = own_handlers, propagate
