"""The verbs that train: `run`, `ablate` and `resume`; and `attach`, which shows one that does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raykd.cli.common import HERE, Address, Json, Name, Sets, Storage, sweep_of, writable
from raykd.cli.flags import flags
from raykd.console import answers
from raykd.console.live import Console
from raykd.console.screen import Line
from raykd.console.wording import counted
from raykd.storage.base import SweepFolder
from raykd.storage.commands import command
from trainables.core.errors import UserError

if TYPE_CHECKING:
    from raykd.records.history import History
    from raykd.spec.study import StudySpec
    from raykd.spec.sweep import SweepSpec

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
    from raykd.runs.plan import worker_memory
    from raykd.spec.search import find_space, load_sweep
    from raykd.spec.validate import validate

    console = Console()
    if json and not dry_run:
        raise UserError("--json", "goes with `--dry-run`", expected="`raykd best NAME --json` for results")
    if (spec is None) == (space is None):
        problem = "is missing" if spec is None else f"is given twice: {spec} and {space}"
        raise UserError("SPEC", problem, expected="a YAML file, or a name in `raykd list spaces`")
    spec = spec or space or ""
    set_ = [*(set_ or []), *([f"samples={samples}"] if samples is not None else [])]
    sweep = load_sweep(spec, set_)
    at = writable(storage, probe=not dry_run).sweep(sweep.name)
    if dry_run:
        from raykd.runs.plan import plan

        remarks = validate(sweep, worker_memory(sweep, address))
        planned = plan(sweep, at)
        remarks += _planned_here(planned, sweep, address)
        if json:
            console.json(planned)
        else:
            answers.plan(console, planned, remarks)
        return
    console.waits_for(f"checking {sweep.name}")
    for remark in validate(sweep, worker_memory(sweep, address)):
        console.warn(remark)
    from raykd.runs import sweep as engine

    source = engine.Source.of(find_space(spec), set_)
    close(console, engine.run(sweep, engine.Place(at, address), console, source), at)


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
    from raykd.ablation.budget import with_costs
    from raykd.ablation.guard import check_study
    from raykd.ablation.study import find_study, load_study
    from raykd.records.views import read
    from raykd.runs import sweep as engine
    from raykd.runs.retune import tune
    from raykd.spec.sweep import NAME

    console = Console()
    where = writable(storage, probe=not (plan or json))
    at = where.sweep(f"{study}_{preset}" if preset else study)
    begun = bool(NAME.fullmatch(at.path.name)) and Path(study).name == study
    begun = begun and not Path(study).is_file() and at.has_ledger()
    sets = [*([f"preset={preset}"] if preset else []), *(set_ or [])]
    history, remarks = (read(at) if begun else None), list[str]()
    if history is not None:
        spec = study_of(history, at)
        if set_:
            expected = "it as it is, or another name"
            raise UserError("--set", f"the study {study!r} has begun", expected=expected)
    elif extend or as_started:
        option = "--extend" if extend else "--as-started"
        raise UserError(option, "goes with the name of a study that has begun", value=study)
    else:
        spec = load_study(study, sets, where)
        at = where.sweep(spec.name)
    if plan:
        from raykd.runs.plan import worker_memory
        from raykd.runs.study_plan import plan_study, plan_unstarted, study_lines

        if history is None:
            planned, remarks = plan_unstarted(spec, at, worker_memory(spec, address))
        else:
            planned = plan_study(spec, at, history)
        remarks += _planned_here(planned, spec, address)
        console.json(planned) if json else console.parts(study_lines(planned, remarks))
        return
    if history is None:
        from raykd.runs.plan import worker_memory

        spec, remarks = check_study(spec, worker_memory(spec, address))
    place = engine.Place(at, address)
    if history is not None and json:
        from raykd.ablation.conclusions import conclude
        from raykd.ablation.tables import data

        console.json(data(conclude(spec, history)))
        return
    if json:
        raise UserError("--json", "goes with `--plan`, or with a study that has begun", value=study)
    if history is not None:
        close(console, engine.resume(place, console, extend=extend, as_started=as_started), at)
        return
    for remark in remarks:
        console.warn(remark)
    spec = with_costs(tune(spec, place, console))
    source = engine.Source.of(find_study(study), sets)
    close(console, engine.run(spec, place, console, source), at)


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
    from raykd.runs import sweep as engine

    console = Console()
    at = sweep_of(writable(storage, probe=True), name)
    if repair:
        from raykd.runs import repair as mending

        console.warn(mending.repair(at) or "the ledger is whole: there is nothing to repair")
    place = engine.Place(at, address)
    close(console, engine.resume(place, console, extend=extend, as_started=as_started), at)


@verbs.command(epilog="Example:  raykd attach quickstart")
def attach(name: Name, storage: Storage = HERE) -> None:
    """Show what a running sweep says that `ray submit` started; Ctrl-C stops the sweep."""
    from raykd.runs import terminal

    raise typer.Exit(terminal.attach(sweep_of(storage, name)))


def _planned_here(planned: dict[str, Any], spec: SweepSpec, address: str | None) -> list[str]:
    """Add to a plan what this machine gives its workers; remarks on that, and on a baseline that is long."""
    from raykd.runs.auxiliary import long_baseline
    from raykd.runs.plan import devices, room

    planned["devices"], idle = devices(spec, address)
    planned["room"], none = room(spec, address)
    epochs = [row["epochs"] for row in planned["beside"] if row["what"] == "baseline"]
    return [*idle, *none, *(long_baseline(epochs[0], spec) if epochs else [])]


def study_of(history: History, sweep: SweepFolder) -> StudySpec:
    """The spec of a study that has begun; `UserError` for a search."""
    from raykd.records import recorded_spec

    if not history.study:
        expected = f"`{command('resume', sweep)}`"
        raise UserError("STUDY", "is a search, no study", value=history.spec["name"], expected=expected)
    return recorded_spec.study_of(history)


def close(console: Console, history: History, sweep: SweepFolder) -> None:
    """Show what a sweep found; exit code 1 where it is not complete or nothing succeeded."""
    if history.study:
        from raykd.ablation.conclusions import conclude
        from raykd.ablation.report import terminal

        console.parts(terminal(conclude(study_of(history, sweep), history), sweep.path))
    else:
        console.summary(history, sweep)
    console.parts([Line(f"page:       {command('report', sweep)}", "dim")])
    counts = history.counts()
    unfinished = history.total - sum(counts[s] for s in ("finished", "stopped", "failed"))
    if unfinished > 0:
        are = "is" if unfinished == 1 else "are"
        console.warn(
            f"{counted(unfinished, 'trial')} {are} not done; go on with:  {command('resume', sweep)}"
        )
        raise typer.Exit(1)
    if not counts["finished"] and not counts["stopped"]:
        raise typer.Exit(1)
