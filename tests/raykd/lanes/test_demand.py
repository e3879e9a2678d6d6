"""What a sweep asks an autoscaler for, by plain numbers; `test_lanes_cluster.py` sees it asked of Ray."""

from __future__ import annotations

import pytest

from raykd.lanes import demand
from raykd.lanes.demand import Demand, autoscaler_makes_room
from raykd.spec.sections import WorkersSpec


def test_a_worker_asks_for_a_gpu_only_where_it_has_one() -> None:
    assert WorkersSpec(cpus=2).resources == {"CPU": 2}
    assert WorkersSpec(cpus=2, gpus=0.5).resources == {"CPU": 2, "GPU": 0.5}


@pytest.mark.parametrize(("left", "lanes", "wanted"), [(50, None, 13), (3, None, 1), (50, 2, 2), (1, 2, 1)])
def test_nodes_are_wanted_for_about_four_trials_each(left: int, lanes: int | None, wanted: int) -> None:
    assert Demand(WorkersSpec(), lambda: left, lanes).wanted == wanted


@pytest.mark.parametrize("lanes", [None, 2])
def test_a_sweep_with_references_alone_left_wants_a_lane(lanes: int | None) -> None:
    asked = Demand(WorkersSpec(), lambda: 0, lanes)
    assert asked.wanted == asked.useful == 1


def test_lanes_beyond_those_wanted_come_only_to_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sweeps of 50 trials on 26 nodes: neither takes the other's room for its own, and has more come."""
    seconds = iter(range(100))
    monkeypatch.setattr("raykd.lanes.demand.time.monotonic", lambda: next(seconds))
    asked = Demand(WorkersSpec(), lambda: 50)
    assert asked.bounds(0) == (13, 13), "those wanted may wait for room"
    for room in (5, 13, 13, 13, 13, 13, 13):
        bounds = asked.bounds(room)
    assert bounds == (13, 13), "the nodes hold 26, and half of them is taken"
    assert asked.bounds(14) == (13, 14), "what a lane of the other one leaves is its own again at once"
    for _ in range(6):
        bounds = asked.bounds(15)
    assert bounds == (15, 15), "what stays free is taken"
    assert asked.bounds(14) == (14, 15), "a lane that starts again does not end"
    for _ in range(6):
        bounds = asked.bounds(14)
    assert bounds == (14, 14), "one that finds no room does"


class Cloud:
    """Nodes that join at their seconds; the clock goes on when it is waited for."""

    def __init__(self, patch: pytest.MonkeyPatch, *nodes: tuple[float, float]) -> None:
        self.now, self.nodes, self.said = 0.0, nodes, list[str]()
        patch.setattr(demand.time, "monotonic", lambda: self.now)
        patch.setattr(demand.time, "sleep", self.wait)
        patch.setattr(
            demand, "live_nodes", lambda: [{"Resources": {"CPU": n}} for at, n in nodes if at <= self.now]
        )
        patch.setattr(demand, "starting", lambda: any(at > self.now for at, _ in nodes))
        patch.setattr(demand, "tell", self.said.append)
        patch.setattr(Demand, "ask", lambda *_: None)
        patch.setattr(Demand, "withdraw", lambda _: None)

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_a_node_that_starts_is_no_answer_before_it_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    large = WorkersSpec(cpus=4)
    cloud = Cloud(monkeypatch, (0, 1), (100, 2), (130, 4))
    assert autoscaler_makes_room(large) and 130 <= cloud.now < 132
    assert "waited for up to 15 minutes" in cloud.said[-1]
    other = Cloud(monkeypatch, (0, 1), (100, 2))
    assert not autoscaler_makes_room(large) and 119 < other.now < 121, "it is another sweep's, and too small"
    static = Cloud(monkeypatch, (0, 1))
    assert not autoscaler_makes_room(large) and 20 <= static.now < 22 and len(static.said) == 1
    never = Cloud(monkeypatch, (0, 1), (5000, 4))
    assert not autoscaler_makes_room(large) and 900 <= never.now < 902
    together = Cloud(monkeypatch, (0, 2), (50, 2))
    assert autoscaler_makes_room(WorkersSpec(count=2, cpus=2)) and 50 <= together.now < 52


def test_half_a_gpu_that_is_free_is_room_for_half_a_gpu() -> None:
    assert demand.fitting(WorkersSpec(gpus=0.5), {"CPU": 3, "GPU": 0.5}) == 1
    assert demand.fitting(WorkersSpec(gpus=2), {"CPU": 3, "GPU": 3}) == 1
    assert demand.fitting(WorkersSpec(cpus=0.7), {"CPU": 2.1}) == 3
    assert demand.fitting(WorkersSpec(gpus=1), {"CPU": 3}) == 0
