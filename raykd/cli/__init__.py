"""The verbs of the command line: each one parses, calls, prints.

May import every room but `stats` and `lanes`, and each verb only when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raykd.process import signals, streams

if TYPE_CHECKING:
    from raykd.cli.flags import Flags

__all__ = ["main", "verbs"]


def verbs() -> Mapping[str, Flags]:
    """Every verb of the command line with its flags, from the application itself."""
    from raykd.cli.app import verbs as registered

    return registered()


def main(arguments: list[str] | None = None) -> None:
    """The command line: `arguments`, or those of this process, which then ends. Raises `SystemExit`.

    Exit code 0: ok; 1: failed, not complete, or ended by a signal; 2: wrong use. A second signal ends the
    process at once with 128 and its number.
    """
    streams.settle()
    with signals.caught():
        try:
            from raykd.cli.app import run  # what takes long to import is interrupted in good order, too

            code = run(arguments)
            unwritten = streams.close()
            if unwritten is not None:
                streams.say(f"standard output could not be written: {unwritten.strerror}")
                code = code or 1
            signals.done(code if arguments is None else None)
        except signals.Interrupted:
            signals.tell()
            streams.close()
            code = 1
            signals.done(code if arguments is None else None)
    raise SystemExit(code)
