"""A user's error: its text, its fields as data, another place for it, and its way to another process."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from trainables.core.errors import NO_VALUE, WHOLE_FILE, UserError, first_line

FULL: dict[str, Any] = {
    "value": "sgd2",
    "expected": "an optimizer",
    "choices": ["sgd", "adam"],
    "hints": ["It is with lr=1"],
}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "optim.name: no such choice."),
        ({"value": None}, "optim.name: no such choice (got None)."),
        ({"expected": "a name"}, "optim.name: no such choice. Expected a name."),
        ({"choices": ["b", "a"]}, "optim.name: no such choice. Known: a, b."),
        ({"choices": ["b", "a"], "value": "zzz"}, "optim.name: no such choice (got 'zzz'). Known: a, b."),
        (
            FULL,
            "optim.name: no such choice (got 'sgd2'). Expected an optimizer. Did you mean 'sgd'? "
            "Known: adam, sgd. It is with lr=1.",
        ),
    ],
)
def test_the_text_is_made_of_the_fields(changes: dict[str, Any], text: str) -> None:
    error = UserError("optim.name", "no such choice", **changes)
    assert str(error) == text == f"optim.name: {error.message}"


def test_a_sentence_that_ends_gets_no_second_full_stop() -> None:
    assert str(UserError("a", "is wrong.", hints=["Is it?"])) == "a: is wrong. Is it?"


@pytest.mark.parametrize(
    ("field", "section", "placed"),
    [
        ("lr", "base", "base.lr"),
        ("lr", "", "lr"),
        ("", "axes.lr", "axes.lr"),
        (WHOLE_FILE, "baseline", "baseline"),
        (WHOLE_FILE, "", WHOLE_FILE),
    ],
)
def test_an_error_goes_under_a_section(field: str, section: str, placed: str) -> None:
    error = UserError(field, "no such choice", **FULL)
    moved = error.under(section)
    assert (moved.field, moved.message) == (placed, error.message)
    assert vars(moved) == {**vars(error), "field": placed}


def test_an_error_at_another_field_keeps_what_is_not_changed() -> None:
    error = UserError("lr", "no such choice", **FULL)
    moved = error.at("arms.x.lr", expected="another")
    assert vars(moved) == {**vars(error), "field": "arms.x.lr", "expected": "another"}
    assert "Expected another. Did you mean 'sgd'?" in str(moved)
    assert str(error.with_hint("And more")) == f"{error} And more."


@pytest.mark.parametrize("value", [NO_VALUE, None, "sgd2", 3, Path("/a"), ["a", {"b": 1}]])
def test_every_field_survives_pickling(value: Any) -> None:
    error = UserError("optim.name", "no such choice", **{**FULL, "value": value})
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is UserError
    assert (vars(arrived), str(arrived), arrived.args) == (vars(error), str(error), error.args)
    assert str(arrived.under("base")) == str(error.under("base"))


def test_an_error_arrives_whose_value_cannot_be_pickled() -> None:
    error = UserError("lr", "no number", value=threading.Lock(), choices=["a"])
    arrived = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))
    assert isinstance(arrived, UserError)
    assert str(arrived) == str(error)
    assert str(arrived.at("optim.lr")) == str(error.at("optim.lr"))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n one \ntwo"), "one"),
        (KeyError(), "KeyError"),
        (UserError("a", "is wrong"), "a: is wrong."),
    ],
)
def test_the_first_line(error: Exception, line: str) -> None:
    assert first_line(error) == line
