"""Which Ray a sweep joins."""

from __future__ import annotations

import pytest

from raykd.lanes import cluster
from trainables.core.errors import UserError


@pytest.mark.parametrize(
    ("asked", "environment", "here", "expected"),
    [
        (None, None, None, cluster.LOCAL),
        (None, None, "10.0.0.1:6379", "10.0.0.1:6379"),
        (None, "10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
        ("10.0.0.3:6379", "10.0.0.2:6379", None, "10.0.0.3:6379"),
        ("auto", None, "10.0.0.1:6379", "10.0.0.1:6379"),
        (None, "auto", "10.0.0.1:6379", "10.0.0.1:6379"),
        ("local", None, "10.0.0.1:6379", cluster.LOCAL),
    ],
)
def test_the_address_asked_for_comes_first(
    asked: str | None,
    environment: str | None,
    here: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "running_here", lambda: here)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert cluster.ray_address(asked) == expected


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("auto", "none was started on this machine"),
        ("nowhere", "this is no HOST:PORT"),
        ("nowhere:", "this is no HOST:PORT"),
        ("127.0.0.1:1", "refused"),
    ],
)
def test_an_address_where_nobody_answers_is_refused_at_once(address: str, why: str) -> None:
    with (
        pytest.raises(UserError, match=rf"--address: no cluster answers \(.*{why}"),
        cluster.connected(address),
    ):
        pass
