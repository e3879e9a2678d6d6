"""Files that are found by themselves: what is found, in which order, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainables.core.discovery import by_name, classes, modules, rows
from trainables.spec.trial import Spec

BASE = "from abc import ABC, abstractmethod\nclass Base(ABC):\n    @abstractmethod\n    def do(self): ...\n"
IMPORT = "from added.base import Base\n"
ONE = IMPORT + "class {0}(Base):\n    name = '{0}'\n    def do(self): ...\nTABLE = ({0}(),)\n"


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package `added` with a `base.py`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "added"]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "added"
    (folder / "parts").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "base": BASE,
        "parts/__init__": "1 / 0",
        "parts/tool": "1 / 0",
    }.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def base() -> type:
    from added.base import Base  # type: ignore[import-not-found]  # of the fixture

    assert isinstance(Base, type)
    return Base


def test_files_are_found_by_order_and_name_and_parts_are_left_alone(added: Path) -> None:
    (added / "b.py").write_text(ONE.format("B"))
    (added / "a.py").write_text("ORDER = 5\n" + ONE.format("A"))
    (added / "c.py").write_text("from added.b import B\n" + ONE.format("C"))
    assert [module.__name__ for module in modules("added")] == ["added.b", "added.c", "added.a"]
    assert [kind.__name__ for kind in classes("added", base())] == ["B", "C", "A"]
    assert [type(row).__name__ for row in rows("added", "TABLE", base())] == ["B", "C", "A"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("def broken(:", "invalid syntax"),
        ("", "mine.py defines no Base$"),
        (IMPORT + "class Half(Base): ...", "mine.py defines no Base; its class lacks do"),
    ],
)
def test_a_file_that_would_add_nothing_is_named(text: str, message: str, added: Path) -> None:
    (added / "mine.py").write_text(text)
    with pytest.raises((ImportError, SyntaxError, TypeError), match=message):
        classes("added", base())


@pytest.mark.parametrize("table", ["", "TABLE = ()", "TABLE = (3,)"])
def test_a_file_without_rows_is_named(table: str, added: Path) -> None:
    (added / "mine.py").write_text(table)
    with pytest.raises(TypeError, match=r"mine.py has no `TABLE = \(Base\(…\),\)`"):
        rows("added", "TABLE", base())


def test_two_of_one_name_are_refused() -> None:
    class Named(Spec):
        name: str = "same"
        number: int = 0

    one = Named(number=1)
    assert by_name([one, one], lambda row: row.name) == {"same": one}
    with pytest.raises(TypeError, match=r"test_discovery and test_discovery both define 'same'"):
        by_name([one, Named(number=2)], lambda row: row.name)
