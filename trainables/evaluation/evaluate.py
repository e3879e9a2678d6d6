"""Evaluates an encoder on a data set's splits with the probes of a trial.

    examiner = Examiner(trial.probe, data, evaluation_view(trial.data), device)
    examiner.evaluate(encode)     # {"score": 79.3, "probe/ridge_5shot": 79.3, ...}

Students, teachers, untrained networks and raw pixels are all evaluated here, so that their rows compare.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trainables.core.errors import UserError
from trainables.core.precision import whole_float32
from trainables.core.workers import from_first
from trainables.data.data_sets import DataFacts, DataSet
from trainables.data.encode import Encode, EncodeImages, encode_images, encode_together
from trainables.data.store_images import Images
from trainables.evaluation.probes import check_probe, names, probe
from trainables.spec.trial import ProbeSpec
from trainables.views.augmented import PlainView

_RAW_SIDE = 32
_DRAW_SEED = 0  # one seed, so that the k-shot draws are the same for every trial on one split


class Examiner:
    """The probes of a trial on one data set: fitted on its labelled training part, scored on a held-out one.

    With `final` the held-out part is the test split, and the validation part joins the training part: this is
    for one evaluation, at the end of a search. Of data without labels, probes that need none look at the
    images that were trained on. `view` is what the network is shown: an integer is that many pixels in the
    middle of an image, as they are. `UserError` for probes that these labels do not allow, and for `final`
    without a test split. `encoder` may read what a teacher said before.
    """

    def __init__(
        self,
        spec: ProbeSpec,
        data: DataSet,
        view: PlainView | int,
        device: torch.device,
        final: bool = False,
        encoder: EncodeImages = encode_images,
    ) -> None:
        facts = DataFacts(len(data.train_ids), data.classes, len(data.probe_ids), len(data.val_ids))
        check_probe(spec, facts)
        self.spec, self.device, self.view = spec, device, view
        self._encoder = encoder
        self.names = names(spec, data.classes)
        self.images = self.held_out = data.train
        fit_ids = data.probe_ids if data.classes else data.train_ids
        self.val_ids = data.val_ids
        if final:
            if data.test is None:
                raise UserError("data", "has no test split")
            fit_ids = np.sort(np.concatenate([fit_ids, data.val_ids]))
            self.held_out, self.val_ids = data.test, data.test_ids
        self.val_ids = spread(self.val_ids, self.held_out.labels[self.val_ids], spec.max_images)
        self.fit_ids = spread(fit_ids, data.train.labels[fit_ids], spec.max_images)
        self.fit_labels = torch.from_numpy(data.train.labels[self.fit_ids]).to(device)
        self.val_labels = torch.from_numpy(self.held_out.labels[self.val_ids]).to(device)

    def evaluate(self, encode: Encode) -> dict[str, float]:
        """The metrics `score` and `probe/NAME`, each with `…_se` where a probe has a standard error.

        In full float32 on every device, so that rows from a CPU and from a GPU compare. Every worker of a
        group calls this: each encodes a part of the images, the first one fits the probes, and all get the
        same metrics.
        """
        with whole_float32():
            fitted = self.encoded(encode, self.images, self.fit_ids)
            held_out = self.encoded(encode, self.held_out, self.val_ids)
            return from_first(lambda: self._scored(fitted, held_out))

    def _scored(self, fitted: Tensor, held_out: Tensor) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for name in self.names:
            result = probe(
                name, fitted, self.fit_labels, held_out, self.val_labels, self.spec.draws, _DRAW_SEED
            )
            metrics[f"probe/{name}"] = result.score
            if result.se is not None:
                metrics[f"probe/{name}_se"] = result.se
        score = f"probe/{self.spec.score}"
        own = {f"score{end}": metrics[score + end] for end in ("", "_se") if score + end in metrics}
        return {**own, **metrics}

    def encoded(self, encode: Encode, images: Images, ids: np.ndarray) -> Tensor:
        """Features (N, D) in float32 of the images `ids`, without augmentation; (0, 0) on other workers."""
        return encode_together(encode, images, ids, self.view, self.device, self._encoder)


def raw_pixels(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3HW): the encoder that does nothing. Larger images are averaged to 32 x 32 first.

    Probes on all 150,528 values of a 224-pixel image would not fit into memory.
    """
    if max(images.shape[2:]) > _RAW_SIDE:
        images = nn.functional.adaptive_avg_pool2d(images, _RAW_SIDE)
    return images.flatten(1)


def spread(ids: np.ndarray, labels: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of `ids`, sorted, spread evenly over the classes of `labels`. Always the same ones."""
    if len(ids) <= most:
        return ids
    keys = np.random.default_rng([_DRAW_SEED, most]).random(len(ids))
    order = np.lexsort((keys, labels))
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    turn = np.empty(len(ids))  # position of a sample within its class
    turn[order] = np.arange(len(ids)) - np.repeat(starts, sizes)
    chosen: np.ndarray = np.sort(ids[np.lexsort((keys, turn))[:most]])
    return chosen
