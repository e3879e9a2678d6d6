"""Checkpoints: what was saved comes back to the bit; damage costs one epoch; a kill leaves no half file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.core.files import replacing
from trainables.training.checkpoints import Checkpoints


def state(value: float = 1.0) -> dict[str, Any]:
    return {
        "model": {"w": torch.full((100,), value), "half": torch.ones(3, dtype=torch.bfloat16)},
        "rng": [torch.get_rng_state(), (3, (1, 2), None)],
        "metrics": {"score": 0.1 + 0.2},
    }


def test_what_is_saved_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "checkpoints")
    assert kept.load() is None
    for epoch in range(1, 5):
        kept.save(epoch, state(epoch))
    loaded = Checkpoints(tmp_path / "checkpoints").load()
    assert loaded is not None
    epoch, found = loaded
    assert epoch == 4
    assert torch.equal(found["model"]["w"], state(4)["model"]["w"])
    assert found["model"]["half"].dtype == torch.bfloat16
    assert found["metrics"] == {"score": 0.1 + 0.2} and found["rng"][1] == (3, (1, 2), None)
    assert sorted(p.name[:11] for p in (tmp_path / "checkpoints").iterdir()) == ["epoch-00003", "epoch-00004"]


@settings(max_examples=30)
@given(data=st.data())
def test_any_damage_to_the_newest_falls_back_to_the_one_before(
    data: st.DataObject, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    kept = Checkpoints(folder)
    kept.save(1, state(1))
    kept.save(2, state(2))
    newest = max(folder.iterdir())
    content = bytearray(newest.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:where]
    else:
        content[where] ^= data.draw(st.integers(1, 255))
    newest.write_bytes(content)
    loaded = kept.load()
    assert loaded is not None and loaded[0] == 1 and loaded[1]["model"]["w"][0] == 1
    kept.save(2, state(5))  # the epoch is trained again, and the damaged file is gone
    loaded = kept.load()
    assert loaded is not None and loaded[0] == 2 and loaded[1]["model"]["w"][0] == 5
    assert len(list(folder.iterdir())) == 2


def test_two_damaged_checkpoints_start_from_nothing(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(1, state())
    kept.save(2, state())
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    assert kept.load() is None


def test_a_kill_while_writing_leaves_an_intact_checkpoint(tmp_path: Path) -> None:
    code = f"""
import torch
from pathlib import Path
from trainables.training.checkpoints import Checkpoints
torch.set_num_threads(1)
kept, epoch = Checkpoints(Path({str(tmp_path)!r})), 0
while True:
    epoch += 1
    kept.save(epoch, {{"w": torch.full((300_000,), float(epoch))}})
    print(epoch, flush=True)
"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    for _ in range(4):
        said = int(worker.stdout.readline())
    time.sleep(0.0013)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    said = int((worker.stdout.read().split() or [said])[-1])
    loaded = Checkpoints(tmp_path).load()
    assert loaded is not None
    epoch, found = loaded
    assert epoch >= said  # what was said to be saved is there
    assert (found["w"] == epoch).all()


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with replacing(path) as temporary:
        temporary.write_text("one")
    assert path.read_text() == "one"
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("two")
        raise RuntimeError
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]
