"""A whole sweep over teachers by name: one is trained, a head is fitted to the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from command import raykd

from raykd.records.history import History
from raykd.records.ledger import Ledger

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SPEC = """\
name: named
method: [retro, projector]
preset: digits
student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
teachers:
  trained: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 1}}
  fitted: {arch: test_resnet, checkpoint: FILE, head: {epochs: 1}}
axes:
  teacher: [trained, fitted]
data: {name: digits, image_size: 16}
epochs: 1
samples: 4
sampler: grid
lanes: 1
scheduler: none
fixed: {queue_size: 256}
references: [teacher]
"""


def test_a_sweep_over_teachers_prepares_measures_and_names_each(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "bare.pth")
    (tmp_path / "named.yaml").write_text(SPEC.replace("FILE", str(tmp_path / "bare.pth")))
    done = raykd("run", tmp_path / "named.yaml", "--storage", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    history = History.of(Ledger.read(tmp_path / "named"))
    assert history.done and history.counts()["finished"] == 4
    assert {trial.params["teacher"] for trial in history.trials.values()} == {"trained", "fitted"}
    assert {name: row["label"] for name, row in history.references.items()} == {
        "teacher-trained": "the teacher trained, test_resnet",
        "teacher-fitted": "the teacher fitted, test_resnet",
    }
    assert len(list((tmp_path / ".teachers").glob("*.safetensors"))) == 2
    assert raykd("report", "named", "--storage", tmp_path).returncode == 0
    page = (tmp_path / "named" / "report.html").read_text()
    assert "the teacher fitted, test_resnet" in page
    assert raykd("resume", "named", "--storage", tmp_path, here=True).returncode == 0
