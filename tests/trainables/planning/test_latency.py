"""The time of a forward pass: larger networks and batches take longer, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainables.core.errors import UserError
from trainables.core.limits import Limit
from trainables.planning import latency
from trainables.planning.latency import measure_latency
from trainables.spec.trial import ModelSpec

SMALL = ModelSpec(arch="raykd/mlp_32", options={"side": 16})


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(latency, "_SPELL_S", 0.2)
    monkeypatch.setattr(latency, "_WARM_S", 0.02)
    torch.set_num_threads(1)
    yield


def test_more_work_takes_longer() -> None:
    small = measure_latency(SMALL, 16)
    assert 0 < small.low_ms <= small.median_ms <= small.high_ms and small.busy > 0.5 and small.device
    assert latency.FEWEST <= small.passes <= latency.MOST
    # Thousands of times the multiply-adds: no other load of a machine hides that.
    assert measure_latency(ModelSpec(arch="resnet18"), 64, batch=4).low_ms > small.median_ms


def test_threads_and_random_numbers_are_as_before() -> None:
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    measure_latency(SMALL, 16, threads=1)
    assert torch.get_num_threads() == 2 and torch.equal(torch.get_rng_state(), before)
    tiny = torch.full((1,), 1e-40)
    assert float(tiny * 0.5) > 0, "denormal numbers count again"


@pytest.mark.parametrize(("field", "asked"), [("threads", {"threads": 3}), ("device", {"kind": "gpu"})])
def test_what_is_not_there_is_refused(field: str, asked: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "cpus", lambda: Limit(2, "this machine"))
    monkeypatch.setattr(latency, "device", lambda: torch.device("cpu"))
    with pytest.raises(UserError) as error:
        measure_latency(SMALL, 16, **asked)
    assert error.value.field == f"latency.{field}"
