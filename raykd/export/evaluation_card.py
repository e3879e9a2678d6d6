"""The evaluations of a student on its model card: its own scores, and the table of its row."""

from __future__ import annotations

from collections.abc import Iterator

from raykd.evaluations.results import gather
from raykd.evaluations.tables import markdown, titles
from raykd.records.evaluations import trial_scores
from raykd.records.history import History, TrialRecord
from raykd.storage.base import SweepFolder
from trainables.core.safe_text import markdown as markdown_text


def evaluation_parts(history: History, record: TrialRecord, sweep: SweepFolder) -> Iterator[str]:
    """Paragraphs of Markdown, with their heading; none for a trial that was not evaluated."""
    own = [one for one in history.evaluated if one["trial"] == record.trial and one["reason"] is None]
    if not own:
        return
    row = own[-1]["row"]
    beside = [one for one in history.evaluated if one["who"] != "student" or one["row"] == row]
    found = gather(beside, sweep)
    scores = trial_scores(beside)
    columns = [column for column in found.columns if record.trial in scores.get(column, {})]
    said = ", ".join(
        f"{markdown_text(title)} {scores[column][record.trial]:.2f}"
        for column, title in zip(columns, titles(columns), strict=True)
    )
    yield "## Evaluations"
    yield f"This student on the test split, percent: {said}. In the table it is one of {markdown_text(row)}:"
    yield from markdown(found)
