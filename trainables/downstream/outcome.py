"""What a task found out about a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainables.core.file_transfer import FileTransfer

OUTCOMES = "outcomes.npz"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A score, and where the task has it, what became of each test image.

    `score` in percent, higher is better, by `metric` (`top1`, `mean_per_class`, `box_map`, `mask_map`).
    `hits` (N,) is 1 for a right test image and 0 for a wrong one, in the order of `ids` (N,), and `labels`
    (N,) are their classes: two networks are compared image by image. None where a score is no mean over
    images. `fitted` counts the labelled images that were learned from. `chosen` are settings that the task
    chose on the validation part, `further` other metrics.
    """

    score: float
    metric: str
    fitted: int
    tested: int
    hits: np.ndarray | None = None
    ids: np.ndarray | None = None
    labels: np.ndarray | None = None
    chosen: dict[str, float] = field(default_factory=dict)
    further: dict[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """`score`, `fitted`, `tested`, and `chosen/NAME` and `further/NAME`, as a report holds them."""
        found = {"score": self.score, "fitted": float(self.fitted), "tested": float(self.tested)}
        found |= {f"chosen/{name}": value for name, value in self.chosen.items()}
        return found | {f"further/{name}": value for name, value in self.further.items()}

    def write(self, folder: Path, transfer: FileTransfer) -> None:
        """Write what became of each image to `folder`/outcomes.npz: arrays hits, ids, labels."""
        if self.hits is None or self.ids is None or self.labels is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / OUTCOMES, hits=self.hits, ids=self.ids, labels=self.labels)
        transfer.push(folder / OUTCOMES)
