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
