"""The verb that evaluates students on suites of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raykd.cli.common import HERE, Address, Json, Storage, writable
from raykd.cli.flags import flags
from raykd.console.live import Console
from raykd.console.screen import Grid, Line, Terminal
from raykd.records.history import History
from raykd.storage.base import SweepFolder
from raykd.storage.commands import storage_words

if TYPE_CHECKING:
    from raykd.evaluations.results import Results

verbs = typer.Typer()


@verbs.command(epilog="Example:  raykd evaluate quickstart --on quick --best 3")
@flags(loads_torch=True, drives=True)
def evaluate(
    what: Annotated[
        str, typer.Argument(help="A sweep, a study, the folder of an export, or a checkpoint's file.")
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUITE",
            help="A YAML file, or a suite in `raykd list suites`; may stand several times. Without it: the "
            "results so far.",
        ),
    ] = None,
    best: Annotated[
        int, typer.Option(help="Of a search: so many of its best configurations, all seeds of each.")
    ] = 1,
    sample: Annotated[
        int,
        typer.Option(
            help="Of a search: so many drawn by chance as well, which say how well its score ranks students."
        ),
    ] = 0,
    trials: Annotated[
        str | None, typer.Option(metavar="LIST", help="Of a search: these trials instead, 0a1b2c3d,4e5f6071.")
    ] = None,
    beside: Annotated[
        str, typer.Option(metavar="LIST", help="What stands beside them; `none` for nothing.")
    ] = "teacher,start,baseline",
    base: Annotated[
        str | None,
        typer.Option(
            help="Which row the others are compared with: teacher, start, baseline, or a row's name; "
            "default: a study's base, else the baseline."
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            help="Of a checkpoint: its architecture, or '{arch: .., options: ..}', if it does not say it."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Of a checkpoint: its images, as `digits` or '{name: digits, image_size: 16}'."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Override a field of the suites: --set seeds=[0,1]."
        ),
    ] = None,
    storage: Storage = HERE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, and start nothing.")
    ] = False,
    address: Address = None,
    json: Json = False,
) -> None:
    """Run a suite of tasks on students, and compare them with teacher, start and baseline."""
    from raykd.evaluations.tables import data as as_data
    from raykd.runs.evaluate import EvaluationRequest, plan_lines

    console = Console()
    where = writable(storage, probe=bool(on) and not dry_run)
    words = [word for suite in on or () for word in ("--on", suite)]
    asked = EvaluationRequest.find(
        what,
        on or (),
        where,
        best=best,
        sample=sample,
        trials=_names(trials),
        beside=() if beside == "none" else _names(beside),
        arch=arch,
        data=data,
        overrides=set_ or (),
        goes_on_by=_again(
            what, words, best, sample, trials, beside, arch, data, set_ or [], storage_words(where)
        ),
    )
    if dry_run:
        planned, remarks = asked.plan(address)
        if json:
            console.json(planned)
            return
        console.parts(Line(line) for line in [*plan_lines(planned), planned["devices"]])
        console.parts(Line(line, "yellow") for line in remarks)
        return
    if on:
        from raykd.api.evaluating import run

        # Standard output is then the data alone.
        run(asked, address=address, progress=Console(Terminal(stderr=True)) if json else console)
    found = asked.results(base)
    if json:
        console.json(as_data(found))
    else:
        show(console, found)
        console.parts(Line(line) for line in _ranked(asked.target.history()))
    if found.failed:
        raise typer.Exit(1)


def show(console: Console, found: Results) -> None:
    """Show the tables of an evaluation."""
    from raykd.evaluations import tables

    if not found.rows:
        console.text("nothing has been evaluated yet")
    else:
        console.parts([Line(), Grid(*tables.scores(found))])
        compared = tables.compared(found)
        if compared is not None:
            console.parts([Line(), Grid(*compared)])
        console.parts([Line(), *(Line(line, "dim") for line in tables.legend(found))])
    console.parts(Line(note, "yellow") for note in tables.notes(found))


def show_evaluations(console: Console, history: History, sweep: SweepFolder) -> bool:
    """Show what was evaluated of a sweep. Returns whether an evaluation has failed."""
    from raykd.evaluations.results import base_of, gather

    found = gather(history.evaluated, sweep, base_of(history))
    show(console, found)
    console.parts(Line(line) for line in _ranked(history))
    return bool(found.failed)


def _ranked(history: History) -> list[str]:
    """How well the score of a search ranks its students on the tasks."""
    from raykd.records.recorded_spec import spec_of
    from raykd.searching.outcomes import lines
    from raykd.spec.search import SearchSpec

    spec = spec_of(history) if history.evaluated and history.sweep else None
    return lines(spec, history) if isinstance(spec, SearchSpec) else []


def _names(given: str | None) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()] if given else []


def _again(
    what: str,
    words: list[str],
    best: int,
    sample: int,
    trials: str | None,
    beside: str,
    arch: str | None,
    data: str | None,
    sets: list[str],
    storage: list[str],
) -> str:
    """The command that goes on with this evaluation."""
    import shlex

    said = [what, *words]
    given = {"--trials": trials, "--arch": arch, "--data": data}
    said += [word for option, value in given.items() if value is not None for word in (option, value)]
    said += ["--best", str(best)] if best != 1 else []
    said += ["--sample", str(sample)] if sample else []
    said += ["--beside", beside] if beside != "teacher,start,baseline" else []
    said += [word for one in sets for word in ("--set", one)]
    return shlex.join(["raykd", "evaluate", *said, *storage])
