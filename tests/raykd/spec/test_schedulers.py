"""Schedulers: their settings, those of others, the epochs at which they decide, what older ledgers hold."""

from __future__ import annotations

from typing import Any

import pytest

from raykd.spec.schedulers import SCHEDULERS, parse_scheduler, settings_in_use
from trainables.core.errors import UserError


def test_every_scheduler_is_found() -> None:
    assert {"asha", "hyperband", "median", "none"} <= SCHEDULERS.keys()
    assert parse_scheduler({}).name == parse_scheduler(None).name == "asha"


@pytest.mark.parametrize(
    ("section", "field", "message"),
    [
        ({"name": "asha", "brackets": 2}, "brackets", "of hyperband, and asha .* `grace` and `factor`"),
        ({"brackets": 2}, "brackets", r"and asha has no such setting \(got 2\)"),
        ({"name": "median", "factor": 2}, "factor", "setting of asha and hyperband, and median"),
        ({"name": "none", "grace": 4}, "grace", "Expected nothing beside `name: none`"),
        ({"name": "asha", "grase": 4}, "grase", "no such field.*'grace'"),
        ({"name": "ahsa"}, "name", "no such choice.*'asha'"),
        ({"name": ["asha"]}, "name", "no such choice"),
        ({"grace": True}, "grace", "not yes or no"),
    ],
)
def test_what_a_scheduler_does_not_have_is_refused(section: Any, field: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_scheduler(section)
    assert error.value.field == field


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
def test_what_older_ledgers_hold_is_read(name: str) -> None:
    recorded = {"name": name, "grace": 1, "factor": 2.0, "brackets": 3, "min_samples": 3}
    assert parse_scheduler(settings_in_use(recorded)) == parse_scheduler({"name": name})
    kept = settings_in_use({**recorded, "novel": 1})
    assert kept["novel"] == 1, "what is unknown is refused, not dropped"
    assert settings_in_use(parse_scheduler({"name": name}).model_dump()) == {
        key: value for key, value in kept.items() if key != "novel"
    }


@pytest.mark.parametrize(
    ("section", "rungs"),
    [
        ({"name": "asha", "grace": 3, "factor": 1.5}, [3, 5, 7, 11]),
        ({"name": "hyperband", "grace": 2}, [2, 4, 8]),
        ({"name": "median", "grace": 3}, [3, 6, 12]),
        ({"name": "none"}, [1, 2, 4, 8]),
        ({"name": "asha", "grace": 16}, []),
    ],
)
def test_rungs_lie_before_the_last_epoch(section: dict[str, Any], rungs: list[int]) -> None:
    assert parse_scheduler(section).rungs(16) == rungs


@pytest.mark.parametrize(("name", "count"), [("asha", 1), ("hyperband", 2), ("median", 1), ("none", 1)])
def test_brackets_that_begin_after_the_end_are_left_out(name: str, count: int) -> None:
    assert len(parse_scheduler({"name": name}).make(epochs=3)) == count
