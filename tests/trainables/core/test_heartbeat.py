"""Signs of life: heard now and then from every stage of a trial that may take long."""

from __future__ import annotations

import time
from pathlib import Path

from tiny_trials import run, tiny, workspace

from trainables.core.heartbeat import heartbeat, heartbeat_listener, heartbeat_while


def test_every_stage_of_a_trial_is_heard(tmp_path: Path) -> None:
    heard: list[str] = []
    with heartbeat_listener(heard.append, every_s=0):
        run(tiny("retro", epochs=1), workspace(tmp_path))
    said = " | ".join(heard)
    for stage in ("decoding images, ", "encoding images, batch 1/", "epoch 1, step 7/7"):
        assert stage in said, said


def test_a_listener_is_told_seldom_and_only_inside() -> None:
    heard: list[str] = []
    with heartbeat_listener(heard.append, every_s=0.2):
        for step in range(100):
            heartbeat(f"step {step}")
        time.sleep(0.2)
        heartbeat("later")
    heartbeat("outside")
    assert heard == ["step 0", "later"]


def test_what_has_no_loop_of_ours_is_alive_as_long_as_its_process() -> None:
    heard: list[str] = []
    with heartbeat_listener(heard.append, every_s=0), heartbeat_while("downloading", every_s=0.05):
        time.sleep(0.3)
    assert len(heard) > 2 and set(heard) == {"downloading"}
    count = len(heard)
    time.sleep(0.1)
    assert len(heard) == count
