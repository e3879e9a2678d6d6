"""`raykd list spaces --copy NAME`: a file to change, never written over another one. Likewise of studies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raykd.cli import main
from raykd.spec.search import load_sweep
from raykd.spec.shipped import spaces, studies
from raykd.spec.suite_file import load_suite


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_copy_is_the_same_file_and_runs_by_the_command_that_is_shown(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("list", "spaces", "--copy", "moco") == 0
    assert capsys.readouterr().out == "written to moco.yaml; run it with:  raykd run moco.yaml\n"
    assert (here / "moco.yaml").read_bytes() == spaces()["moco"].read_bytes()
    assert load_sweep("moco.yaml").hash() == load_sweep("moco").hash()
    assert code_of("list", "studies", "--copy", "methods", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": "methods.yaml",
        "command": "raykd ablate methods.yaml",
    }
    assert (here / "methods.yaml").read_bytes() == studies()["methods"].read_bytes()
    assert code_of("list", "suites", "--copy", "quick") == 0
    shown = "written to quick.yaml; run it with:  raykd evaluate SWEEP --on quick.yaml\n"
    assert capsys.readouterr().out == shown
    assert load_suite("quick.yaml") == load_suite("quick")


def test_an_existing_file_or_link_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "moco.yaml").write_text("mine")
    (here / "seed.yaml").symlink_to(here / "elsewhere.yaml")
    for name in ("moco", "seed"):
        assert code_of("list", "spaces", "--copy", name) == 2
        assert f"{name}.yaml exists in this folder and is not overwritten" in capsys.readouterr().err
    assert (here / "moco.yaml").read_text() == "mine" and not (here / "elsewhere.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["spaces", "--copy", "mocco"], "--copy: no such search space (got 'mocco'). Did you mean 'moco'?"),
        (["studies", "--copy", "moco"], "--copy: no such study"),
        (["spaces", "--copy", "../moco"], "--copy: no such search space"),
        (["methods", "--copy", "moco"], "--copy: does not go with `methods`"),
        (["spaces", "moco*", "--copy", "moco"], "PATTERN: goes with `raykd list students`"),
    ],
)
def test_what_cannot_be_copied_is_refused(
    arguments: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("list", *arguments) == 2
    assert said in capsys.readouterr().err
    assert list(here.iterdir()) == []
