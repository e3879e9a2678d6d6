"""Shows a sweep's status, a plan, the doctor's findings, a checkpoint, and the importances of axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from raykd.console.live import Console
from raykd.console.screen import Screen
from raykd.console.sizes import HEADINGS, differing, size_cells
from raykd.console.wording import counted, duration, settings_of, standing
from raykd.records.earlier import USES
from raykd.records.history import History
from raykd.records.views import repaired
from raykd.storage.base import SweepFolder
from raykd.storage.commands import command

if TYPE_CHECKING:
    from raykd.searching.importance import Importances


def status(console: Console, history: History, data: Mapping[str, Any], sweep: SweepFolder) -> None:
    """Show the status of a sweep: its driver, repairs and trials. `data` is of `records.views.status`."""
    driver = data["driver"]
    state = f"running, driven by process {driver['pid']} on {driver['host']}" if driver else data["state"]
    console.text(f"{sweep.path.name}: {state}")
    for record in history.repairs:
        console.text("its ledger was repaired: " + repaired(record))
    for gpu in history.quarantined:
        console.text(f"{gpu['gpu']} is in quarantine: {gpu['reason']}", "yellow")
    if history.earlier is not None:
        console.text(history.earlier.describe())
    if history.lane_s:
        console.text(f"of its budget, {duration(history.lane_s)} of lanes are spent")
    console.text(standing(history, bool(driver)), "bold")
    console.trials(history, bool(driver))
    if data["state"] == "interrupted":
        console.text(f"go on with it:  {command('resume', sweep)}")


def plan(screen: Screen, planned: Mapping[str, Any], remarks: Iterable[str]) -> None:
    """Show the plan of a search, as `runs.plan` makes it."""
    text = screen.out.print
    trials, epochs = planned["trials"], planned["most_epochs"]
    text(f"[bold]{escape(planned['name'])}[/bold]: {escape(', '.join(planned['methods']))}")
    most = f"at most {counted(epochs, 'epoch')} in all"
    text(f"{counted(trials, 'trial')}, {most}; scheduler {planned['scheduler']['name']}")
    if planned["audit"]:
        screen.text(audit_line(planned["audit"]))
    text(planned["devices"])
    if planned["room"]:
        screen.text(planned["room"])
    for line in besides(planned["beside"]):
        text(line)
    if planned["beside"]:
        text(f"with these, at most the compute of {_several(planned['most_trials'])}")
    for line in (
        *planned.get("budget", {}).get("lines", ()),
        *planned["targets"]["lines"],
        *planned["data"]["lines"],
    ):
        screen.text(line)
    text()
    screen.rows(("axis", "values", "what it is"), planned["axes"])
    if planned["warm_start"]:
        text("\nearlier trials:")
        rows = [
            (row["sweep"], str(row["trials"]), USES[row["use"]], row["reason"])
            for row in planned["warm_start"]
        ]
        screen.rows(("sweep", "trials", "are", "because"), rows)
    text()
    text("the first configurations:")
    sizes = differing([s["size"] for s in planned["samples"]])
    screen.rows(
        ("trial", "seed", "by", *(HEADINGS[name] for name in sizes), "settings"),
        [
            (s["trial"], s["seed"], s["origin"], *size_cells(s["size"], sizes), settings_of(s["params"]))
            for s in planned["samples"]
        ],
    )
    text()
    for remark in remarks:
        screen.text(remark, "yellow")
    text(f"files would go to {escape(str(planned['folder']))}; nothing was started")


def audit_line(found: Mapping[str, Any]) -> str:
    """What the audit of the proxy is expected to cost."""
    trials, epochs, of = (round(found[name]) for name in ("trials", "epochs", "of"))
    said = f"audit of the proxy: {found['share']:.0%} of the stopped trials run on"
    said += f", about {counted(trials, 'trial')}"
    return f"{said}; that adds about {counted(epochs, 'epoch')} to about {of}, {epochs / max(1, of):.0%}"


def besides(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines on what is trained besides a sweep's trials."""
    return [
        f"besides, {row['what']}: {counted(row['epochs'], 'epoch')} of {row['method']}"
        + (f", the compute of {_several(row['trials'])}" if "trials" in row else "")
        + f", {row['when']}"
        for row in rows
    ]


def _several(trials: float) -> str:
    if trials == 1:
        return "one whole trial"
    return f"{trials:,.0f} whole trials" if trials >= 100 else f"{trials:.3g} whole trials"


def checks(screen: Screen, found: Iterable[Any]) -> None:
    """Show the doctor's findings, and how to repair those that failed."""
    marks = {True: "[green]ok[/green]  ", False: "[red]bad[/red] ", None: "[dim]--[/dim]  "}
    for check in found:
        screen.out.print(f"{marks[check.ok]}  [bold]{escape(check.name)}[/bold]: {escape(check.said)}")
        if check.ok is not True and check.mend:
            screen.out.print(f"      [dim]{escape(check.mend)}[/dim]")


