"""The verbs that need no sweep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raykd.cli.common import HERE, Json, Sets, Storage
from raykd.cli.flags import flags
from raykd.console import answers
from raykd.console.live import Console
from raykd.storage.open_storage import open_storage

if TYPE_CHECKING:
    from raykd.doctor.check import Check

verbs = typer.Typer()
teacher = typer.Typer(no_args_is_help=True, help="Look at a checkpoint before it teaches.")
verbs.add_typer(teacher, name="teacher")


@verbs.command("list", epilog="Example:  raykd list methods")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="methods | spaces | studies | suites | data | teachers | students | probes | samplers "
            "| schedulers | sweeps"
        ),
    ],
    pattern: Annotated[
        str | None, typer.Argument(help="Of students: a name, or several, as 'mobilenet*'.")
    ] = None,
    copy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of spaces, studies and suites: copy this one into the current folder."
        ),
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
    if copy is not None:
        file, command = catalogue.copied(what, copy, pattern, image_size)
        if json:
            console.json({"file": str(file), "command": command})
        else:
            console.text(f"written to {file}; run it with:  {command}")
        return
    if what == "sweeps":
        catalogue.refuse_options_of_students(what, pattern, image_size)
        _sweeps(console, storage, json)
        return
    place = open_storage(storage, check=what == "teachers")
    columns, rows = catalogue.catalogue(what, place, pattern, image_size)
    if json:
        console.json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        said = {None: "", True: "yes", False: "no"}
        console.entries(
            columns, [[said[c] if c is None or isinstance(c, bool) else c for c in row] for row in rows]
        )


def _sweeps(console: Console, storage: str, json: bool) -> None:
    """Show the sweeps of a storage."""
    from raykd.console import beside
    from raykd.overview import listing

    place = open_storage(storage)
    found = listing.sweeps(place)
    console.json([dict(row) for row in found]) if json else beside.sweeps(console, found, str(place))


@verbs.command(epilog="Example:  raykd doctor retro --cluster cluster.yaml")
@flags(loads_torch=True)
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

    _show(checkup(spec, storage, set_ or [], cluster, address, nodes), json)


def _show(checks: Iterator[Check], json: bool) -> None:
    """Show checks as they are done. Raises exit code 1 where one has failed."""
    console, found = Console(), []
    for check in checks:
        found.append(check)
        if not json:
            answers.checks(console, [check])
    if json:
        console.json([check._asdict() for check in found])
    if any(check.ok is False for check in found):
        raise typer.Exit(1)


@verbs.command("check-method", epilog="Example:  raykd check-method my_package.losses:MyLoss")
@flags(loads_torch=True)
def check_method(
    method: Annotated[str, typer.Argument(help="MODULE:CLASS of your own, or one in `raykd list methods`.")],
    json: Json = False,
) -> None:
    """Check that a method does what every method must do: gradients, checkpoints, memory, two workers."""
    from raykd.doctor import method_check

    _show(method_check.checks(method), json)


@verbs.command(epilog="Example:  raykd clean --targets")
def clean(
    targets: Annotated[
        bool, typer.Option("--targets", help="Remove what teachers said about views; it is computed again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """What this machine's cache holds, and how large it is; with `--targets`, free a part of it."""
    from raykd.console.wording import in_bytes
    from raykd.storage.cache_content import content, remove_targets
    from trainables.core.files import cache_folder

    console, cache = Console(), cache_folder()
    if not targets:
        found = content(cache)
        if json:
            console.json([part._asdict() for part in found])
            return
        console.text(f"{cache}: {in_bytes(sum(part.bytes for part in found))}")
        console.entries(("what", "of", "size"), [[p.kind, p.name, in_bytes(p.bytes)] for p in found])
        return
    if not yes and not typer.confirm(f"Remove all teachers' answers in {cache}?"):
        raise typer.Exit(1)
    freed = remove_targets(cache)
    console.json({"freed": freed}) if json else console.text(f"{in_bytes(freed)} freed")


@teacher.command(epilog="Example:  raykd teacher inspect moco_v2_800ep_pretrain.pth.tar --arch resnet50")
@flags(loads_torch=True)
def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint (.pth, .ckpt, .safetensors ...), or the name of published weights."
        ),
    ],
    arch: Annotated[
        str | None, typer.Option(help="Check that it is this one; default: compare with the usual ones.")
    ] = None,
    json: Json = False,
) -> None:
    """Whose a checkpoint is, what it holds, and which methods it can teach. Nothing in it is run."""
    from raykd.export.teacher import inspect as look

    console = Console()
    found = look(file, arch)
    console.json(found) if json else answers.teacher(console, found)
