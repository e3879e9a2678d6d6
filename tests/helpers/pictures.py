"""What tests of data sources share: small pictures, and a data set opened and counted."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.data_sets import check_data, open_data
from trainables.data.decode import decode
from trainables.data.splits import class_sizes
from trainables.spec.trial import DataSpec

# train images, labels, test images, labels
Truth = tuple[np.ndarray, list[int], np.ndarray, list[int]]

RNG = np.random.default_rng(0)


def pixels(count: int, side: int, channels: int = 3) -> np.ndarray:
    """(count, side, side, channels) uint8."""
    return RNG.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def encoded(image: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def read_back(paths: list[Path], side: int) -> np.ndarray:
    """What files hold, by our own decoder (tested by itself), as (n, side, side, 3)."""
    return np.stack([decode(path, side).transpose(1, 2, 0) for path in paths])


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def opened(root: Path, cache: Path, name: str = "folder") -> tuple[list[int], list[int] | None, int]:
    """Labels of the training and test images, and the classes; counted the same before and after."""
    spec = DataSpec(name=name, path=root, image_size=8)
    data, facts = open_data(spec, cache), check_data(spec)
    assert facts.train_images == len(data.train_ids) and facts.classes == data.classes
    assert facts.probe_images == len(data.probe_ids) and facts.validation_images == len(data.val_ids)
    assert facts.class_images == class_sizes(data.train.labels[data.probe_ids], data.classes)
    assert facts.test_images == (0 if data.test is None else len(data.test))
    test = None if data.test is None else data.test.labels.tolist()
    return data.train.labels.tolist(), test, data.classes
