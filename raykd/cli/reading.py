"""The verbs that read a sweep, whether it runs or has ended."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from raykd.api.sweep import Sweep, find
from raykd.cli.common import HERE, Json, Name, Storage, sweep_of
from raykd.cli.flags import flags
from raykd.console import answers
from raykd.console.live import Console
from raykd.console.sizes import front_data, front_table
from raykd.records import views
from raykd.storage.open_storage import open_storage
from trainables.core.errors import UserError

verbs = typer.Typer()


@verbs.command(epilog="Example:  raykd status quickstart --json")
def status(name: Name, storage: Storage = HERE, json: Json = False) -> None:
    """How a sweep stands: running, interrupted or done."""
    console = Console()
    sweep = Sweep(sweep_of(storage, name))
    history = sweep.history()
    data = views.status(history, sweep.folder)
    if not data["driver"]:
        views.refresh(history, sweep.path)
    console.json(data) if json else answers.status(console, history, data, sweep.folder)


@verbs.command(epilog="Example:  raykd best quickstart --json")
def best(
    name: Name,
    storage: Storage = HERE,
    front: Annotated[
        bool, typer.Option("--front", help="Every trial that no smaller one beats, instead of the best.")
    ] = False,
    json: Json = False,
) -> None:
    """The best trial, and what it has to be compared with."""
    console = Console()
    sweep = Sweep(sweep_of(storage, name))
    history = sweep.history()
    if front:
        if json:
            console.json(front_data(history))
        else:
            console.rows(*front_table(history), elsewhere="trials.parquet")
        return
    data = views.best(history)
    if json:
        console.json(data)
    else:
        from raykd.searching.next_proxy import advice_of

        console.summary(history, sweep.folder, advice_of(history))


@verbs.command(epilog="Example:  raykd compare wide narrow")
def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Two sweeps or more; with a `/`: their folders.")
    ],
    storage: Storage = HERE,
    json: Json = False,
) -> None:
    """What differs between sweeps, which was better after how much compute, or why scores do not compare."""
    from raykd.console import beside
    from raykd.overview import compare as overview

    console, place = Console(), open_storage(storage)
    found = overview.compare([find(name, None if "/" in name else place) for name in names])
    console.json(asdict(found)) if json else beside.comparison(console, found)
    if found.incomparable:
        raise typer.Exit(1)


@verbs.command(epilog="Example:  raykd importance quickstart --evaluator pedanova")
def importance(
    name: Name,
    storage: Storage = HERE,
    evaluator: Annotated[str, typer.Option(help="fanova | pedanova | mdi")] = "fanova",
    resamples: Annotated[
        int, typer.Option(min=20, max=100_000, help="Of the bootstrap, for the intervals.")
    ] = 200,
    json: Json = False,
) -> None:
    """Which axes of a sweep matter, how sure that is, and whether the sweep is too small to say."""
    console = Console()
    sweep = Sweep(sweep_of(storage, name))
    found = sweep.importance(evaluator, resamples=resamples, progress=None if json else console)
    console.json(asdict(found)) if json else answers.importance(console, found)


@verbs.command(epilog="Example:  raykd report quickstart --out quickstart.html")
def report(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: report.html in the sweep's folder.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Of a study: compare its arms by this score, such as evaluate/quick/linear."),
    ] = None,
    storage: Storage = HERE,
) -> None:
    """One HTML page of a sweep or a study that needs no network: to read, to print, to mail."""
    console = Console()
    written = Sweep(sweep_of(storage, name)).report(out, by=by, progress=console)
    console.text(f"written to {written} ({written.stat().st_size / 1e6:.1f} MB, opens without a network)")


@verbs.command(epilog="Example:  raykd export quickstart --out student")
@flags(loads_torch=True)
def export(
    name: Name,
    out: Annotated[Path, typer.Option(help="New folder for the student.")],
    trial: Annotated[str | None, typer.Option(help="Which trial; default: the best.")] = None,
    front: Annotated[
        bool, typer.Option("--front", help="Every trial of `raykd best --front`, each in a folder there.")
    ] = False,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help="timm,onnx,torch_export: refuse a student that timm cannot open; also write student.onnx, "
            "student.pt2, each checked against the student.",
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="For the model card, as the Hugging Face hub names it: apache-2.0 ...")
    ] = None,
    storage: Storage = HERE,
) -> None:
    """Write a trial's config, command, student and model card."""
    console = Console()
    formats = () if format_ is None else format_
    if front:
        if trial is not None:
            raise UserError("--trial", "does not go with `--front`", value=trial, expected="one of the two")
        for folder in Sweep(sweep_of(storage, name)).export_front(
            out, formats=formats, licence=licence, progress=console
        ):
            console.text(f"written to {folder}: " + ", ".join(sorted(p.name for p in folder.iterdir())))
        return
    written = Sweep(sweep_of(storage, name)).export(
        out, trial, formats=formats, licence=licence, progress=console
    )
    console.text(f"written to {out}: " + ", ".join(sorted(p.name for p in written.iterdir())))
