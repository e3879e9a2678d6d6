"""`raykd …`: thin verbs. Each one parses, calls, prints; exit code 0 ok, 1 failed, 2 wrong use."""

from __future__ import annotations

from dataclasses import asdict
from errno import ENAMETOOLONG
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from raykd.console.console import Console, Line, complain, report_hint, resume_hint
from raykd.storage.folders import holds_ledger, mirror, origin_of, publish, storage_folder
from trainables.errors import SweepFailed, UserError
from trainables.patience import lost, passes

if TYPE_CHECKING:
    from raykd.records.history import History
    from raykd.spec.sweep import SweepSpec

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Search and ablate self-supervised knowledge distillation over a Ray cluster.",
    epilog="Start with:  raykd run quickstart",
)

teacher = typer.Typer(no_args_is_help=True, help="Look at a checkpoint before it teaches.")
app.add_typer(teacher, name="teacher")

Storage = Annotated[
    str, typer.Option(help="Folder that holds the sweeps, or s3://, gs:// ...", envvar="RAYKD_STORAGE")
]
Name = Annotated[str, typer.Argument(help="Name of a sweep.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to join; default: RAY_ADDRESS, one that `ray start` began here, or a new one."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field of the spec, e.g. --set samples=4."),
]
HERE = "sweeps"
VERBS = (
    "run", "ablate", "resume", "attach", "status", "best", "importance", "report", "export", "list", "doctor",
    "teacher",
)  # fmt: skip


@app.command(epilog="Example:  raykd run quickstart --set samples=4 --set 'axes.gamma.log=[0.01,1]'")
def run(
    spec: Annotated[
        str | None, typer.Argument(help="A YAML file, or the name of a space in `raykd list spaces`.")
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
    from raykd.spec.sweep import find_space, load_sweep
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
    folder = _writable(storage, probe=not dry_run) / sweep.name
    if dry_run:
        from raykd.runs.plan import plan

        remarks = validate(sweep)
        planned = plan(sweep, folder)
        if json:
            console.json(planned)
        else:
            console.plan(planned, remarks)
        return
    for remark in validate(sweep):
        console.warn(remark)
    from raykd.runs import sweep as engine

    source = engine.Source(find_space(spec), set_)
    _close(console, engine.run(sweep, engine.Place(folder, address), console, source), folder)


@app.command(epilog="Example:  raykd ablate retro_parts --plan")
def ablate(
    study: Annotated[
        str, typer.Argument(help="A YAML file, a study in `raykd list studies`, or one to go on with.")
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
    where = _writable(storage, probe=not (plan or json))
    folder = where / (f"{study}_{preset}" if preset else study)
    begun = bool(NAME.fullmatch(folder.name)) and Path(study).name == study
    begun = begun and not Path(study).is_file() and holds_ledger(folder)
    sets = [*([f"preset={preset}"] if preset else []), *(set_ or [])]
    history, remarks = (read(folder) if begun else None), list[str]()
    if history is not None:
        spec = _study_of(history)
        if set_:
            expected = "it as it is, or another name"
            raise UserError("--set", f"the study {study!r} has begun", expected=expected)
    elif extend or as_started:
        option = "--extend" if extend else "--as-started"
        raise UserError(option, "goes with the name of a study that has begun", value=study)
    else:
        spec = load_study(study, sets, where)
        folder = where / spec.name
    if plan:
        from raykd.runs.study_plan import plan_study, plan_unstarted, study_lines

        if history is None:
            planned, remarks = plan_unstarted(spec, folder)
        else:
            planned = plan_study(spec, folder, history)
        console.json(planned) if json else console.parts(study_lines(planned, remarks))
        return
    if history is None:
        spec, remarks = check_study(spec)
    place = engine.Place(folder, address)
    if history is not None and json:
        from raykd.ablation.conclusions import conclude
        from raykd.ablation.report import data

        console.json(data(conclude(spec, history)))
        return
    if json:
        raise UserError("--json", "goes with `--plan`, or with a study that has begun", value=study)
    if history is not None:
        _close(console, engine.resume(place, console, extend=extend, as_started=as_started), folder)
        return
    for remark in remarks:
        console.warn(remark)
    spec = with_costs(tune(spec, place, console))
    source = engine.Source(find_study(study), sets)
    _close(console, engine.run(spec, place, console, source), folder)


@app.command(epilog="Example:  raykd resume quickstart --extend 12")
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
    folder = _folder(_writable(storage, probe=True), name)
    if repair:
        from raykd.runs import repair as mending

        console.warn(mending.repair(folder) or "the ledger is whole: there is nothing to repair")
    place = engine.Place(folder, address)
    _close(console, engine.resume(place, console, extend=extend, as_started=as_started), folder)


@app.command(epilog="Example:  raykd attach quickstart")
def attach(name: Name, storage: Storage = HERE) -> None:
    """Show what a running sweep says that `ray submit` started; Ctrl-C stops the sweep."""
    from raykd.runs import terminal

    raise typer.Exit(terminal.attach(_folder(storage, name)))


@app.command(epilog="Example:  raykd status quickstart --json")
def status(name: Name, storage: Storage = HERE, json: Json = False) -> None:
    """How a sweep stands: running, interrupted or done."""
    from raykd.records import views

    console = Console()
    folder = _folder(storage, name)
    history = views.read(folder)
    data = views.status(history, folder)
    if not data["driver"]:
        views.refresh(history, folder)
    if json:
        console.json(data)
        return
    driver = data["driver"]
    console.text(
        f"{name}: "
        + (f"running, driven by process {driver['pid']} on {driver['host']}" if driver else data["state"])
    )
    for repaired in history.repairs:
        console.text("its ledger was repaired: " + views.repaired(repaired))
    console.standing(history)
    console.trials(history)
    if data["state"] == "interrupted":
        console.text(f"go on with it:  {resume_hint(folder)}")


@app.command(epilog="Example:  raykd best quickstart --json")
def best(name: Name, storage: Storage = HERE, json: Json = False) -> None:
    """The best trial, and what it has to be compared with."""
    from raykd.records import views

    console = Console()
    folder = _folder(storage, name)
    history = views.read(folder)
    data = views.best(history)
    if json:
        console.json(data)
        return
    console.summary(history, folder)


@app.command(epilog="Example:  raykd importance quickstart --evaluator pedanova")
def importance(
    name: Name,
    storage: Storage = HERE,
    evaluator: Annotated[str, typer.Option(help="fanova | pedanova | mdi")] = "fanova",
    resamples: Annotated[int, typer.Option(min=20, help="Of the bootstrap, for the intervals.")] = 200,
    json: Json = False,
) -> None:
    """Which axes of a sweep matter, how sure that is, and whether the sweep is too small to say."""
    from raykd.records import views
    from raykd.search import importance as weigh
    from raykd.spec.sweep import SweepSpec

    console = Console()
    history = views.read(_folder(storage, name))
    spec = SweepSpec.model_validate(history.spec)

    def progress(done: int, total: int) -> None:
        if not json and done < total:
            console.progress("resamples", done, total)

    found = weigh.importances(spec, history, evaluator, resamples=resamples, progress=progress)
    if json:
        console.json(asdict(found))
    else:
        console.importance(found)


@app.command(epilog="Example:  raykd report quickstart --out quickstart.html")
def report(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: report.html in the sweep's folder.")
    ] = None,
    storage: Storage = HERE,
) -> None:
    """One HTML page of a sweep or a study that needs no network: to read, to print, to mail."""
    from raykd.report import REPORT, write

    console = Console()
    folder = _folder(storage, name)

    def progress(done: int, total: int) -> None:
        if done < total:
            console.progress("resamples of importances", done, total)

    if out is None:
        folder.mkdir(parents=True, exist_ok=True)  # of a sweep elsewhere there may be no copy here yet
    written = write(folder, folder / REPORT if out is None else out, progress)
    if out is None:
        publish(written)
    console.text(f"written to {written} ({written.stat().st_size / 1e6:.1f} MB, opens without a network)")


@app.command(epilog="Example:  raykd export quickstart --out student")
def export(
    name: Name,
    out: Annotated[Path, typer.Option(help="New folder for the student.")],
    trial: Annotated[str | None, typer.Option(help="Which trial; default: the best.")] = None,
    storage: Storage = HERE,
) -> None:
    """Write a trial's config, command, student and model card."""
    from raykd.export.trial import export as write

    console = Console()
    written = write(_folder(storage, name), trial, out)
    console.text(f"written to {out}: " + ", ".join(sorted(p.name for p in written.iterdir())))


@app.command("list", epilog="Example:  raykd list methods")
def list_(
    what: Annotated[str, typer.Argument(help="methods | spaces | studies | data | teachers | students")],
    pattern: Annotated[
        str | None, typer.Argument(help="Of students: a name, or several, as 'mobilenet*'.")
    ] = None,
    storage: Storage = HERE,
    image_size: Annotated[
        int | None, typer.Option(help="Of students: side of the images, pixels; default: 32.")
    ] = None,
    json: Json = False,
) -> None:
    """What there is to choose from."""
    from raykd.spec import catalogue

    console = Console()
    place = storage_folder(storage, check=what == "teachers")
    columns, rows = catalogue.catalogue(what, place, pattern, image_size)
    if json:
        console.json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        said = {None: "", True: "yes", False: "no"}
        console.rows(
            columns, [[said[c] if c is None or isinstance(c, bool) else c for c in row] for row in rows]
        )


@app.command(epilog="Example:  raykd doctor retro --cluster cluster.yaml")
def doctor(
    spec: Annotated[str | None, typer.Argument(help="Also check what this spec needs.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Where sweeps go; default: RAYKD_STORAGE of the machine that checks.")
    ] = None,
    set_: Sets = None,
    cluster: Annotated[
        Path | None,
        typer.Option(help="The file that `ray up` took: check that cluster, from any machine, by its head."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Check the running cluster there; `auto`: the one of this machine.")
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(help="With --address: the nodes that should be there, or how many."),
    ] = None,
    json: Json = False,
) -> None:
    """Check this machine, or a whole cluster, before anything is spent."""
    from raykd.doctor.checkup import checkup

    console, found = Console(), []
    for check in checkup(spec, storage, set_ or [], cluster, address, nodes):
        found.append(check)
        if not json:
            console.checks([check])
    if json:
        console.json([check._asdict() for check in found])
    if any(check.ok is False for check in found):
        raise typer.Exit(1)


@teacher.command(epilog="Example:  raykd teacher inspect moco_v2_800ep_pretrain.pth.tar --arch resnet50")
def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint: .pth, .pth.tar, .ckpt, .safetensors ...")],
    arch: Annotated[
        str | None, typer.Option(help="Check that it is this one; default: compare with the usual ones.")
    ] = None,
    json: Json = False,
) -> None:
    """Whose a checkpoint is, what it holds, and which methods it can teach. Nothing in it is run."""
    from raykd.export.teacher import inspect as look

    console = Console()
    found = look(file, arch)
    if json:
        console.json(found)
    else:
        console.teacher(found)


def _writable(given: str, probe: bool) -> Path:
    """The storage, if a folder is or could be there; with `probe` only if it can be written in."""
    storage = storage_folder(given)
    if origin_of(storage) is not None:
        return storage
    above = next(path for path in (storage, *storage.absolute().parents) if path.exists())
    if not above.is_dir():
        raise UserError("--storage", f"{above} is a file", value=given, expected="a folder")
    try:
        if probe:  # what it says of itself does not count: not for root, nor on a read-only disk
            TemporaryDirectory(dir=above, prefix=".raykd-").cleanup()
    except OSError as error:
        problem = f"{above} cannot be written in: {error.strerror}"
        raise UserError("--storage", problem, value=given, expected="a folder of yours") from None
    return storage


def _folder(storage: str | Path, name: str) -> Path:
    from raykd.records.views import find

    return find(storage_folder(storage), name)


def _study_of(history: History) -> SweepSpec:
    """The spec of a study that has begun; `UserError` for a search."""
    from raykd.spec.sweep import SweepSpec

    if not history.study:
        name = history.spec["name"]
        raise UserError("STUDY", "is a search, no study", value=name, expected=f"`raykd resume {name}`")
    return SweepSpec.model_validate(history.spec)


def _close(console: Console, history: History, folder: Path) -> None:
    """Show what a sweep found; exit code 1 where it is not complete or nothing succeeded."""
    if history.study:
        from raykd.ablation.conclusions import conclude
        from raykd.ablation.report import terminal, write

        results = conclude(_study_of(history), history)
        write(results, folder)
        mirror(folder)
        console.parts(terminal(results, folder))
    else:
        console.summary(history, folder)
    console.parts([Line(f"page:       {report_hint(folder)}", "dim")])
    counts = history.counts()
    unfinished = history.total - sum(counts[s] for s in ("finished", "stopped", "failed"))
    if unfinished > 0:
        console.warn(f"{unfinished} trials are not done; go on with:  {resume_hint(folder)}")
        raise typer.Exit(1)
    if not counts["finished"] and not counts["stopped"]:
        raise typer.Exit(1)


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
