"""Bad input: exit code 2, one message that names the field; nothing started, nothing written."""

from __future__ import annotations

import copy
import io
import random
import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import ray
from bad_evaluations import EVALUATIONS
from bad_files import CHECKPOINTS, DATA, VERBS, classes, parquet
from bad_input import SWEEP, Bad, verb
from bad_specs import PLUGINS, SPECS, STUDIES
from command import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import drive

import raykd.spec.validate
from raykd import cli
from raykd.records.history import History
from raykd.records.ledger import LEDGER, Ledger
from raykd.spec.document import parse_yaml
from raykd.spec.search import build_sweep
from raykd.spec.shipped import SPACES
from raykd.spec.validate import validate
from trainables.core.errors import UserError
from trainables.data.data_sets import check_data, check_pictures, open_data
from trainables.spec.trial import DataSpec, Spec
from trainables.teachers.pretrained.read import read_checkpoint

EVERY = [*SPECS, *PLUGINS, *STUDIES, *DATA, *CHECKPOINTS, *VERBS, *EVALUATIONS]
KINDS = ("pt", "safetensors", "ledger", "png", "parquet")
STORING = ("run", "ablate", "resume", "status", "export", "importance", "compare", "evaluate", "report")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a sweep that has ended, called `sweep`."""
    folder = tmp_path_factory.mktemp("storage")
    spec = build_sweep({**parse_yaml(SWEEP, ""), "name": "sweep", "samples": 20})
    assert drive(folder / "sweep", spec).done
    return folder


def arguments(bad: Bad, here: Path, store: Path) -> list[str]:
    trials = sorted(History.of(Ledger.read(store / "sweep")).trials)
    several = next(name[0] for name in trials if sum(other[0] == name[0] for other in trials) > 1)
    places = {"HERE": str(here), "PREFIX": several, "TRIAL": trials[0]}
    words = shlex.split(bad.arguments)
    for place, value in places.items():
        words = [word.replace(place, value) for word in words]
    return [*words, "--storage", str(store)] if words[0] in STORING and "--storage" not in words else words


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder. Who holds a sweep is written where it is taken, and means nothing after."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != "driver.lock"
    }


def said(message: str, bad: Bad, here: Path) -> None:
    """It is one message, and names what has to be mended."""
    assert "Traceback" not in message and "Warning" not in message, message
    field, word = (part.replace("HERE", str(here)) for part in (bad.field, bad.word))
    if field == "Usage":  # typer's own: a box below a line on how to use the verb
        assert message.startswith("Usage:") and message.count("Error") == 1
    else:
        assert message.startswith(f"raykd: {field}") and len(message.splitlines()) == 1, message
    assert word in message, message
    in_users_words(message)


def in_users_words(message: str) -> None:
    """No class of ours is named, nor is what was given all that is expected, or what was meant."""
    ours = {cls.__name__ for cls in classes_of(Spec)}
    assert not ours & set(re.findall(r"\w+", message)) and "instance of" not in message, message
    given = re.search(r"\(got '?([^()']+?)'?\)\.", message)
    for wanted in re.findall(r"(?:Expected|Did you mean) ['`]?([^.]+?)['`]?[.?]", message):
        assert given is None or wanted != given[1], message


def classes_of(base: type) -> Iterator[type]:
    """Every class below `base`."""
    for cls in base.__subclasses__():
        yield cls
        yield from classes_of(cls)


@pytest.mark.parametrize("bad", EVERY, ids=[bad.name for bad in EVERY])
def test_a_mistake(bad: Bad, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, store = tmp_path / "here", tmp_path / "store"
    here.mkdir()
    shutil.copytree(storage, store)
    bad.make(here)
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    before = tree(tmp_path)
    with (
        redirect_stderr(io.StringIO()) as err,
        redirect_stdout(io.StringIO()) as out,
        warnings.catch_warnings(),
        pytest.raises(SystemExit) as left,
    ):
        warnings.simplefilter("always")
        cli.main(arguments(bad, here, store))
    assert left.value.code == 2, err.getvalue() + out.getvalue()
    said(err.getvalue(), bad, here)
    assert out.getvalue() == ""
    assert tree(tmp_path) == before, "nothing is written, and no file's code has run"


def test_there_are_enough_of_them_and_a_process_says_the_same(storage: Path, tmp_path: Path) -> None:
    assert len(EVERY) >= 60 and len({bad.name for bad in EVERY}) == len(EVERY)
    for bad in (EVERY[0], verb("unknown", "run HERE/s.yaml --set sampels=3", "sampels", "'samples'")):
        bad.make(tmp_path)
        done = subprocess.run(
            command(*arguments(bad, tmp_path, storage)), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        said(done.stderr, bad, tmp_path)


# --- whatever is written ------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "linear", "1e-3", "auto", "0", "-1", "../x", "retro", "\x00", "ß" * 200]),
)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v))


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a mapping."""
    found = [above] if above else []
    for key, inner in value.items() if isinstance(value, dict) else ():
        found += places(inner, (*above, key))
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_quickstart_can_run_or_is_refused(
    data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names dropped or renamed, values of any other kind."""
    monkeypatch.setattr(raykd.spec.validate, "COMBINATIONS", 4)
    written = parse_yaml((SPACES / "quickstart.yaml").read_text(), "quickstart")
    changed: dict[str, Any] = copy.deepcopy(written)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(changed)))
        inside = changed
        for step in path[:-1]:
            inside = inside[step]
        how = data.draw(st.sampled_from(["drop", "rename", "value", "value", "value"]))
        old = inside.pop(path[-1])
        if how == "rename":
            inside[data.draw(st.text(max_size=6))] = old
        elif how == "value":
            inside[path[-1]] = data.draw(VALUES)
    try:
        validate(build_sweep(changed))
    except UserError as error:
        assert error.field and str(error)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.binary(max_size=300), kind=st.sampled_from(["pt", "safetensors", "ledger", "png", "parquet"])
)
def test_any_bytes_are_a_file_or_refused(content: bytes, kind: str, tmp_path_factory: Any) -> None:
    folder: Path = tmp_path_factory.mktemp("bytes")
    refused: list[UserError] = []
    try:
        if kind in ("pt", "safetensors"):
            path = folder / f"t.{kind}"
            path.write_bytes(content)
            read_checkpoint(path, "teacher.checkpoint")
        elif kind == "ledger":
            (folder / LEDGER).write_bytes(content)
            assert Ledger.read(folder) == []
        else:
            name = "folder" if kind == "png" else "parquet"
            (folder / f"x.{kind}").write_bytes(content)
            spec = DataSpec(name=name, path=folder, image_size=16)
            check_data(spec)
            check_pictures(spec)
            open_data(spec, folder / "cache")
    except UserError as error:
        refused.append(error)
    assert refused or kind == "ledger", "no such bytes are whole"


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6))
def test_a_flipped_byte_in_a_users_file_is_read_or_refused(seed: int, tmp_path_factory: Any) -> None:
    """Formats without checksums cannot tell; none may crash, and a checksum that is there is looked at."""
    rng = random.Random(seed)
    folder: Path = tmp_path_factory.mktemp("flipped")
    if seed % 2:
        classes(folder / "d", "a", "b")
        path = rng.choice(sorted((folder / "d").rglob("*.png")))
    else:
        classes(folder / "p", "a")
        rows = [{"bytes": p.read_bytes(), "path": ""} for p in sorted((folder / "p").rglob("*.png"))]
        parquet({"image": rows * 8, "label": list(range(4)) * 8})(folder / "d")
        path = folder / "d" / "train.parquet"
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    spec = DataSpec(name="folder" if seed % 2 else "parquet", path=folder / "d", image_size=16)
    try:
        check_data(spec)
        check_pictures(spec)
        data = open_data(spec.model_copy(update={"max_undecodable": 0.5}), folder / "cache")
    except UserError:
        return
    assert len(data.train) >= (7 if seed % 2 else 16), "at most the share that may be undecodable is gone"
