"""A sweep as it goes, a line an event and a table now and then; and what it found."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

from rich.console import Console as Rich
from rich.markup import escape
from rich.table import Table

from raykd.console.screen import Screen
from raykd.console.wording import comparison, duration, number, score_of, settings, storage_option, time_left
from raykd.records.history import ENDED, History, TrialRecord
from raykd.records.ledger import Record
from raykd.storage.folders import named

_TABLE_EVERY_S = 60.0


class Console(Screen):
    """Shows a sweep as it goes: a listener of the recorder, which the sweep also tells what is no record."""

    def __init__(self, rich: Rich | None = None) -> None:
        super().__init__(rich)
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


def _seen(path: Path) -> str:
    """Where this machine finds a view: of a remote sweep that another one drives, on the storage."""
    return str(path) if path.exists() else named(path)
