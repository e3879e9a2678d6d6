"""The progress bar of a sweep: in a terminal, in a notebook, and nowhere else."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console as Rich

from raykd.console import bar
from raykd.console.bar import Bar, NotebookDisplay, Silent, TerminalDisplay, progress_of, shown
from raykd.console.live import Console
from raykd.records.history import History
from raykd.records.ledger import Ledger

RECORDS = Ledger.read(Path(__file__).resolve().parents[2] / "fixtures" / "sweeps" / "interrupted")


class Drawn:
    """A display that remembers."""

    def __init__(self) -> None:
        self.last: tuple[float, str, str] = (0.0, "", "")
        self.parts: list[float] = []
        self.kept: list[tuple[str, str]] = []
        self.closed = False

    def draw(self, part: float, counts: str, note: str) -> None:
        self.last = (part, counts, note)
        self.parts.append(part)

    def keep(self, text: str, style: str) -> None:
        self.kept.append((text, style))

    def close(self) -> None:
        self.closed = True


def test_it_moves_with_every_record() -> None:
    drawn, history = Drawn(), History()
    console = Bar(drawn)
    for record in RECORDS:
        history.add(record)
        console(record, history)
    assert drawn.parts == sorted(drawn.parts) and 0.5 < drawn.parts[-1] < 1
    assert drawn.last[1].startswith("2 of 4 trials, best ")


def test_a_warning_stays_and_an_event_does_not() -> None:
    drawn = Drawn()
    console = Bar(drawn)
    console.waits_for("starting Ray")
    console.warn("only one [red]lane\x1b")
    console.say("e7e1a815 failed at epoch 2: a bug", "red")
    assert drawn.last[2] == "starting Ray"
    assert [style for _, style in drawn.kept] == ["yellow", "red"] and "\x1b" not in drawn.kept[0][0]


def test_the_part_counts_epochs_of_trials_under_way() -> None:
    history = History.of(RECORDS)
    epochs = sum(t.epoch / 8 for t in history.trials.values() if t.status == "running")
    assert progress_of(history)[0] == pytest.approx((2 + epochs) / 4)


def test_the_terminal_shows_the_bar_below_what_stays() -> None:
    rich = Rich(file=io.StringIO(), force_terminal=True, color_system=None, width=100)
    display = TerminalDisplay(rich)
    display.keep("memory holds 1 lane", "yellow")
    display.draw(0.5, "2 of 4 trials", "e7e1a815 started")
    display.close()
    assert isinstance(rich.file, io.StringIO)
    text = rich.file.getvalue()
    assert "memory holds 1 lane" in text and "2 of 4 trials" in text and "e7e1a815 started" in text


def test_the_notebook_shows_text_and_html(monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[dict[str, str]] = []
    handle = SimpleNamespace(update=lambda shown: updates.append(shown._repr_mimebundle_()))
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: handle)
    display = NotebookDisplay()
    for number in range(8):
        display.keep(f"<warning {number}>", "yellow")
    display.draw(0.25, "1 of 4 trials", "a < b")
    display.draw(0.5, "2 of 4 trials", "")  # so soon that it waits
    assert len(updates) == 1
    display.close()
    assert updates[0]["text/html"].startswith('<div><progress value="0.2500"')
    assert "a &lt; b" in updates[0]["text/html"] and "&lt;warning 7&gt;" in updates[0]["text/html"]
    assert "warning 2" not in updates[0]["text/html"], "the oldest go"
    assert updates[1]["text/plain"].startswith(f"{'#' * 15}{'.' * 15} 2 of 4 trials")


def test_without_a_terminal_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with shown(None) as console:
        assert isinstance(console, Silent)
        console.waits_for("Ray")
        console.warn("a warning")
        console.progress("resamples", 1, 1)
    assert capfd.readouterr() == ("", "")


def test_lines_may_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(True) as console:
        assert type(console) is Console
        console.say("a line")
    assert "a line" in capsys.readouterr().out


def test_a_bar_is_drawn_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn()
    monkeypatch.setattr(bar, "TerminalDisplay", lambda rich: drawn)
    monkeypatch.setattr(bar, "NotebookDisplay", lambda: drawn)
    monkeypatch.setattr(bar, "Terminal", lambda: Rich(force_terminal=True, file=io.StringIO()))
    with shown(None) as console:
        assert isinstance(console, Bar)
    assert drawn.closed
    with shown(False) as console:
        assert isinstance(console, Silent)
    kernel: Any = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setattr(bar, "Terminal", lambda: Rich(file=io.StringIO()))
    with shown(None) as console:
        assert isinstance(console, Bar)
