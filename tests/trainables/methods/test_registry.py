"""The registry of methods: how names are found, and what a file that is not a complete method says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import trainables.methods as package
from trainables.core.errors import UserError
from trainables.methods import base, load_method, methods

METHODS = list(methods())


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    name = max(METHODS, key=len)
    with pytest.raises(UserError, match=f"Did you mean {name!r}"):
        load_method(name[:2] + name[3:])


CLASS = """
from pydantic import Field
from trainables.methods.base import Method, MethodConfig
class HalfConfig(MethodConfig):
    weight: float = FIELD
class Half(Method[HalfConfig]):
"""
WHOLE = """    name = 'half'
    summary = 'one line'
"""
FIELD = "Field(1.0, description='of the loss')"


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (WHOLE, "1.0", r"half\.HalfConfig\.weight: has no description\. Expected `Field\(DEFAULT, desc"),
        (WHOLE, "Field(description='of the loss')", r"half\.HalfConfig\.weight: has no default"),
        ("    name = 'half'\n", FIELD, r"half\.Half\.summary: is missing"),
        ("    summary = 'one line'\n", FIELD, r"half: defines no method\. Expected a subclass .* `name = "),
        (
            WHOLE + "    needs = frozenset({'teachr'})",
            FIELD,
            r"half\.Half\.needs: .*'teachr'.*mean 'teacher'",
        ),
        (
            WHOLE.replace("half", "NAME"),
            FIELD,
            r"half\.Half\.name: trainables\.methods\.\w+ defines a method",
        ),
    ],
)
def test_a_file_that_is_not_a_whole_method_says_what_it_lacks(
    body: str, field: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CLASS.replace("FIELD", field) + body.replace("NAME", METHODS[0])
    (tmp_path / "half.py").write_text(text)
    monkeypatch.setattr(base, "registry", dict(base.registry))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "trainables.methods.half", raising=False)
    package._import_all.cache_clear()
    with pytest.raises(UserError, match=message):
        methods()
