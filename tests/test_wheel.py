"""The wheel, installed into a fresh environment, where nothing of the checkout is on the import path."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from raykd.process.version import version
from raykd.spec.shipped import spaces
from trainables.methods import methods

ROOT = Path(__file__).resolve().parent.parent
PARTS = (
    "raykd",
    "trainables",
    "search_spaces",
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "sweep.py",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because a build writes into the folder that it builds from. Needs no network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        if (ROOT / name).is_dir():
            without = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=without)
        else:
            shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", out, source)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a new environment that has the wheel, and lends all that raykd needs."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    lent = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (own / "lent.pth").write_text("\n".join(lent))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    return folder / "bin"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints, which must succeed. It has nothing of this process's import path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_holds_two_packages_and_everything_they_read(wheel: Path) -> None:
    with ZipFile(wheel) as file:
        names = set(file.namelist())
    packed = wheel.name.split("-py3")[0] + ".dist-info"
    assert {name.partition("/")[0] for name in names} == {"raykd", "trainables", packed}
    for folder in ("raykd", "trainables", "search_spaces"):
        inside = "raykd/search_spaces" if folder == "search_spaces" else folder
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" in names, path
    assert f"{packed}/licenses/LICENSE" in names


@pytest.mark.ray  # it starts none, but takes as long
@pytest.mark.slow
def test_the_installed_raykd_reads_its_own_files(installed: Path, tmp_path: Path) -> None:
    """From an empty folder: its version, its lists, a plan of the quickstart."""
    where = "import raykd, trainables; print(raykd.__file__, trainables.__file__)"
    for file in run(installed / "python", "-c", where, cwd=tmp_path).split():
        assert Path(file).is_relative_to(installed.parent), file
    program = installed / "raykd"
    assert run(program, "--version", cwd=tmp_path) == f"{version()}\n"
    assert "quickstart" in run(program, "--help", cwd=tmp_path)
    for what, key, known in (("spaces", "space", spaces()), ("methods", "method", methods())):
        rows = json.loads(run(program, "list", what, "--json", cwd=tmp_path))
        assert [row[key] for row in rows] == list(known)
    plan = json.loads(run(program, "run", "quickstart", "--dry-run", "--json", cwd=tmp_path))
    assert plan["trials"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray  # it starts none, but takes as long
@pytest.mark.slow
def test_the_extras_are_those_that_users_are_told_of(installed: Path) -> None:
    code = "from importlib.metadata import metadata; print(*metadata('raykd').get_all('Provides-Extra'))"
    assert {"s3", "dashboard"} <= set(run(installed / "python", "-c", code).split())


@pytest.mark.ray  # it starts none, but takes as long
@pytest.mark.slow
def test_the_licence_is_named(installed: Path) -> None:
    of_raykd = "from importlib.metadata import metadata; of = metadata('raykd').get"
    code = f"{of_raykd}; print(of('License'), of('License-Expression'))"
    assert "Apache-2.0" in run(installed / "python", "-c", code)
