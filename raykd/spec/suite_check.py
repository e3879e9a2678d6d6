"""Whether suites can work for the networks of a sweep, before anything is spent. Loads torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raykd.spec.evaluate_section import suites_of
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError
from trainables.spec.suite import SuiteSpec
from trainables.spec.trial import TrialSpec


def check_suites(suites: Sequence[SuiteSpec], trials: Iterable[TrialSpec]) -> None:
    """Raise `UserError` at the field of a suite's file that cannot work for one of `trials`."""
    from trainables.downstream.check import check_task

    checked = set[tuple[str, str, str]]()
    for trial in trials:
        for suite in suites:
            for name, task in suite.tasks.items():
                try:
                    key = (suite.name, name, task.key(trial.data))
                    if key not in checked:
                        check_task(task, trial)
                        checked.add(key)
                except UserError as error:
                    raise error.under(f"suite {suite.name}: tasks.{name}") from None


def check_evaluate(spec: SweepSpec) -> None:
    """The same for the suites that a sweep names under `evaluate`, and its trials."""
    if suites := suites_of(spec.evaluate):
        check_suites(suites, spec.trial_of_each())
