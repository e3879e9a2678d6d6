"""Variables of this process's environment that have other values for a while."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def setting(values: Mapping[str, str]) -> Iterator[None]:
    """The variables have these values while the block runs, and their old ones afterwards."""
    with kept(values):
        os.environ.update(values)
        yield


@contextmanager
def kept(names: Iterable[str]) -> Iterator[None]:
    """After the block the variables are as they were before it."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
