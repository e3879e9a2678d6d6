"""Whether suites can work for the networks of a sweep, before anything is spent. Loads torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from raykd.spec.evaluate_section import suites_of
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError
from trainables.spec.suite import SuiteSpec
from trainables.spec.trial import TrialSpec

Who = Literal["student", "start", "teacher"]


def check_suites(
    suites: Sequence[SuiteSpec], networks: Iterable[tuple[TrialSpec, Who]], workers: int
) -> None:
    """Raise `UserError` at the field of a suite's file that cannot work for one of `networks`.

    These are trials, and which network of the trial it is. `workers` run a task together.
    """
    from trainables.downstream.check import check_task

    checked = set[tuple[str, ...]]()
    for trial, who in networks:
        for suite in suites:
            for name, task in suite.tasks.items():
                try:
                    network = trial.teacher if who == "teacher" else trial.student
                    key = (suite.name, name, who, task.key(trial.data), repr(network))
                    if key not in checked:
                        check_task(task, trial, workers, who)
                        checked.add(key)
                except UserError as error:
                    raise error.under(f"suite {suite.name}: tasks.{name}") from None


def check_evaluate(spec: SweepSpec) -> None:
    """The same for the suites that a sweep names under `evaluate`, and the students of its trials."""
    if suites := suites_of(spec.evaluate):
        check_suites(suites, ((trial, "student") for trial in spec.trial_of_each()), spec.workers.count)
