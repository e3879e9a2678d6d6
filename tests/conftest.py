"""Every test session has its own caches and its own Ray, so that nothing of the user's is read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Set before Ray is imported. Short, because Ray's sockets lie below it and their paths may have 107 letters.
_SESSION = Path(tempfile.mkdtemp(prefix="rk", dir="/tmp"))
os.environ["RAY_TMPDIR"] = str(_SESSION / "ray")
os.environ["RAYKD_CACHE"] = str(_SESSION / "cache")
os.environ["RAYKD_DATA"] = str(_SESSION / "raw")
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("RAY_ADDRESS", "RAYKD_STORAGE"):
    os.environ.pop(_name, None)

# How long an example takes says more about the machine's other work than about the code.
hypothesis.settings.register_profile("raykd", deadline=None)
hypothesis.settings.load_profile("raykd")


@pytest.fixture(scope="session", autouse=True)
def _remove_session_files() -> Iterator[None]:
    yield
    shutil.rmtree(_SESSION, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under `pytest -n 2`, one process takes the tests that start Ray, from the start, the other the rest.

    A test that starts Ray mostly waits, and two of them on two cores wait for each other. Those marked
    `ray(late=True)` are what the other process has left to do when it is through.
    """

    def turn(item: pytest.Item) -> int:
        marker = item.get_closest_marker("ray")
        return 1 if marker is None else 2 if marker.kwargs.get("late") else 0

    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group(f"ray-{turn(item)}"))
    items.sort(key=turn)
