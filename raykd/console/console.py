"""The only module that prints. A line an event, a table now and then; data as tables or as JSON."""

from __future__ import annotations

import json
import math
import shlex
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console as Rich
from rich.markup import escape
from rich.table import Table

from raykd.records.history import ENDED, History, TrialRecord
from raykd.records.ledger import Record
from raykd.storage.folders import named, option

if TYPE_CHECKING:
    from raykd.search.importance import Importances

_TABLE_EVERY_S = 60.0


class Line(NamedTuple):
    """A line of text."""

    text: str = ""
    style: str = ""  # one of rich's: bold, dim, yellow


class Grid(NamedTuple):
    """A table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Console:
    """Shows a sweep as it goes: a listener of the recorder, which the sweep also tells what is no record."""

    def __init__(self, rich: Rich | None = None) -> None:
        self.out = rich or Rich(highlight=False, soft_wrap=True)
        if not self.out.is_terminal:
            self.out.width = 160  # a file or a pipe has room; 80 columns would cut the tables
        self._began = time.monotonic()
        self._table_at = time.monotonic()
        self._progress_at: dict[str, float] = {}
        self._lock = threading.Lock()

    # Events -----------------------------------------------------------------------------------------

    def say(self, text: str, style: str = "") -> None:
        """One line, with the minutes and seconds since the start."""
        elapsed = int(time.monotonic() - self._began)
        with self._lock:
            stamp = f"[dim]{elapsed // 60:3d}:{elapsed % 60:02d}[/dim]  "
            self.out.print(stamp + (f"[{style}]{escape(text)}[/{style}]" if style else escape(text)))

    def warn(self, text: str) -> None:
        self.say(text, "yellow")

    def progress(self, what: str, done: int, total: int, said: str = "") -> None:
        """A line about a long piece of work, at most one in ten seconds, and the last."""
        now = time.monotonic()
        if done >= total or now - self._progress_at.setdefault(what, now) >= 10:
            self._progress_at[what] = now
            self.say(f"{what}: {done} of {total}{said}")

    def __call__(self, record: Record, history: History) -> None:
        """A record was written."""
        kind = record["kind"]
        if kind == "start":
            trial = history.trials[record["trial"]]
            again = f", attempt {record['attempt']}" if record["attempt"] > 1 else ""
            from_epoch = f" from epoch {trial.epoch + 1}" if trial.epoch else ""
            self.say(f"{trial.trial} started{from_epoch} on {record['lane']}{again}: {settings(trial)}")
        elif kind == "end":
            self._ended(history.trials[record["trial"]], history)
        elif kind == "reference":
            self.say(f"{record['label']}: {score_of(record['metrics'])}")
        elif kind == "repeat":
            if record["trial"] is None:
                self.warn(f"a proposal cannot be trained: {record['reason']}")
            else:
                self.say(f"{record['trial']} was proposed again, which costs nothing", "dim")
        elif kind == "exhausted":
            trials = len(history.trials)
            if history.study:
                self.say(f"every answer is there after {trials} trials", "green")
            else:
                self.say(f"the space holds no further configuration than these {trials} trials")

    def _ended(self, trial: TrialRecord, history: History) -> None:
        if trial.status == "failed":
            self.say(f"{trial.trial} failed at epoch {trial.epoch}: {trial.reason}", "red")
        else:
            score, epoch = trial.best or (math.nan, 0)
            leader = history.best()
            new = leader is not None and leader.trial == trial.trial
            text = f"{trial.trial} {trial.status} at epoch {trial.epoch}: {score:.2f}"
            text += f" (epoch {epoch})" if epoch != trial.epoch else ""
            self.say(text + ("  best so far" if new else ""), "green" if new else "")
        if time.monotonic() - self._table_at > _TABLE_EVERY_S:
            self._table_at = time.monotonic()
            self.standing(history)

    def standing(self, history: History) -> None:
        """How far the sweep is: counts, best, time left."""
        counts = history.counts()
        total = history.total
        ended = sum(counts[s] for s in ENDED)
        said = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
        left = time_left(history)
        best = history.best()
        text = f"{ended} of {total} trials ended ({said})"
        if best is not None and best.best is not None:
            text += f"; best {best.best[0]:.2f} by {best.trial}"
        if left:
            text += f"; about {duration(left)} left"
        self.say(text, "bold")

    # Results ----------------------------------------------------------------------------------------

    def trials(self, history: History, most: int = 20) -> None:
        """The trials, best first, with the axes that were searched."""
        trials = sorted(history.trials.values(), key=lambda t: -(t.best[0] if t.best else -math.inf))
        axes = list(dict.fromkeys(name for t in trials for name in t.params))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("trial", "status", "epoch", "score", "± se"):
            table.add_column(
                column, justify="left" if column in ("trial", "status") else "right", no_wrap=True
            )
        for axis in axes:
            table.add_column(axis, justify="right")
        for trial in trials[:most]:
            score, epoch = trial.best or (math.nan, 0)
            se = trial.reports.get(epoch, {}).get("score_se", math.nan)
            row = [trial.trial, trial.status, str(trial.epoch), number(score), number(se)]
            table.add_row(*row, *(number(trial.params.get(axis, "")) for axis in axes))
        self.out.print(table)
        if len(trials) > most:
            self.out.print(f"[dim]and {len(trials) - most} more in trials.parquet[/dim]")

    def summary(self, history: History, folder: Path) -> None:
        """What the sweep found, beside what it has to be compared with."""
        rows = comparison(history)
        names = list(
            dict.fromkeys(k for _, m in rows for k in m if k.startswith("probe/") and not k.endswith("_se"))
        )
        table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
        table.add_column("", no_wrap=True)
        for column in ("score", "± se", *(n.removeprefix("probe/") for n in names)):
            table.add_column(column, justify="right")
        for label, metrics in rows:
            cells = [number(metrics.get(k, "")) for k in ("score", "score_se", *names)]
            table.add_row(escape(label), *cells)
        self.out.print()
        self.trials(history, most=12)
        self.out.print()
        self.out.print(table)
        self.out.print()
        best = history.best()
        if best is not None:
            self.out.print(f"best trial {best.trial}: {settings(best)}")
            self.out.print(
                f"[dim]export it:  raykd export {folder.name}{storage_option(folder)} --out student[/dim]"
            )
        self.out.print(f"[dim]curves:     tensorboard --logdir {_seen(folder / 'tensorboard')}[/dim]")
        tables = ", ".join(_seen(folder / f"{name}.parquet") for name in ("trials", "curves"))
        self.out.print(f"[dim]tables:     {tables}[/dim]")

    def parts(self, parts: Iterable[Line | Grid]) -> None:
        """Lines with their style, and tables, one after the other."""
        for part in parts:
            if isinstance(part, Line):
                self.out.print(
                    f"[{part.style}]{escape(part.text)}[/{part.style}]" if part.style else escape(part.text)
                )
            else:
                self.rows(*part)

    def plan(self, planned: Mapping[str, Any], remarks: Iterable[str]) -> None:
        """What a sweep would do."""
        text = self.out.print
        trials, epochs = planned["trials"], planned["most_epochs"]
        text(f"[bold]{planned['name']}[/bold]: {', '.join(planned['methods'])}")
        text(f"{trials} trials, at most {epochs} epochs in all; scheduler {planned['scheduler']['name']}")
        text()
        self.rows(("axis", "values", "what it is"), planned["axes"])
        text()
        text("the first configurations:")
        self.rows(
            ("trial", "seed", "settings"),
            [(s["trial"], s["seed"], _settings(s["params"])) for s in planned["samples"]],
        )
        text()
        for remark in remarks:
            text(f"[yellow]{escape(remark)}[/yellow]")
        text(f"files would go to {planned['folder']}; nothing was started")

    def checks(self, found: Iterable[Any]) -> None:
        """The doctor's findings, each failed one with how to mend it."""
        marks = {True: "[green]ok[/green]  ", False: "[red]bad[/red] ", None: "[dim]--[/dim]  "}
        for check in found:
            self.out.print(f"{marks[check.ok]}  [bold]{escape(check.name)}[/bold]: {escape(check.said)}")
            if check.ok is not True and check.mend:
                self.out.print(f"      [dim]{escape(check.mend)}[/dim]")

    def teacher(self, found: Mapping[str, Any]) -> None:
        """What a checkpoint holds, the methods it can teach, and the lines that make it a teacher."""
        grid = Table.grid(padding=(0, 3))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        under = f", under `{found['container']}`" if found["container"] else ""
        rows = [("origin", found["origin"] + under), ("architecture", _architecture(found["architecture"]))]
        for role, count in found["roles"].items():
            told = {"backbone": f"{found['parameters']:,} parameters", "head": found["head"]["text"]}
            if role == "classifier":
                told[role] = f"{found['classes']} classes" if found["classes"] else "not one linear layer"
            held = f"{count} tensor{'s' if count != 1 else ''}"
            rows.append((role, held + (f": {told[role]}" if role in told else "")))
        rows.append(("SHA-256", found["sha256"]))
        for name, text in rows:
            grid.add_row(escape(name), escape(text))
        self.out.print(f"[bold]{escape(found['file'])}[/bold]", grid, sep="\n")
        if found["remark"]:
            self.out.print(f"[yellow]{escape(found['remark'])}[/yellow]")
        self.out.print()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("method", "can learn from it", ""):
            table.add_column(column, overflow="fold")
        marks = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "[dim]perhaps[/dim]"}
        for name, said in found["serves"].items():
            table.add_row(name, marks[said["can"]], f"[dim]{escape(said['why'])}[/dim]")
        self.out.print(table)
        self.out.print(f"\n[dim]in a search space:[/dim]\n{escape(found['paste'])}")

    def importance(self, found: Importances) -> None:
        """What share each axis has, table by table, with what it stands on and what speaks against it."""
        left = ", ".join(f"{n} {why}" for why, n in found.left_out.items() if n)
        text = f"best score up to epoch {found.epoch} of {found.epochs}: {found.trials} trials"
        text += f" of {found.configurations} configurations" + (f"; left out: {left}" if left else "")
        self.out.print(f"importances by {found.evaluator} ({found.meaning}), with 95 % intervals")
        self.out.print(text)
        for line in found.warnings:
            self.out.print(f"[yellow]{escape(line)}[/yellow]")
        for weighed in found.tables:
            self.out.print(
                f"\n[bold]{escape(weighed.label)}[/bold] ({weighed.configurations} configurations)"
            )
            if weighed.shares:
                cells = [
                    (s.axis, *(f"{100 * x:.0f} %" for x in (s.share, s.low, s.high))) for s in weighed.shares
                ]
                self.rows(("axis", "share", "from", "to"), cells)
            for line in weighed.warnings:
                self.out.print(f"[yellow]{escape(line)}[/yellow]")

    # Data -------------------------------------------------------------------------------------------

    def json(self, data: Any) -> None:
        """Machine-readable output: one JSON document. Numbers that JSON lacks become null."""
        self.out.print(json.dumps(_finite(data), indent=2, default=str), markup=False, highlight=False)

    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(escape(number(cell)) for cell in row))
        self.out.print(table)

    def text(self, text: str) -> None:
        self.out.print(escape(text))


