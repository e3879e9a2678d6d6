"""The conformance test: what every registered method must do."""

from __future__ import annotations

from typing import Any

import pytest
import small_methods  # for its number of threads

from trainables.methods import methods
from trainables.planning.conformance import CHECKS, Check
from trainables.planning.conformance import workers as of_workers
from trainables.planning.conformance.base import choices
from trainables.planning.conformance.trained import choice_takes_two_steps, every_choice_takes_two_steps

assert small_methods.SIDE
# Every choice is a test of its own below; `test_parts.py` starts two workers once for all methods.
ELSEWHERE = (every_choice_takes_two_steps, *(check.run for check in of_workers.CHECKS))
HERE = [
    pytest.param(check, name, id=f"{check.run.__name__}-{name}")
    for check in CHECKS
    if check.run not in ELSEWHERE
    for name in methods()
    if check.applies(name)
]
CHOICES = [(name, *choice) for name in methods() for choice in choices(name)]


@pytest.mark.parametrize(("check", "name"), HERE)
def test_a_method_does_what_every_method_must_do(check: Check, name: str) -> None:
    check.run(name)


@pytest.mark.parametrize(("name", "field", "choice"), CHOICES)
def test_every_choice_takes_two_steps(name: str, field: str, choice: Any) -> None:
    choice_takes_two_steps(name, field, choice)
