"""Shows a sweep while it runs, one line an event, and its results at the end."""

from __future__ import annotations

import logging
import math
import shlex
import threading
import time
from collections.abc import Sequence

from rich.console import Console as Rich
from rich.markup import escape

from raykd.console.screen import Screen
from raykd.console.sizes import HEADINGS, refused_last, shown_sizes, size_cells
from raykd.console.wording import (
    comparison,
    counted,
    headings,
    probes,
    ranked,
    score_of,
    settings,
    standing,
    status_of,
)
from raykd.records.history import History, TrialRecord
from raykd.records.ledger import Record
from raykd.storage.base import SweepFolder
from raykd.storage.commands import command
from trainables.core.safe_text import line

_TABLE_EVERY_S = 60.0
_FIRST_REFUSED, _EVERY_REFUSED = 3, 25  # which refused configurations are said
log = logging.getLogger("raykd.console")


class Console(Screen):
    """Shows a running sweep: as a listener of the recorder, and by `say` for what is no record."""

    def __init__(self, rich: Rich | None = None) -> None:
        super().__init__(rich)
        self._began = time.monotonic()
        self._table_at = time.monotonic()
        self._progress_at: dict[str, float] = {}
        self._lock = threading.Lock()

    # Events -----------------------------------------------------------------------------------------

    def say(self, text: str, style: str = "") -> None:
        """Show one line with the minutes and seconds since the start, and write it to the log."""
        log.info("%s", text)
        elapsed = int(time.monotonic() - self._began)
        stamp = f"{elapsed // 60:3d}:{elapsed % 60:02d}  "
        lines = escape("\n".join(self.wrapped(line(text), " " * len(stamp), hang=""))[len(stamp) :])
        with self._lock:
            self.out.print(f"[dim]{stamp}[/dim]" + (f"[{style}]{lines}[/{style}]" if style else lines))

    def waits_for(self, what: str) -> None:
        """Show what the next seconds are spent on, on a terminal only."""
        if self.out.is_terminal:
            self.say(what, "dim")

    def warn(self, text: str) -> None:
        """Show one line in yellow, as `say` does."""
        self.say(text, "yellow")

    def progress(self, what: str, done: int, total: int, said: str = "") -> None:
        """Show how far a long piece of work is: at most one line in ten seconds, and the last one."""
        now = time.monotonic()
        if done >= total or now - self._progress_at.setdefault(what, now) >= 10:
            self._progress_at[what] = now
            self.say(f"{what}: {done} of {total}{said}")

    def __call__(self, record: Record, history: History) -> None:
        """Show a record that was just written."""
        kind = record["kind"]
        if kind == "start":
            trial = history.trials[record["trial"]]
            again = f", attempt {record['attempt']}" if record["attempt"] > 1 else ""
            from_epoch = f" from epoch {trial.epoch + 1}" if trial.epoch else ""
            self.say(f"{trial.trial} started{from_epoch} on {record['lane']}{again}: {settings(trial)}")
        elif kind == "verdict" and record.get("audit"):
            self.say(
                f"{record['trial']} was to stop at epoch {record['epoch']}; it runs on for the audit", "dim"
            )
        elif kind == "end":
            self._ended(history.trials[record["trial"]], history)
        elif kind == "reference":
            self.say(f"{record['label']}: {score_of(record['metrics'])}")
        elif kind == "latency":
            said = "{median_ms:.3g} ms a forward pass (quartiles {low_ms:.3g} and {high_ms:.3g})"
            self.say(f"{record['label']}: {said.format(**record['metrics'])} on {record['where']}")
        elif kind == "quarantine":
            self.warn(f"{record['gpu']} is in quarantine, no lane is placed there: {record['reason']}")
        elif kind == "repeat":
            if record.get("over"):
                count = len(history.refused)
                if count <= _FIRST_REFUSED or count % _EVERY_REFUSED == 0:
                    so_far = f" ({count} so far)" if count > 1 else ""
                    self.say(f"{record['name']} is refused{so_far}: {record['reason']}", "dim")
            elif record["trial"] is None:
                self.warn(f"a proposal cannot be trained: {record['reason']}")
            else:
                self.say(f"{record['trial']} was proposed again, which costs nothing", "dim")
        elif kind == "exhausted":
            trials = len(history.trials)
            if history.study:
                self.say(f"every answer is there after {counted(trials, 'trial')}", "green")
            elif (refused := refused_last(history)) is not None:
                self.warn(refused)
            else:
                these = "this one trial" if trials == 1 else f"these {trials} trials"
                self.say(f"the space holds no further configuration than {these}")

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
        """Show how far the sweep is: counts, best score, time left."""
        self.say(standing(history), "bold")

    # Results ----------------------------------------------------------------------------------------

    def trials(self, history: History, driven: bool, most: int = 20) -> None:
        """Show the trials, best first, at most `most`, with their values on the axes."""
        trials = ranked(history)
        axes = list(dict.fromkeys(name for t, *_ in trials for name in t.params))
        sizes = shown_sizes(history)
        rows = []
        for t, score, se in trials[:most]:
            row = [t.trial, status_of(t.status, driven), t.epoch, score, se, *size_cells(t.size, sizes)]
            rows.append([*row, *(t.params.get(axis, "") for axis in axes)])
        heads = ["trial", "status", "epoch", "score", "± se", *(HEADINGS[name] for name in sizes)]
        self.rows((*heads, *axes), rows, elsewhere="trials.parquet")
        if len(trials) > most:
            self.text(f"and {len(trials) - most} more in trials.parquet", "dim")
        if history.refused:
            said = f"{counted(len(history.refused), 'configuration')} refused"
            self.text(f"{said}; the last: {history.refused[-1]['reason']}", "dim")

    def summary(self, history: History, sweep: SweepFolder, advice: Sequence[str] = ()) -> None:
        """Show the best trials, the comparison with the references, `advice`, and where to find more."""
        rows = comparison(history)
        metrics = probes(m for _, m in rows)
        self.out.print()
        self.trials(history, sweep.driver() is not None, most=12)
        self.out.print()
        cells = [(label, *(m.get(k, "") for k in metrics)) for label, m in rows]
        self.rows(("", *headings(metrics)), cells)
        self.out.print()
        for said in advice:
            self.text(said)
        if advice:
            self.out.print()
        best = history.best()
        if best is not None:
            self.text(f"best trial {best.trial}: {settings(best)}")
            self.text(f"export it:  {command('export', sweep, '--out', 'student')}", "dim")
        curves = _seen(sweep, "tensorboard")
        needs = "  (needs raykd[s3])" if curves.startswith("s3://") else ""
        self.text(f"curves:     tensorboard --logdir {shlex.quote(curves)}{needs}", "dim")
        tables = ", ".join(_seen(sweep, f"{name}.parquet") for name in ("trials", "curves"))
        self.text(f"tables:     {tables}", "dim")


def _seen(sweep: SweepFolder, name: str) -> str:
    """Where a user finds this file: on this machine, else on the remote storage."""
    path = sweep.path / name
    return str(path) if path.exists() else sweep.storage.shown(path)
