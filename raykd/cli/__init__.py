"""The verbs of the command line: each one parses its options, calls one function of another room, and shows.

A verb imports what it calls when it runs, so that `raykd --help`, `status` and `report` start without torch
and Ray. May import every room but `stats` and `lanes`.
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
    """Run the command line with `arguments`, by default those of this process. Raises `SystemExit`.

    Exit codes: 0 ok; 1 failed, not complete, or ended by a signal; 2 wrong use. A second signal ends the
    process at once with exit code 128 plus the signal's number.
    """
    streams.settle()
    with signals.caught():
        try:
            from raykd.cli.app import run  # here, so that a signal during the import is handled too

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
