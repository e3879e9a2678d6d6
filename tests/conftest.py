"""Every test session has its own caches and its own Ray, so that nothing of the user's is read."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from trainables.core import files

# Set before Ray is imported. Short, because Ray's sockets lie below it and their paths may have 107 letters.
_SESSION = Path(tempfile.mkdtemp(prefix="rk", dir="/tmp"))
os.environ["RAY_TMPDIR"] = str(_SESSION / "ray")
os.environ["RAYKD_CACHE"] = str(_SESSION / "cache")
os.environ["RAYKD_DATA"] = str(_SESSION / "raw")
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("RAY_ADDRESS", "RAYKD_STORAGE"):
    os.environ.pop(_name, None)

# How long an example takes says more about the machine's other work than about the code.
hypothesis.settings.register_profile("brief", deadline=None, max_examples=25)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=100)


def pytest_configure(config: pytest.Config) -> None:
    """Property tests that name no number of examples of their own try 25, or 100 where slow tests run too."""
    brief = "not slow" in config.option.markexpr
    hypothesis.settings.load_profile("brief" if brief else "thorough")


@pytest.fixture(scope="session", autouse=True)
def _remove_session_files() -> Iterator[None]:
    yield
    shutil.rmtree(_SESSION, ignore_errors=True)


def _forget_guarded_folders() -> Iterator[None]:
    """What is guarded inside is not for the tests after it: their folders may lie below the same one."""
    before = dict(files._GUARDED)
    yield
    files._GUARDED.clear()
    files._GUARDED.update(before)


_after_each_test = pytest.fixture(autouse=True)(_forget_guarded_folders)
_after_each_file = pytest.fixture(autouse=True, scope="module")(_forget_guarded_folders)


@pytest.fixture(autouse=True, scope="module")
def _forget_plugins() -> Iterator[None]:
    """What a file of tests imports as a user's code is not there for the files after it."""
    from own_code import forgotten  # loads torch, which reads the environment

    with forgotten():
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what would begin after RAYKD_TESTS_UNTIL (seconds since 1970), by which CI keeps to its time."""
    if time.time() > float(os.environ.get("RAYKD_TESTS_UNTIL", "inf")):
        pytest.skip("not run: the time that RAYKD_TESTS_UNTIL allows is over")


RAY, SECOND, REST = "ray", "ray in a second process", "rest"


@functools.cache
def _turn(file: Path) -> str:
    """Where the tests of a file run: by whether one of them is marked `ray`, or `ray(second=True)`."""
    text = file.read_text()
    return SECOND if "pytest.mark.ray(second=True)" in text else RAY if "pytest.mark.ray" in text else REST


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests that start Ray come first, since they take longest."""
    items.sort(key=lambda item: (RAY, SECOND, REST).index(_turn(item.path)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Under `pytest -n 3`, two processes take the files that start Ray, the others one file after another.

    A test that starts Ray waits half of its time; a third process of them would wait for the other two.
    """

    class ByTurn(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            turn = _turn(config.rootpath / file)
            return file if turn == REST else turn

    return ByTurn(config, log)
