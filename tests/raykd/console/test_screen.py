"""What fits a terminal: numbers stay whole, and every column is shown or named."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from histories import results, search
from rich.console import Console as Rich
from studies import GAMMA, study

from raykd.ablation import report, tables
from raykd.cli import main
from raykd.console.live import Console
from raykd.console.screen import Grid
from raykd.records.views import read

WIDTHS = range(60, 161)
COLUMNS = ("trial", "status", "epoch", "± se", "lr", "adapter", "share", "what it is", "95 % interval")
ROWS = [
    ("e80deab0", "finished", 16, 0.25, 1.9e-05, "conv1x1_bn_act", "12 %", "log [0.003, 3]", "[+1.57, +2.72]"),
    ("00000001", "interrupted", 4, 81.25, 0.00343, "linear", "7 %", "83.15 ± 1.2 of it", "[-0.57, +0.72]"),
]
FACTORS = {"gamma": [0.1, 1.0], "fidelity": ["paper", "code"], "mean_student": [True, False]}


def terminal(width: int) -> Console:
    how = {"force_terminal": True, "color_system": None, "highlight": False, "soft_wrap": True}
    return Console(Rich(file=io.StringIO(), width=width, **how))  # type: ignore[arg-type]


def written(console: Console) -> str:
    assert isinstance(console.out.file, io.StringIO)
    return console.out.file.getvalue()


@pytest.mark.parametrize("elsewhere", ["", "trials.parquet"])
def test_no_number_is_cut_and_every_column_is_shown_or_named(elsewhere: str) -> None:
    for width in WIDTHS:
        console = terminal(width)
        console.rows(COLUMNS, ROWS, elsewhere=elsewhere)
        shown, _, rest = written(console).partition("not shown: ")
        assert max(map(len, written(console).splitlines())) <= width
        names = " ".join(rest.split()).removesuffix(" (a wider terminal, or trials.parquet)")
        missing = names.split(", ") if names else []
        assert not missing or (elsewhere and COLUMNS[-len(missing) :] == tuple(missing)), "from the right"
        for at, column in enumerate(COLUMNS[: len(COLUMNS) - len(missing)]):
            assert all(word in shown for word in column.split()), (width, column)
            for row in ROWS:
                whole = r"\[.*\]|[\d.]+ ± [\d.]+|[\d.]+ %|1.9e-05|[0-9a-f]{8}|\d[\d.]*"
                for piece in re.findall(whole, str(row[at])):
                    assert re.search(rf"(?<![\d.]){re.escape(piece)}(?![\d.])", shown), (width, piece)
    assert not missing, "all of them fit into 160 columns"


def test_a_study_has_its_answers_in_the_first_table_and_the_rest_below() -> None:
    spec = study(GAMMA, factors=FACTORS)
    found = results(spec, {a: [80.0 + i, 82.0 + 2 * i, 83.5] for i, a in enumerate(spec.arms)})
    columns, rows = tables.table(found, compute=False)
    grid = next(part for part in report.terminal(found, Path("sweeps/gamma")) if isinstance(part, Grid))
    for width in (80, 100, 120):
        console = terminal(width)
        console.parts([grid])
        first, *others = [table.splitlines() for table in written(console).split("\n\n")]
        essential = ["arm", "difference", "95 % interval", "p (Holm)"]
        assert re.split(r"\s{2,}", first[0])[:4] == essential and len(first) == 1 + len(rows)
        assert others and all([line.split()[0] for line in table[1:]] == [*spec.arms] for table in others)
        shown = " ".join(" ".join(table[0].split()) for table in (first, *others))
        assert all(column in shown for column in columns)
        for row in rows:
            assert all(cell in written(console) for cell in row)
    console = terminal(160)
    console.parts([grid])
    assert re.split(r"\s{2,}", written(console).splitlines()[0]) == columns, (
        "in their own order where they fit"
    )


def test_lines_wrap_between_words_and_commands_stay_whole() -> None:
    command = "raykd resume known --storage s3://a-bucket/with/a/name/of/some/length/in/it"
    said = "e80deab0 started on lane-1: lr 0.00343, adapter conv1x1_bn_act, views.strength 0.547"
    console = terminal(60)
    console.say(said)
    console.warn(f"1 trial is not done; go on with:  {command}")
    lines = written(console).splitlines()
    assert " ".join(written(console).split()).startswith(f"0:00 {said} 0:00 1 trial")
    assert all(len(line) <= 60 for line in lines if command not in line)
    assert [line[:8].strip() for line in lines] == ["0:00", "", "0:00", ""] and lines[-1].strip() == command


def test_an_interrupted_sweep_neither_runs_nor_has_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = search(tmp_path, "ffr", seeds=[0])
    main_of("status", "known", "--storage", str(tmp_path))
    out = capsys.readouterr().out
    assert "\n2 of 3 trials ended (2 finished, 1 interrupted); best" in out
    assert "running" not in out and " left" not in out and "0:00" not in out
    console = terminal(160)
    console.standing(read(folder))
    assert "1 running" in written(console) and " left" in written(console)


@pytest.mark.parametrize("what", ["methods", "studies", "spaces", "data"])
def test_lists_keep_to_the_width_that_is_asked_for(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {}
    for columns in ("80", "400"):
        monkeypatch.setenv("COLUMNS", columns)
        main_of("list", what)
        said[columns] = capsys.readouterr().out
        lines = said[columns].splitlines()
        assert max(map(len, lines)) <= int(columns) and not any(line.endswith(" ") for line in lines)
    _, table = said["400"].split("\n", 1)
    assert set(table.split()) <= set(said["80"].split()), "no word is broken, none is left out"


def main_of(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 0
