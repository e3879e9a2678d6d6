"""Two lanes that share a GPU, which is a number: what does not fit beside the other is tried alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import quick
from pools import pool_of, quick_importable, run, task, until

from raykd.lanes import cluster
from raykd.spec.sections import WorkersSpec
from trainables.core.errors import SweepFailed

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_trial_that_does_not_fit_beside_another_is_tried_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"Alive": True, "Resources": {"CPU": 2, "GPU": 1}}
    monkeypatch.setattr(cluster, "this_machine", lambda: here)
    path = [str(Path(quick.__file__).parent / "fake_gpus"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    (tmp_path / "dead").write_text("")
    monkeypatch.setenv("RAYKD_TEST_DEAD_GPUS", str(tmp_path / "dead"))
    said: list[str] = []
    with (
        quick_importable(),
        cluster.connected(cluster.LOCAL),
        pool_of(tmp_path, WorkersSpec(gpus=0.5), 2, on_event=said.append) as pool,
        ThreadPoolExecutor(2) as two,
    ):
        until(lambda: pool.warm == 2, 300)
        # "train" goes on from its last epoch, so it leaves the GPU to the other one.
        beside = two.submit(run, pool, task(tmp_path, "beside", "train", pause=1.0))
        until(lambda: (tmp_path / "beside" / "starts").exists())
        large = two.submit(run, pool, task(tmp_path, "large", "crowd"))
        assert [m.epoch for m in large.result(120) if m.epoch] == [1, 2, 3, 4, 5]
        assert not beside.done(), "it waited"
        assert [m.epoch for m in beside.result(120) if m.epoch] == [1, 2, 3, 4, 5]
        until(lambda: any(text.startswith("large is tried alone on GPU 0") for text in said), 10, str(said))
        starts = {name: (tmp_path / name / "starts").read_text().split() for name in ("large", "beside")}
        assert starts["large"][0] == "0" and len(starts["large"]) == 2
        assert len(starts["beside"]) == 2 and 1 <= int(starts["beside"][1]) < 5, "an epoch each time at least"
        with pytest.raises(SweepFailed, match=r"it asked for 44.00 GiB more.*\(it was alone on its GPU\)"):
            run(pool, task(tmp_path, "hopeless", "crowd", hopeless=True))
        assert pool.warm == 2 and not pool.broken, "memory is no reason to lose a lane or a GPU"
