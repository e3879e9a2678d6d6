"""`raykd …`: thin verbs. Each one parses, calls, prints; exit code 0 ok, 1 failed, 2 wrong use."""

from __future__ import annotations

from errno import ENAMETOOLONG

import typer

from raykd.cli import reading, starting, tools
from raykd.console.screen import complain
from trainables.errors import SweepFailed, UserError
from trainables.patience import lost, passes

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Search and ablate self-supervised knowledge distillation over a Ray cluster.",
    epilog="Start with:  raykd run quickstart",
)
for verbs in (starting.verbs, reading.verbs, tools.verbs):
    app.add_typer(verbs)

VERBS = (
    "run", "ablate", "resume", "attach", "status", "best", "importance", "report", "export", "list", "doctor",
    "teacher",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """The command line. A user's mistake is one message and exit code 2, never a traceback."""
    try:
        app(arguments)
    except UserError as error:
        complain(str(error))
        raise SystemExit(2) from None
    except SweepFailed as error:
        complain(str(error))
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno == ENAMETOOLONG:
            complain(f"{str(error.filename)[:60]}…: a name cannot be as long as this")
            raise SystemExit(2) from None
        if not passes(error):
            raise
        complain(lost(f"{error.filename or 'the storage'} cannot be used", error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        complain("interrupted")
        raise SystemExit(1) from None
