"""The version, of an installed raykd and of a checkout."""

from __future__ import annotations

from importlib import metadata

import pytest

import raykd
from raykd.process.version import version


def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = version()
    assert installed == metadata.version("raykd") == raykd.__version__

    def refuse(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", refuse)
    assert version() == installed