def teacher(screen: Screen, found: Mapping[str, Any]) -> None:
    """Show what a checkpoint holds, the methods it can teach, and the YAML lines that use it as a teacher."""
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    under = f", under `{found['container']}`" if found["container"] else ""
    rows = [("origin", found["origin"] + under), ("architecture", _architecture(found["architecture"]))]
    for role, count in found["roles"].items():
        told = {
            "backbone": f"{found['parameters']:,} parameters",
            "head": found["head"]["text"] or found["head"]["problem"],
        }
        if role == "classifier":
            told[role] = f"{found['classes']} classes" if found["classes"] else "not one linear layer"
        held = counted(count, "tensor")
        rows.append((role, held + (f": {told[role]}" if role in told else "")))
    if found["precision"] != "float32":
        rows.append(("precision", f"{found['precision']}, read to float32"))
    pixels = found["normalisation"]
    named = {"mean": pixels["mean"], "deviation": pixels["std"]}
    said = [f"{name} {', '.join(f'{one:.4g}' for one in values)}" for name, values in named.items() if values]
    rows.append(("pixels", ", ".join([*said, f"by {pixels['by']}"])))
    rows.append(("images", _images(found["preprocessing"], pixels["range"])))
    rows.append(("SHA-256", found["sha256"]))
    for name, text in rows:
        grid.add_row(escape(name), escape(text))
    screen.out.print(f"[bold]{escape(found['file'])}[/bold]", grid, sep="\n")
    for said in filter(None, (found["remark"], pixels["remark"])):
        screen.out.print(f"[yellow]{escape(said)}[/yellow]")
    screen.out.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", "can learn from it", ""):
        table.add_column(column, overflow="fold")
    marks = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "[dim]perhaps[/dim]"}
    for name, said in found["serves"].items():
        table.add_row(name, marks[said["can"]], f"[dim]{escape(said['why'])}[/dim]")
    screen.out.print(table)
    screen.out.print(f"\n[dim]in a search space:[/dim]\n{escape(found['paste'])}")


def _images(found: Mapping[str, Any], span: list[float] | None) -> str:
    """`RGB, values -1 to 1, bicubic, crop share 0.9, trained on 224 px`, as far as it is known."""
    share = found["crop_share"]
    said = {
        f"values {span[0]:.4g} to {span[1]:.4g}" if span else "": bool(span),
        f"{found['interpolation']} resizing": bool(found["interpolation"]),
        f"crop share {share:.4g}" if isinstance(share, float) else "cropped as the data": bool(share),
        f"trained on {found['image_size']} px": bool(found["image_size"]),
    }
    return ", ".join([found["channels"].upper(), *(text for text, known in said.items() if known)])


def importance(screen: Screen, found: Importances) -> None:
    """Show the importance of each axis with its interval, the trials it rests on, and warnings."""
    left = ", ".join(f"{n} {why}" for why, n in found.left_out.items() if n)
    text = f"best score up to epoch {found.epoch} of {found.epochs}: {counted(found.trials, 'trial')}"
    text += f" of {counted(found.configurations, 'configuration')}" + (f"; left out: {left}" if left else "")
    screen.out.print(f"importances by {found.evaluator} ({found.meaning}), with 95 % intervals")
    screen.out.print(escape(text))
    for line in found.warnings:
        screen.text(line, "yellow")
    for weighed in found.tables:
        screen.out.print(
            f"\n[bold]{escape(weighed.label)}[/bold] ({counted(weighed.configurations, 'configuration')})"
        )
        if weighed.shares:
            cells = [
                (s.axis, *(f"{100 * x:.0f} %" for x in (s.share, s.low, s.high))) for s in weighed.shares
            ]
            screen.rows(("axis", "share", "from", "to"), cells)
        for line in weighed.warnings:
            screen.text(line, "yellow")


def _architecture(found: Mapping[str, Any]) -> str:
    """`resnet50, by names and shapes; every weight fits (the file says resnet50)`; or by its config.json."""
    guess, asked = found["guess"], found["asked"]
    name = asked or (guess["arch"] if guess is not None else "none of the usual ones")
    options = guess["options"] if guess is not None and guess["arch"] == name else {}
    said = f" (the file says {found['said']})" if found["said"] else ""
    text = name + (f" with {', '.join(f'{k} {v}' for k, v in options.items())}" if options else "")
    text += "" if asked or guess is None else f", by {found['by']}"
    return text + ("; every weight fits" if found["verified"] else "") + said
