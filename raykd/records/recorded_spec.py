"""The spec and the trials' settings of a recorded sweep, checked for being those of this version of raykd."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from raykd.records.format import written_by
from raykd.records.history import History
from raykd.spec.arms import ARM
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError
from trainables.spec.parse import build


def spec_of(history: History) -> SweepSpec:
    """The spec that the ledger holds; `UserError` if it is of another version. Loads no torch."""
    raw = history.spec
    try:
        spec = SweepSpec.model_validate(raw)
        for trial in history.trials.values():
            if spec.arms and trial.params.get(ARM) not in spec.arms:
                raise UserError(f"trial {trial.trial}", "is of no arm of the study")
    except ValidationError:
        try:
            build(SweepSpec, raw)  # raises a message about the user's fields
            raise
        except (UserError, ValidationError) as error:
            raise of_another_version(history, str(error).splitlines()[0]) from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise of_another_version(history, str(error)) from None
    return spec


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
