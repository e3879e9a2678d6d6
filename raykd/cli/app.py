"""The typer application of `raykd`, and the exit codes of its errors."""

from __future__ import annotations

import logging
import sys
from errno import ENAMETOOLONG
from typing import Annotated

import typer

from raykd.cli import evaluating, reading, starting, tools
from raykd.cli.flags import Flags, flags_of
from raykd.console.screen import complain
from raykd.process import signals
from raykd.process.version import version
from trainables.core.errors import SweepFailed, UserError
from trainables.core.limits import check_address_space
from trainables.core.storage_retry import lost, passes

log = logging.getLogger("raykd.cli")
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="Start with:  raykd run quickstart",
)


def _show_version(asked: bool) -> None:
    """Print the version and end, where `--version` is given."""
    if asked:
        print(version())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Search and ablate self-supervised knowledge distillation over a Ray cluster."""


for part in (starting.verbs, evaluating.verbs, reading.verbs, tools.verbs):
    app.add_typer(part)


def verbs() -> dict[str, Flags]:
    """Every verb with its flags; a verb that has verbs of its own (`teacher inspect`) has theirs together."""
    application = typer.main.get_command(app)
    assert isinstance(application, typer.core.TyperGroup)
    found = {}
    for name, command in application.commands.items():
        inner = command.commands.values() if isinstance(command, typer.core.TyperGroup) else (command,)
        each = [flags_of(verb.callback) for verb in inner]
        found[name] = Flags(*(any(column) for column in zip(*each, strict=True)))
    return found


def run(arguments: list[str] | None = None) -> int:
    """Run a verb and return its exit code. A user's mistake is one message and exit code 2, no traceback.

    Raises errors that are neither a user's mistake nor a failure of sweep or storage, and the signal that
    interrupted the verb.
    """
    try:
        first = (sys.argv[1:] if arguments is None else arguments)[:1]
        if first and verbs().get(first[0], Flags()).loads_torch:
            check_address_space()
        app(arguments)
    except SystemExit as ended:  # typer ends every verb with it
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception as error:
        signal = signals.interrupted()
        if signal is None:
            return _failed(error)
        # The error may follow from the signal, which Ray receives too.
        log.info("after %s", signal.name, exc_info=error)
        if isinstance(error, UserError | SweepFailed):
            complain(str(error))
        raise signal from error
    return 0


def _failed(error: Exception) -> int:
    """Show what is wrong and return the exit code. Raises unexpected errors again."""
    if isinstance(error, OSError) and error.errno == ENAMETOOLONG:
        complain(f"{str(error.filename)[:60]}…: a name cannot be as long as this")
        return 2
    if isinstance(error, OSError) and passes(error):
        complain(lost(f"{error.filename or 'the storage'} cannot be used", error))
    elif isinstance(error, UserError | SweepFailed):
        complain(str(error))
    else:
        raise error
    return 2 if isinstance(error, UserError) else 1
