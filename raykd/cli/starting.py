"""The verbs that train, `run`, `ablate` and `resume`; and `attach`, which shows a running sweep."""

from __future__ import annotations

from typing import Annotated

import typer

from raykd.api.sweep import Sweep
from raykd.cli.common import HERE, Address, Json, Name, Sets, Storage, sweep_of, writable
from raykd.cli.evaluating import show_evaluations
from raykd.cli.flags import flags
from raykd.console import answers
from raykd.console.live import Console
from raykd.console.screen import Line
from raykd.console.wording import counted
from raykd.records.history import ENDED
from raykd.storage.commands import command
from trainables.core.errors import UserError

verbs = typer.Typer()


@verbs.command(epilog="Example:  raykd run quickstart --set samples=4 --set 'axes.gamma.log=[0.01,1]'")
@flags(loads_torch=True, drives=True)
def run(
    spec: Annotated[
        str | None,
        typer.Argument(
            help="A YAML file, - for standard input, or the name of a space in `raykd list spaces`."
        ),
    ] = None,
    storage: Storage = HERE,
    set_: Sets = None,
    space: Annotated[str | None, typer.Option(help="The same as SPEC.", metavar="SPEC")] = None,
    samples: Annotated[int | None, typer.Option(help="The same as --set samples=N.", metavar="N")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, and start nothing.")
    ] = False,
    address: Address = None,
    json: Json = False,
) -> None:
    """Run a search space."""
    from raykd.api.starting import search
    from raykd.runs.start import SearchRequest
    from raykd.runs.sweep import Place

    console = Console()
    if json and not dry_run:
        raise UserError("--json", "goes with `--dry-run`", expected="`raykd best NAME --json` for results")
    if (spec is None) == (space is None):
        problem = "is missing" if spec is None else f"is given twice: {spec} and {space}"
        raise UserError("SPEC", problem, expected="a YAML file, or a name in `raykd list spaces`")
    given = spec or space or ""
    overrides = [*(set_ or []), *([f"samples={samples}"] if samples is not None else [])]
    found = SearchRequest.find(given, overrides)
    where = writable(storage, probe=not dry_run)
    if dry_run:
        planned, remarks = found.plan(Place(where.sweep(found.spec.name), address))
        console.json(planned) if json else answers.plan(console, planned, remarks)
    else:
        close(console, search(found, storage=where, address=address, progress=console))


@verbs.command(epilog="Example:  raykd ablate retro_parts --plan")
@flags(loads_torch=True, drives=True)
def ablate(
    study: Annotated[
        str, typer.Argument(help="A YAML file, -, a study in `raykd list studies`, or one to go on with.")
    ],
    preset: Annotated[
        str | None, typer.Option(help="Of the study's file, such as `paper`; default: the file as it is.")
    ] = None,
    storage: Storage = HERE,
    set_: Sets = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show arms and worst-case cost, and start nothing.")
    ] = False,
    extend: Annotated[int, typer.Option(min=0, help="So many more replicates of every arm.")] = 0,
    as_started: Annotated[
        bool, typer.Option("--as-started", help="Go on even if the study's file has changed since.")
    ] = False,
    address: Address = None,
    json: Annotated[
        bool, typer.Option("--json", help="The plan, or the results so far, as JSON; starts nothing.")
    ] = False,
) -> None:
    """Run an ablation study, or go on with one, and say what its data support."""
    from raykd.api.starting import ablate as start
    from raykd.runs.study import StudyRequest
    from raykd.runs.study_plan import study_lines

    console = Console()
    where = writable(storage, probe=not (plan or json))
    found = StudyRequest.find(study, preset, set_ or [], where, extend, as_started)
    if plan:
        planned, remarks = found.plan(address)
        console.json(planned) if json else console.parts(study_lines(planned, remarks))
    elif json:
        console.json(found.results())
    else:
        close(console, start(found, address=address, progress=console))


@verbs.command(epilog="Example:  raykd resume quickstart --extend 12")
@flags(loads_torch=True, drives=True)
def resume(
    name: Name,
    storage: Storage = HERE,
    extend: Annotated[int, typer.Option(min=0, help="Try so many more configurations.")] = 0,
    as_started: Annotated[
        bool, typer.Option("--as-started", help="Even if the spec's file has changed since.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend a damaged ledger first; the damaged one is kept.")
    ] = False,
    address: Address = None,
) -> None:
    """Go on with a sweep that was interrupted, or extend one."""
    console = Console()
    sweep = Sweep(sweep_of(writable(storage, probe=True), name))
    sweep.resume(extend, as_started=as_started, repair=repair, address=address, progress=console)
    close(console, sweep)


@verbs.command(epilog="Example:  raykd attach quickstart")
def attach(name: Name, storage: Storage = HERE) -> None:
    """Show what a running sweep says that `ray submit` started; Ctrl-C stops the sweep."""
    from raykd.runs import terminal

    raise typer.Exit(terminal.attach(sweep_of(storage, name)))


def close(console: Console, ended: Sweep) -> None:
    """Show a sweep's results. Raises exit code 1 where trials are left, or all failed, or a task."""
    history, sweep = ended.history(), ended.folder
    if history.study:
        from raykd.ablation.conclusions import conclude
        from raykd.ablation.report import terminal
        from raykd.runs.study import study_of

        console.parts(terminal(conclude(study_of(history, sweep), history), sweep.path))
    else:
        from raykd.searching.next_proxy import advice_of

        console.summary(history, sweep, advice_of(history))
    failed = show_evaluations(console, history, sweep) if history.evaluated else False
    console.parts([Line(f"page:       {command('report', sweep)}", "dim")])
    counts = history.counts()
    unfinished = history.total - sum(counts[s] for s in ENDED)
    if unfinished > 0:
        are = "is" if unfinished == 1 else "are"
        console.warn(
            f"{counted(unfinished, 'trial')} {are} not done; go on with:  {command('resume', sweep)}"
        )
        raise typer.Exit(1)
    if failed or not (counts["finished"] or counts["stopped"]):
        raise typer.Exit(1)
