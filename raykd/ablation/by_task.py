"""A study by what its students are worth on the tasks of suites: the same tables, by another score.

    by_task(spec, history)["evaluate/quick/linear"]

The tables of all tasks share one alpha: at most that share of all studies without a difference claims one in
any of them. So each p value is also multiplied by the number of tasks.
"""

from __future__ import annotations

from raykd.ablation.conclusions import By, conclude
from raykd.ablation.results import Results
from raykd.records.evaluations import trial_scores
from raykd.records.history import History
from raykd.spec.study import StudySpec
from trainables.core.errors import UserError


def by_task(spec: StudySpec, history: History) -> dict[str, Results]:
    """`evaluate/SUITE/TASK` -> the results of the study by that score."""
    found = trial_scores(history.evaluated)
    return {name: conclude(spec, history, By(name, of, len(found))) for name, of in found.items()}


def conclude_by(spec: StudySpec, history: History, name: str | None) -> Results:
    """The results by the score `name`; None: by the study's own. Raises `UserError` for an unknown one."""
    if name is None:
        return conclude(spec, history)
    found = by_task(spec, history)
    if name not in found:
        expected = None if found else "a study that was evaluated"
        raise UserError("--by", "no such score", value=name, expected=expected, choices=found)
    return found[name]
