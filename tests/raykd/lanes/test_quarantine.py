"""A sick GPU on a real Ray, whose GPUs are numbers: trials go elsewhere, it is held, and the rest goes on."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import quick
from pools import pool_of, quick_importable, run, task, until

from raykd.lanes import cluster
from raykd.lanes.quarantine import in_quarantine
from raykd.spec.sections import WorkersSpec
from trainables.core.errors import SweepFailed

pytestmark = [pytest.mark.ray, pytest.mark.slow]  # what is decided when: test_gpus.py


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Ray of two GPUs here, and workers that take them for such; the file names those that do not start."""
    here = {"Alive": True, "Resources": {"CPU": 2, "GPU": 2}}
    monkeypatch.setattr(cluster, "this_machine", lambda: here)
    path = [str(Path(quick.__file__).parent / "fake_gpus"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    dead = tmp_path / "dead"
    dead.write_text("")
    monkeypatch.setenv("RAYKD_TEST_DEAD_GPUS", str(dead))
    return dead


def test_a_gpu_that_fails_twice_is_left_alone_and_without_any_the_sweep_ends(
    fake: Path, tmp_path: Path
) -> None:
    sick = tmp_path / "sick"
    sick.write_text("1")
    found: list[tuple[str, str]] = []
    said: list[str] = []

    def trial(name: str) -> Any:
        return task(tmp_path, name, "fail_on", sick=str(sick), pause=0.1)

    def gpus(name: str) -> list[str]:
        return (tmp_path / name / "gpus").read_text().split()

    watched = {"on_event": said.append, "on_quarantine": lambda *what: found.append(what)}
    workers = WorkersSpec(cpus=1).on([cluster.this_machine()])
    with (
        quick_importable(),
        cluster.connected(cluster.LOCAL),
        pool_of(tmp_path, workers, 2, **watched) as pool,
    ):
        until(lambda: pool.warm == 2, 300)
        hit = []
        for n in range(30):
            # Two at once, so that each lane has one.
            pair = [f"t{n}a", f"t{n}b"]
            with ThreadPoolExecutor(2) as two:
                for said_of in two.map(lambda name: run(pool, trial(name)), pair):
                    assert [m.epoch for m in said_of if m.epoch] == [1, 2, 3, 4, 5]
            for name in (name for name in pair if "1" in gpus(name)):
                hit.append(name)
                assert gpus(name)[-1] == "0", "it was tried again on the other one"
                until(lambda: found or pool.warm == 2, 300, str(said))
            if found:
                break
        assert len(hit) == 2, (hit, said)
        ((gpu, reason),) = found
        assert gpu.startswith("GPU 1 of ") and reason.startswith(
            "RuntimeError: CUDA error: an illegal memory"
        )
        until(lambda: in_quarantine() == [f"{gpu}: {reason}"], 300, str(said))
        assert run(pool, trial("after"))[-1].epoch == 5 and set(gpus("after")) == {"0"}
        assert pool.target() == 1 and pool.warm == 1

        sick.write_text("0 1")
        # With no other GPU to compare with, the trial may be the cause: one is given up, two are too many.
        with pytest.raises(SweepFailed, match="given up: one GPU failed under it, 3 times"):
            run(pool, trial("first"))
        with pytest.raises(
            SweepFailed,
            match=r"^without the GPUs in quarantine there is no room .*\(GPU 1 of .*; GPU 0 of .*\)$",
        ):
            run(pool, trial("last"))
        assert len(found) == 2 and (tmp_path / "last" / "epoch").read_text() in "23"
