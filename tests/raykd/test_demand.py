"""What a sweep asks an autoscaler for, by plain numbers; `test_lanes_cluster.py` sees it asked of Ray."""

from __future__ import annotations

import pytest

from raykd.lanes.demand import Demand
from raykd.spec.sections import WorkersSpec


def test_a_worker_asks_for_a_gpu_only_where_it_has_one() -> None:
    assert WorkersSpec(cpus=2).resources == {"CPU": 2}
    assert WorkersSpec(cpus=2, gpus=0.5).resources == {"CPU": 2, "GPU": 0.5}


@pytest.mark.parametrize(("left", "lanes", "wanted"), [(50, None, 13), (3, None, 1), (50, 2, 2), (1, 2, 1)])
def test_nodes_are_wanted_for_about_four_trials_each(left: int, lanes: int | None, wanted: int) -> None:
    assert Demand(WorkersSpec(), lambda: left, lanes).wanted == wanted


@pytest.mark.parametrize("lanes", [None, 2])
def test_a_sweep_with_references_alone_left_wants_a_lane(lanes: int | None) -> None:
    demand = Demand(WorkersSpec(), lambda: 0, lanes)
    assert demand.wanted == demand.useful == 1


def test_lanes_beyond_those_wanted_come_only_to_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sweeps of 50 trials on 26 nodes: neither takes the other's room for its own, and has more come."""
    seconds = iter(range(100))
    monkeypatch.setattr("raykd.lanes.demand.time.monotonic", lambda: next(seconds))
    demand = Demand(WorkersSpec(), lambda: 50)
    assert demand.bounds(0) == (13, 13), "those wanted may wait for room"
    for room in (5, 13, 13, 13, 13, 13, 13):
        bounds = demand.bounds(room)
    assert bounds == (13, 13), "the nodes hold 26, and half of them is taken"
    assert demand.bounds(14) == (13, 14), "what a lane of the other one leaves is its own again at once"
    for _ in range(6):
        bounds = demand.bounds(15)
    assert bounds == (15, 15), "what stays free is taken"
    assert demand.bounds(14) == (14, 15), "a lane that starts again does not end"
    for _ in range(6):
        bounds = demand.bounds(14)
    assert bounds == (14, 14), "one that finds no room does"
