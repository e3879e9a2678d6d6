"""What a sweep asks an autoscaler for, by plain numbers; `test_lanes_cluster.py` sees it asked of Ray."""

from __future__ import annotations

from raykd.spec.sections import WorkersSpec


def test_a_worker_asks_for_a_gpu_only_where_it_has_one() -> None:
    assert WorkersSpec(cpus=2).resources == {"CPU": 2}
    assert WorkersSpec(cpus=2, gpus=0.5).resources == {"CPU": 2, "GPU": 0.5}
