"""Full float32 inside, whichever of torch's two interfaces allowed less; afterwards as before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainables.core.isolation import isolated
from trainables.core.precision import precision, set_precision, whole_float32

NEWER = hasattr(torch.backends, "fp32_precision")
newer = pytest.mark.skipif(not NEWER, reason="this torch has the older interface alone")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = precision()
    yield
    if NEWER:
        torch.backends.fp32_precision = "none"
    set_precision(before)


def older_way() -> None:
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True


def newer_way() -> None:
    torch.backends.fp32_precision = "tf32"


def newer_way_for_one() -> None:
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.cuda.matmul.fp32_precision = "tf32"


@pytest.mark.parametrize(
    "allow",
    [older_way, pytest.param(newer_way, marks=newer), pytest.param(newer_way_for_one, marks=newer)],
)
def test_full_float32_whichever_interface_allowed_less(allow: object) -> None:
    assert callable(allow)
    allow()
    before = precision()
    with whole_float32():
        inside = precision()
        assert set(inside.backends) <= {"ieee"}
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
        x = torch.rand(3, 3)
        assert torch.isfinite(x @ x).all()
    assert precision().backends == before.backends
    if allow is older_way:
        assert precision() == before


def test_what_a_trial_sets_ends_with_it() -> None:
    before = precision()
    with isolated(0):
        older_way()
    assert precision() == before
