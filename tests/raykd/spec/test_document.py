"""YAML as people expect it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from raykd.spec.document import parse_yaml, read_yaml, write_yaml
from trainables.core.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("+1.5e+2", 150.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("-3", -3),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("'1e-3'", "1e-3"),
        ("[a, 1, {b: 2}]", ["a", 1, {"b": 2}]),
        ("{<<: {a: 1, b: 1}, b: 2}", {"a": 1, "b": 2}),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(text, "f")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml, line 3: not valid YAML: 'a' stands here and in line 1"),
        ("x:\n  a: 1\n  a: 1", "f.yaml, line 3"),
        ("a: [1", "f.yaml, line 1"),
        ("a:\n\t- 1", "f.yaml, line 2"),
        ("a: b: c", "f.yaml, line 1"),
        ("? [1]\n: 2", "a name must be text"),
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: &x [*x]", "contains itself"),
        ("- *x", "undefined alias"),
        ("{" * 3000, "nested too deeply"),
        ("\x00", "f.yaml"),
    ],
)
def test_mistakes_are_told_with_their_line(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "f.yaml")
    assert words in str(caught.value)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcno1", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
@example("0E0")
@example({"0o7": ["1e5"]})
def test_what_we_write_is_read_back(value: Any) -> None:
    assert parse_yaml(write_yaml(value), "f") == value


@given(plain)
@example("no")
@example("1:30")
def test_what_we_write_is_read_back_by_others(value: Any) -> None:
    assert yaml.safe_load(write_yaml(value)) == value


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_a_user_error(text: str) -> None:
    with contextlib.suppress(UserError):
        parse_yaml(text, "f")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "binary", tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            read_yaml(path)
