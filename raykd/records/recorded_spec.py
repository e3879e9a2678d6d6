"""The spec and the trials' settings of a recorded sweep, checked for being those of this version of raykd."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from raykd.records.format import written_by
from raykd.records.history import History, TrialRecord
from raykd.spec.arms import ARM
from raykd.spec.plugins import declare_recorded
from raykd.spec.schedulers import settings_in_use
from raykd.spec.search import SearchSpec
from raykd.spec.study import StudySpec
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError, first_line
from trainables.spec.parse import build
from trainables.spec.trial import TrialSpec

_Kind = TypeVar("_Kind", SearchSpec, StudySpec)


def spec_of(history: History) -> SearchSpec | StudySpec:
    """The spec that the ledger holds; `UserError` where it is of another version. Loads no torch."""
    return study_of(history) if history.study else _parsed(SearchSpec, history)


def study_of(history: History) -> StudySpec:
    """The spec of a study that has begun; `UserError` as of `spec_of`."""
    spec = _parsed(StudySpec, history)
    labels = list(spec.arms)  # a list, because what a ledger holds may not be hashable
    for trial in history.trials.values():
        if trial.params.get(ARM) not in labels:
            raise of_another_version(history, f"trial {trial.trial}: is of no arm of the study")
    return spec


def _parsed(kind: type[_Kind], history: History) -> _Kind:
    """The recorded spec as this kind of sweep."""
    raw = dict(history.spec)
    declare_recorded(history.sweep or {"spec": raw})
    if isinstance(raw.get("scheduler"), Mapping):  # older versions recorded the settings of all schedulers
        raw["scheduler"] = settings_in_use(raw["scheduler"])
    try:
        return kind.model_validate(raw)
    except ValidationError:
        try:
            build(kind, raw)  # says it in the user's words
            raise
        except (UserError, ValidationError) as error:
            raise of_another_version(history, first_line(error)) from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise of_another_version(history, str(error)) from None


def check_settings(spec: SweepSpec, history: History) -> None:
    """`UserError` if a trial, or another proposal, has settings that the spec does not have."""
    from optuna.trial import TrialState, create_trial  # late: a page of a search needs no Optuna

    proposed: Iterable[tuple[str, Mapping[str, Any]]] = [
        *((f"trial {trial.trial}", trial.params) for trial in history.trials.values()),
        *((f"proposal {record['number']}", record["params"]) for record in history.repeats),
    ]
    for name, params in proposed:
        try:
            values, distributions = spec.space.encode(params)
            create_trial(state=TrialState.WAITING, params=values, distributions=distributions)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise of_another_version(history, f"{name} has a setting that it lacks: {error}") from None


def trial_of(spec: SweepSpec, record: TrialRecord) -> TrialSpec:
    """The settings of a recorded trial; `UserError` if its signature has changed with raykd's version."""
    trial = spec.trial(record.params, record.replicate)
    if trial.signature() != record.trial:
        raise UserError(
            "trial",
            f"its settings are {trial.signature()} today: another version of raykd ran the sweep",
            value=record.trial,
            expected="the version that `sweep` in the ledger names",
        )
    return trial


def writer(history: History) -> str:
    """The version of raykd that began the sweep; "" where it is not known."""
    return str((history.sweep or {}).get("versions", {}).get("raykd", ""))


def of_another_version(history: History, problem: str) -> UserError:
    """The error for a ledger that this raykd does not understand, and another one may."""
    version = writer(history)
    return UserError(
        "ledger",
        f"this raykd cannot go by it: {problem.rstrip('.')}; it was {written_by(version)}",
        expected=f"raykd {version}, or a later one" if version else "the raykd that wrote it",
    )