def comparison(history: History) -> list[tuple[str, Mapping[str, float]]]:
    """(label, metrics) of the best and the worst trial and of every reference, best score first."""
    best = history.best()
    scored = [t for t in history.trials.values() if t.best is not None and t is not best]
    worst = min(scored, key=lambda t: (t.best or (0.0, 0))[0], default=None)
    rows: list[tuple[str, Mapping[str, float]]] = []
    for label, trial in (("best trial", best), ("worst trial", worst)):
        if trial is not None and trial.best is not None:
            epoch = trial.best[1]
            rows.append((f"{label} {trial.trial}, epoch {epoch}", trial.reports[epoch]))
    rows += [(record["label"], record["metrics"]) for record in history.references.values()]
    return sorted(rows, key=lambda row: -row[1].get("score", -math.inf))


def _architecture(found: Mapping[str, Any]) -> str:
    """`resnet50, by names and shapes; every weight fits (the file says resnet50)`."""
    guess, asked = found["guess"], found["asked"]
    name = asked or (guess["arch"] if guess is not None else "none of the usual ones")
    options = guess["options"] if guess is not None and guess["arch"] == name else {}
    said = f" (the file says {found['said']})" if found["said"] else ""
    text = name + (f" with {', '.join(f'{k} {v}' for k, v in options.items())}" if options else "")
    text += "" if asked or guess is None else ", by names and shapes"
    return text + ("; every weight fits" if found["verified"] else "") + said


