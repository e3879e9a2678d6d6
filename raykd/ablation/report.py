"""A study's results as people read them: on the terminal, and in the three files that `write` makes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from raykd.ablation.costs import costs_table
from raykd.ablation.results import Results
from raykd.ablation.tables import COUNTED, data, effects_table, facts, legend, ranks, table
from raykd.console.screen import Grid, Line
from trainables.core.files import replacing
from trainables.core.safe_text import cell
from trainables.core.safe_text import latex as latex_text
from trainables.core.safe_text import markdown as markdown_text
from trainables.core.storage_retry import with_retry

_SHARED = "p: the tables of all tasks share one alpha"
FILES = ("ablation.md", "ablation.csv", "ablation.tex")


def write(results: Results, folder: Path, tasks: Sequence[Results] = ()) -> None:
    """Write `FILES` into the study's folder; a reader sees the old file or the new one.

    `tasks` are the results by other scores, of which ablation.md has a table each.
    """
    texts = (markdown(results, tasks), comma_separated(results), latex(results))
    for name, text in zip(FILES, texts, strict=True):
        with_retry(partial(_write, folder / name, text), f"{folder / name} cannot be written")


def _write(path: Path, text: str) -> None:
    """Write a text in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def terminal(results: Results, folder: Path) -> Iterator[Line | Grid]:
    """What `raykd ablate` shows at its end; `folder` holds the files."""
    yield from (Line(), Line(results.name, "bold"))
    yield from map(Line, facts(results))
    columns, rows = table(results, compute=False)
    at = columns.index("difference")
    yield from (Line(), Grid(columns, rows, first=columns[at : at + 3]), Line(), Grid(*costs_table(results)))
    effects = effects_table(results)
    if effects is not None:
        yield from (Line(), Grid(*effects))
    yield Line()
    yield from map(Line, ranks(results) if results.ranking is not None else [])
    yield from (Line(note, "yellow") for note in results.notes)
    yield from (Line(line, "dim") for line in legend(results))
    yield Line("written to " + ", ".join(str(folder / name) for name in FILES), "dim")


def markdown(results: Results, tasks: Sequence[Results] = ()) -> str:
    """The whole report, as `ablation.md` holds it."""
    lines = [f"# {markdown_text(results.name)}", "", *_list(facts(results)), ""]
    lines += _grid(*table(results))
    lines += ["", "## Cost", "", *_grid(*costs_table(results))]
    effects = effects_table(results)
    if effects is not None:
        lines += ["", "## Main effects and interactions", "", *_grid(*effects)]
    if results.ranking is not None:
        lines += ["", "## Ranks", "", *map(markdown_text, ranks(results))]
    for task in tasks:
        lines += ["", f"## By {markdown_text(task.by)}", "", *_grid(*table(task, compute=False))]
        lines += ["", *_list(task.notes), *_list([_SHARED])]
    if results.notes:
        lines += ["", "## To be known", "", *_list(results.notes)]
    lines += ["", "## How to read this", "", *_list(legend(results)), ""]
    return "\n".join(lines)


def comma_separated(results: Results) -> str:
    """`ablation.csv`: one row an arm, plain numbers; empty cells where there is none."""
    rows = data(results)["arms"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(["" if v is None or v != v else cell(v) for v in row.values()])
    return out.getvalue()


def latex(results: Results) -> str:
    """`ablation.tex`: booktabs tables of what the arms score and cost, and of effects where there are any."""
    said = "; ".join([*facts(results), *results.notes])
    if results.ranking is not None:
        said += ". " + "; ".join(ranks(results)).rstrip(".")
    tables = [_booktabs(f"{results.name}. {said}.", *table(results))]
    effects = effects_table(results)
    if effects is not None:
        tables.append(_booktabs(f"{results.name}: main effects and two-way interactions.", *effects))
    tables.append(_booktabs(f"{results.name}: the cost of a trial. {COUNTED}.", *costs_table(results)))
    return "% \\usepackage{booktabs}\n" + "".join(tables)


def _booktabs(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in LaTeX."""
    head, *body = ("    " + " & ".join(map(latex_text, row)) + r" \\" for row in (columns, *rows))
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(caption)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        *(r"    \toprule", head, r"    \midrule", *body, r"    \bottomrule"),
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(map(markdown_text, line)) + " |" for line in lines]


def _list(lines: Iterable[str]) -> list[str]:
    """A list in Markdown."""
    return [f"- {markdown_text(line)}" for line in lines]
