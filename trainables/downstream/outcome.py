"""What a task found out about a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainables.core.file_transfer import FileTransfer
from trainables.data.sources.base import Metric

OUTCOMES = "outcomes.npz"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A score, and where the task has it, what became of each test image.

    `score` in percent, higher is better, by `metric` (`top1`, `mean_per_class`, `box_map`, `mask_map`).
    `hits` (N,) is 1 for a right test image and 0 for a wrong one (of a task of several draws the share of
    those that were right), in the order of `ids` (N,), and `labels` (N,) are their classes: two networks are
    compared image by image. None where a score is no mean over images. `fitted` counts the labelled images
    that were learned from. `chosen` are settings that the task chose on the validation part, `further` other
    metrics. `fitted_ids` are the training images that were learned from, where they were drawn or listed.
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
    fitted_ids: np.ndarray | None = None

    def metrics(self) -> dict[str, float]:
        """`score`, `fitted`, `tested`, and `chosen/NAME` and `further/NAME`, as a report holds them."""
        found = {"score": self.score, "fitted": float(self.fitted), "tested": float(self.tested)}
        found |= {f"chosen/{name}": value for name, value in self.chosen.items()}
        return found | {f"further/{name}": value for name, value in self.further.items()}

    def write(self, folder: Path, transfer: FileTransfer) -> None:
        """Write what became of each image to `folder`/outcomes.npz: arrays hits, ids, labels, fitted_ids.

        Those that are None are left out; without any there is no file. `metric` () is the score's, as text.
        """
        arrays = {"hits": self.hits, "ids": self.ids, "labels": self.labels, "fitted_ids": self.fitted_ids}
        found = {name: array for name, array in arrays.items() if array is not None}
        if not found:
            return
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / OUTCOMES, metric=np.array(self.metric), **found)  # type: ignore[arg-type]
        transfer.push(folder / OUTCOMES)


def score_of(hits: np.ndarray, labels: np.ndarray, metric: Metric) -> float:
    """The score in percent of `hits` (N,) on images of the classes `labels` (N,).

    `top1` is their mean. `mean_per_class` is the mean over the classes that are there of each class's mean.
    """
    if metric == "top1":
        return 100 * float(hits.mean())
    _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return 100 * float((np.bincount(index, weights=hits) / sizes).mean())
