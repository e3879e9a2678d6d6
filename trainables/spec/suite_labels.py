"""Tasks that learn from labels: from all of them, from a share, from some of each class, or from a list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from trainables.core.errors import UserError
from trainables.spec.network_spec import file_digest
from trainables.spec.suite_task import SuiteTask

ALL = "all"
PER_CLASS = "per_class"
_EXPECTED = "all, a share such as 0.01 or 1%, {per_class: 5}, or a file with one name of an image a line"
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_MOST = 10_000_000  # labels a class


def _labels(given: Any) -> Any:
    """`all`, a share below 1, {per_class: count}, or the path of a file."""
    share: Any = given
    if isinstance(given, str) and (percent := _PERCENT.fullmatch(given.strip())):
        share = float(percent[1]) / 100
        share = ALL if share == 1 else share
    if isinstance(share, bool) or share is None or share == "":
        raise UserError("", "wrong value", value=given, expected=_EXPECTED)
    if isinstance(share, int | float):
        if not 0 < share < 1:
            raise UserError("", "is no share of the labels", value=given, expected=_EXPECTED)
        return float(share)
    if isinstance(share, Mapping):
        if unknown := [name for name in share if name != PER_CLASS]:
            raise UserError(str(unknown[0]), "no such field", value=unknown[0], choices=(PER_CLASS,))
        count = share.get(PER_CLASS)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST:
            expected = f"a whole number from 1 to {_MOST:,}"
            raise UserError(PER_CLASS, "is no number of labels", value=count, expected=expected)
        return {PER_CLASS: count}
    if isinstance(share, Path):
        return str(share)
    if not isinstance(share, str):
        raise UserError("", "wrong value", value=given, expected=_EXPECTED)
    return share


class LabelledTask(SuiteTask):
    """A task that learns from labelled images and reads the test split once."""

    labels: Annotated[float | dict[str, int] | str, BeforeValidator(_labels)] = Field(
        ALL,
        description="which training images' labels it learns from: all, a share (0.01, 1%) drawn class by "
        "class, {per_class: K}, or a file with one name of an image a line",
    )

    @property
    def label_file(self) -> Path | None:
        """The file that lists the labelled images, where there is one."""
        return Path(self.labels).expanduser() if isinstance(self.labels, str) and self.labels != ALL else None

    def identity(self) -> dict[str, Any]:
        """As of every task; of a list of labels its content, not its path."""
        identity = super().identity()
        if self.label_file is not None:
            identity["labels"] = {"file": file_digest(self.label_file)}
        return identity
