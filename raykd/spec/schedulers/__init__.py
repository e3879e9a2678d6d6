"""What may stop trials early: every scheduler by name.

A scheduler is a class of one of the files in this folder: its settings, the epochs at which it decides, and
how Tune's scheduler is made with them. To add one, write a file with a `SchedulerSpec`: it is found by
itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from raykd.spec.schedulers.base import SchedulerSpec
from trainables.core.discovery import by_name, classes
from trainables.core.errors import UserError
from trainables.spec.parse import as_mapping, build

SCHEDULERS: dict[str, type[SchedulerSpec]] = by_name(
    classes(__name__, SchedulerSpec),  # type: ignore[type-abstract]  # of which it returns those that are not
    lambda kind: str(kind.model_fields["name"].default),
)
_DEFAULT = "asha"


def parse_scheduler(raw: Any) -> SchedulerSpec:
    """The scheduler that `{name: asha, …}` describes.

    `UserError` with a field of that section for an unknown name, and for a setting that it does not have.
    """
    if isinstance(raw, SchedulerSpec):
        return raw
    mapping = as_mapping(raw, "")
    name = mapping.get("name", _DEFAULT)
    if not isinstance(name, str) or name not in SCHEDULERS:
        raise UserError("name", "no such choice", value=name, choices=SCHEDULERS)
    kind = SCHEDULERS[name]
    for field, value in mapping.items():
        owners = [other for other, its in SCHEDULERS.items() if field in its.model_fields]
        if owners and field not in kind.model_fields:
            own = [f"`{setting}`" for setting in kind.model_fields if setting != "name"]
            raise UserError(
                field,
                f"is a setting of {' and '.join(owners)}, and {name} has no such setting",
                value=value,
                expected=f"{' and '.join(own) if own else 'nothing'} beside `name: {name}`",
            )
    return build(kind, {**mapping, "name": name})


def settings_in_use(section: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded section without the settings of other schedulers.

    Older versions of raykd recorded the settings of all schedulers, whichever was in use. What no scheduler
    of those versions had is left in.
    """
    kind = SCHEDULERS.get(str(section.get("name", _DEFAULT)))
    others = {"grace", "factor", "brackets", "min_samples"} - set(kind.model_fields if kind else section)
    return {name: value for name, value in section.items() if name not in others}


AnyScheduler = Annotated[SerializeAsAny[SchedulerSpec], BeforeValidator(parse_scheduler)]