def settings(trial: TrialRecord) -> str:
    """The searched settings of a trial in one line."""
    return _settings(trial.params)


def _settings(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in params.items()) or "no axes"


def score_of(metrics: Mapping[str, float]) -> str:
    score, se = metrics.get("score", math.nan), metrics.get("score_se")
    return f"{score:.2f}" + (f" ± {se:.2f}" if se is not None and math.isfinite(se) else "")


def number(value: Any) -> str:
    """A cell: floats to a few digits, everything else as it is."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{value:.2f}" if 1 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"
    return str(value)


def duration(seconds: float) -> str:
    """1 h 05 min, 4 min, 30 s."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_left(history: History) -> float | None:
    """Seconds until the sweep ends if trials go on as the ended ones did; None before one has ended."""
    ended = [t for t in history.trials.values() if t.status in ENDED]
    if not ended:
        return None
    at_once = max(1, history.counts()["running"])
    left = history.total - len(ended)
    return sum(t.wall_s for t in ended) / len(ended) * left / at_once


def report_hint(folder: Path) -> str:
    """The command that writes a sweep's page."""
    return f"raykd report {folder.name}{storage_option(folder)}"


def resume_hint(folder: Path) -> str:
    """The command that goes on with a sweep."""
    return f"raykd resume {folder.name}{storage_option(folder)}"


def storage_option(folder: Path) -> str:
    """What a command says of the storage, with a blank before it; nothing where it is the default."""
    return "" if folder.parent == Path("sweeps") else f" --storage {shlex.quote(option(folder.parent))}"


def _seen(path: Path) -> str:
    """Where this machine finds a view: of a remote sweep that another one drives, on the storage."""
    return str(path) if path.exists() else named(path)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def complain(problem: str) -> None:
    """A user's mistake, on standard error."""
    Rich(stderr=True, highlight=False, soft_wrap=True).print(f"[red]raykd:[/red] {escape(problem)}")
