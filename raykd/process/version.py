"""The version of this raykd."""

from __future__ import annotations

from configparser import ConfigParser
from importlib import metadata
from pathlib import Path


def version() -> str:
    """The version of the installed raykd, or of this checkout where raykd is not installed."""
    try:
        return metadata.version("raykd")
    except metadata.PackageNotFoundError:
        declared = ConfigParser()
        declared.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
        return declared["metadata"]["version"]
