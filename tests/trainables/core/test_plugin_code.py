"""A user's own modules: how they are found, what their code is, and how they travel."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_code import forgotten, write_package

from trainables.core import plugin_code, plugins
from trainables.core.errors import UserError


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    with forgotten():
        yield


def test_a_module_beside_the_spec_is_imported(tmp_path: Path) -> None:
    (tmp_path / "own_one.py").write_text("VALUE = 7\n")
    plugins.look_in([tmp_path])
    assert plugins.load("own_one").VALUE == 7
    plugins.declare(["own_one"])
    assert [module.__name__ for module in plugins.modules(plugins.METHODS)] == ["own_one"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("own_none", None, "there is no such module on .*one that is installed there, or that lies in"),
        ("own-name", None, "is not the name of a module"),
        ("own_raises", "x = 1\nraise ValueError('a bad table\\nand more')",
         r"ValueError: a bad table \(.*own_raises.py, line 2\)"),
        ("own_exits", "import sys\nsys.exit(3)", "SystemExit: 3"),
        ("own_needs", "import own_missing", "ModuleNotFoundError: No module named 'own_missing'"),
        ("own_wrong", "def f(:\n", r"SyntaxError: .*own_wrong.py, line 1\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_a_user_s_mistake(
    name: str, text: str | None, words: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    plugins.look_in([tmp_path])
    with pytest.raises(UserError, match=words) as caught:
        plugins.load(name)
    assert caught.value.field == "plugins" and caught.value.value == name
    assert "and more" not in str(caught.value)


def test_the_code_of_a_module_is_that_of_its_top_package(tmp_path: Path) -> None:
    package = write_package(tmp_path)
    plugins.look_in([tmp_path])
    first = plugins.codes(["own_lab.losses", "own_lab.networks", "trainables.methods.retro"])
    assert set(first) == {"own_lab.losses", "own_lab.networks"} and len(set(first.values())) == 1
    assert plugins.unit_hashes(first) == {"own_lab": first["own_lab.losses"]}
    unit = plugin_code.unit_of("own_lab.losses")
    assert (unit.name, unit.path, unit.root) == ("own_lab", package, tmp_path)
    before = plugin_code.code_hash(plugin_code.source_files(unit))
    assert before == first["own_lab.losses"]
    (package / "notes.txt").write_text("no code")
    assert plugin_code.code_hash(plugin_code.source_files(unit)) == before
    (package / "deep").mkdir()
    (package / "deep" / "more.py").write_text("")
    assert plugin_code.code_hash(plugin_code.source_files(unit)) != before


def test_of_a_namespace_package_the_part_with_files_counts(tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / "own_space" / part).mkdir(parents=True)
        (tmp_path / "own_space" / part / "__init__.py").write_text(f"PART = '{part}'\n")
    plugins.look_in([tmp_path])
    plugins.load("own_space.one")
    unit = plugin_code.unit_of("own_space.one")
    assert (unit.name, unit.root) == ("own_space.one", tmp_path)
    assert list(plugin_code.source_files(unit)) == ["own_space/one/__init__.py"]


def test_a_package_travels_and_is_compared_where_it_arrives(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    package = write_package(here)
    (package / "table.csv").write_text("1,2")
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "old.pyc").write_bytes(b"compiled")
    plugins.look_in([here])
    plugins.load("own_lab.networks")
    bag = plugins.luggage(plugins.codes(["own_lab.networks"]))
    shutil.rmtree(here)
    with forgotten():
        for name in [name for name in sys.modules if name.startswith("own_lab")]:
            del sys.modules[name]
        plugins.unpack({**bag, "folders": []}, there)
        assert Path(sys.modules["own_lab"].__file__ or "").is_relative_to(there)
        arrived = {path.name for path in there.rglob("*") if path.is_file() and path.suffix != ".pyc"}
        assert arrived == {"__init__.py", "losses.py", "networks.py", "probes.py", "sources.py", "table.csv"}
        with pytest.raises(UserError, match=r"on .* its code is another one: .* and the sweep has 00000000"):
            plugins.require({"own_lab.networks": "0" * 16})


def test_what_is_installed_stays_where_it_is(tmp_path: Path) -> None:
    plugins.look_in([tmp_path])
    plugins.load("yaml")
    assert plugins.luggage(plugins.codes(["yaml"]))["archives"] == {}


def test_a_package_that_is_too_large_does_not_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path)
    plugins.look_in([tmp_path])
    monkeypatch.setattr(plugin_code, "_LARGEST", 100)
    with pytest.raises(UserError, match=r"plugins: .* too much to be sent"):
        plugins.luggage(plugins.codes(["own_lab.networks"]))
