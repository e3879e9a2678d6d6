"""One progress bar of a running sweep, in a terminal or under a notebook's cell; `Silent` shows nothing.

with shown(None) as console:
    runs.sweep.run(spec, place, console)
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console as Rich
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raykd.console.live import Console, log
from raykd.console.screen import Terminal
from raykd.console.wording import counted, duration, time_left
from raykd.records.history import ENDED, History
from raykd.records.ledger import Record
from trainables.core.safe_text import line

_EVERY_S = 0.25  # between two drawings in a notebook, which sends each of them to the browser
_WARNINGS = 5  # lines that a notebook keeps under the bar
_WIDTH = 30  # letters


class Silent(Console):
    """Shows nothing. What a console says is in the sweep's log."""

    def say(self, text: str, style: str = "") -> None:
        """Write one line to the log."""
        log.info("%s", text)


class Display(Protocol):
    """Where a bar is drawn."""

    def draw(self, part: float, counts: str, note: str) -> None:
        """Show the bar at `part` (0 to 1), what is counted, and what happened last."""

    def keep(self, text: str, style: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """Leave the last drawing as it is."""


class Bar(Console):
    """A progress bar: trials that have ended, best score, time left; and what happened last.

    Warnings and failed trials are lines that stay.
    """

    def __init__(self, display: Display, rich: Rich | None = None) -> None:
        super().__init__(rich)
        self._display = display
        self._part, self._counts, self._note = 0.0, "", ""

    def say(self, text: str, style: str = "") -> None:
        """Show what happens, until something else does; keep it where it is a warning."""
        log.info("%s", text)
        with self._lock:
            if style in ("yellow", "red"):
                self._display.keep(line(text), style)
            else:
                self._note = line(text)
            self._display.draw(self._part, self._counts, self._note)

    def waits_for(self, what: str) -> None:
        """Show what the next seconds are spent on."""
        self.say(what)

    def standing(self, history: History) -> None:
        """The bar says it all the time."""

    def __call__(self, record: Record, history: History) -> None:
        """Show a record that was just written."""
        if history.sweep is not None:
            self._part, self._counts = progress_of(history)
        super().__call__(record, history)
        with self._lock:
            self._display.draw(self._part, self._counts, self._note)

    def close(self) -> None:
        """Leave the bar as it is."""
        with self._lock:
            self._display.close()


def progress_of(history: History) -> tuple[float, str]:
    """How much of a sweep's epochs is done, 0 to 1, and its trials, best score and time left in words.

    A trial that was stopped counts as a whole one.
    """
    trials = list(history.trials.values())
    ended = sum(trial.status in ENDED for trial in trials)
    under_way = sum(t.epoch / t.epochs for t in trials if t.status not in ENDED and t.epochs)
    said = [f"{ended} of {counted(history.total, 'trial')}"]
    best = history.best()
    if best is not None and best.best is not None:
        said.append(f"best {best.best[0]:.2f} by {best.trial}")
    if failed := history.counts()["failed"]:
        said.append(f"{failed} failed")
    if left := time_left(history):
        said.append(f"about {duration(left)} left")
    return min(1.0, (ended + under_way) / max(1, history.total)), ", ".join(said)


class TerminalDisplay:
    """Two lines at the bottom of a terminal; what stays scrolls above them."""

    def __init__(self, rich: Rich) -> None:
        self._rich = rich
        self._live = Live(console=rich, refresh_per_second=4, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def draw(self, part: float, counts: str, note: str) -> None:
        """Show the bar."""
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1.0, completed=part, width=_WIDTH), Text(counts))
        last = Text(note, style="dim", overflow="ellipsis", no_wrap=True)
        shown: RenderableType = Group(bar, last) if counts else last  # no bar before the ledger is open
        self._live.update(shown)

    def keep(self, text: str, style: str) -> None:
        """Show a line above the bar."""
        self._rich.print(Text(text, style=style))

    def close(self) -> None:
        """Draw the bar for the last time."""
        self._live.stop()


class NotebookDisplay:
    """An output of the cell that is drawn anew. It needs no widgets, so every notebook shows it."""

    def __init__(self) -> None:
        from IPython.display import display

        self._kept: list[tuple[str, str]] = []
        self._last: tuple[float, str, str] = (0.0, "", "")
        self._at = 0.0
        self._handle: Any = display(self, display_id=True)  # type: ignore[no-untyped-call]

    def draw(self, part: float, counts: str, note: str) -> None:
        """Show the bar, unless it was drawn a moment ago."""
        self._last = (part, counts, note)
        if time.monotonic() - self._at >= _EVERY_S:
            self._update()

    def keep(self, text: str, style: str) -> None:
        """Show a line under the bar."""
        self._kept = [*self._kept, (text, style)][-_WARNINGS:]

    def close(self) -> None:
        """Draw the bar for the last time."""
        self._update()

    def _update(self) -> None:
        self._at = time.monotonic()
        self._handle.update(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        part, counts, note = self._last
        full = round(part * _WIDTH)
        kept = [text for text, _ in self._kept]
        rows = [f"{'#' * full}{'.' * (_WIDTH - full)} {counts}", note, *kept]
        bar = f'<progress value="{part:.4f}" max="1" style="vertical-align: middle"></progress>'
        said = "".join(f"<br><small>{html.escape(text)}</small>" for text in (note, *kept) if text)
        return {
            "text/plain": "\n".join(row for row in rows if row),
            "text/html": f"<div>{bar} {html.escape(counts)}{said}</div>",
        }


def in_notebook() -> bool:
    """Whether this code runs in a cell of a notebook, whose kernel is IPython's."""
    shell = sys.modules.get("IPython")
    found: Any = shell.get_ipython() if shell is not None else None
    return found is not None and getattr(found, "kernel", None) is not None


@contextmanager
def shown(progress: bool | None) -> Iterator[Console]:
    """What shows a sweep while the block runs.

    None: a bar in a notebook or a terminal, else nothing. True: where there is neither, the lines of the
    command line. False: nothing.
    """
    rich = Terminal()
    display: Display | None = None
    if progress is not False and in_notebook():
        display = NotebookDisplay()
    elif progress is not False and rich.is_terminal:
        display = TerminalDisplay(rich)
    if display is None:
        yield Console(rich) if progress else Silent(rich)
        return
    bar = Bar(display, rich)
    try:
        yield bar
    finally:
        bar.close()
