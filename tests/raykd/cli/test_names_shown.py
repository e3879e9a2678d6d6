"""Names and texts that obey nobody go through every verb and every file that people open."""

from __future__ import annotations

import copy
import csv
import io
import logging
import re
from pathlib import Path

import pytest
import yaml
from bad_input import STUDY
from command import SMALL
from histories import put
from ledger_records import record
from simulated import drive

from raykd.ablation.conclusions import conclude
from raykd.ablation.report import FILES, write
from raykd.ablation.study import build_study
from raykd.cli import main
from raykd.console.live import Console
from raykd.console.screen import Terminal
from raykd.lanes.cluster import send_logs
from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger
from raykd.records.recorded_spec import spec_of
from raykd.spec.document import parse_yaml
from raykd.spec.search import build_sweep

EVIL = "\x1b[2J\x1b]0;owned\x07\u202e\n=1+1|<img src=x>![p](http://e/x)[red]\\input{x}\r"
FORMULA = "=cmd|' /C calc'!A0"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search and a study in which everything that is free text is hostile."""
    storage = tmp_path_factory.mktemp("evil") / "sweeps"
    drive(storage / "small", build_sweep(parse_yaml(SMALL, "")))
    raw = {**parse_yaml(STUDY, ""), "design": "compare", "arms": {EVIL: {}, FORMULA: {"adapter": "mlp"}}}
    raw.pop("factors")
    drive(storage / "t", build_study(raw, storage))
    for name in ("small", "t"):
        records = copy.deepcopy(Ledger.read(storage / name))
        records[0].update(versions={"raykd": EVIL, EVIL: "1"}, source={"path": EVIL, "overrides": [EVIL]})
        records[1:2] = [copy.deepcopy(records[0])]
        for one in records:
            if one["kind"] == "start":
                one["lane"] = EVIL
        trial = next(one["trial"] for one in records if one["kind"] == "suggest")
        for one in records:
            if one["kind"] == "end" and one["trial"] == trial and name == "small":
                one.update(status="failed", reason=EVIL)
        metrics = {"score": 1.0, f"probe/{EVIL}": 2.0}
        reference = record("reference", name="teacher", label=EVIL, metrics=metrics, trial=EVIL)
        records += [
            record("driver", event="start", host=EVIL, pid=1),
            reference,
            record("repeat", number=99, params={}, trial=None, reason=EVIL, attrs={}),
            record("repair", lines=[3], remade=[EVIL], again=[], aside=[], students=[]),
        ]
        if name == "t":
            records = [one for one in records if one["kind"] != "repeat"]
        put(storage / name, records)
    return storage


@pytest.mark.parametrize(
    "words",
    ["status small", "best small", "status t", "ablate t --json", "status small --json", "best small --json",
     "ablate t --plan", "report small", "report t", "run EVIL", "run EVILSPEC", "teacher inspect EVIL",
     "status EVIL", "status small --storage EVIL"],
)  # fmt: skip
def test_no_verb_writes_what_a_terminal_obeys(
    words: str, storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "[red]\x1b[31m.yaml"
    spec.write_text(yaml.safe_dump({**parse_yaml(SMALL, ""), "axes": {EVIL: [1, 2]}}))
    arguments = [{"EVIL": EVIL, "EVILSPEC": str(spec)}.get(word, word) for word in words.split()]
    if "--storage" not in arguments and arguments[0] != "teacher":
        arguments += ["--storage", str(storage)]
    with pytest.raises(SystemExit):
        main(arguments)
    said = capsys.readouterr()
    assert said.out or said.err
    assert not OBEYED.search(said.out + said.err), said
    assert not any(line.startswith("=1+1") for line in said.out.splitlines()), said.out


def test_events_are_one_line_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    for show in (console.say, console.warn, lambda text: console.progress("x", 1, 1, text)):
        show(EVIL)
        out = capsys.readouterr().out
        assert out.count("\n") == 1 and "[red]" in out and "<img src=x>" in out and not OBEYED.search(out)
    console.rows(("a", EVIL), [(EVIL, 1.0)])
    out = capsys.readouterr().out
    assert not OBEYED.search(out) and r"\x1b" in out
    console.entries(("a", "b"), [(EVIL, ":smile: [bold]x[/bold]")])
    out = capsys.readouterr().out
    assert ":smile: [bold]x[/bold]" in out and not OBEYED.search(out)


def test_our_own_styles_are_kept() -> None:
    terminal = Terminal(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    terminal.print("[bold]x[/bold]")
    assert terminal.file.getvalue() == "\x1b[1mx\x1b[0m\n"  # type: ignore[attr-defined]


def test_a_studys_files_hold_text_alone(storage: Path, tmp_path: Path) -> None:
    history = History.of(Ledger.read(storage / "t"))
    write(conclude(spec_of(history), history), tmp_path)
    texts = {name: (tmp_path / name).read_text() for name in FILES}
    for name, text in texts.items():
        assert not OBEYED.search(text), name
        assert "\n=1+1" not in text, name
    assert "<img" not in texts["ablation.md"] and "](http" not in texts["ablation.md"]
    assert r"\input" not in texts["ablation.tex"].replace(r"\textbackslash{}input", "")
    rows = list(csv.reader(io.StringIO(texts["ablation.csv"])))
    assert len({len(row) for row in rows}) == 1
    assert any(value == f"'{FORMULA}" for row in rows for value in row)
    assert not any(value.startswith(("=", "@")) for row in rows for value in row)


def test_the_log_can_be_read_in_a_terminal(tmp_path: Path) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        send_logs(tmp_path / "log.txt")
        logging.getLogger("x").error("it says %s", EVIL)
    finally:
        for handler in [one for one in root.handlers if one not in before]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
    text = (tmp_path / "log.txt").read_text()
    assert "it says" in text and not OBEYED.search(text)


def test_the_ledger_keeps_the_words_as_they_were(storage: Path) -> None:
    assert "\\u001b[2J" in (storage / "small" / LEDGER).read_text()
    assert History.of(Ledger.read(storage / "small")).references["teacher"]["label"] == EVIL
