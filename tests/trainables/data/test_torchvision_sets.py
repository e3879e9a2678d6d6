"""torchvision's data sets are read in their real formats, written here in small; a missing one says so.

torchvision compares files with the MD5 sums of the published ones; the tests of its formats replace that one
check by one for existence. What happens when a sum is wrong is tested with the check in place.
"""

import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encoded, pixels, put
from scipy.io import savemat

from trainables.core.errors import UserError
from trainables.data.data_sets import check_data, open_data
from trainables.data.decode import decode
from trainables.data.sources import find_source, sources
from trainables.data.sources.base import data_folder
from trainables.spec.trial import DataSpec

Truth = tuple[np.ndarray, list[int], np.ndarray, list[int]]  # train images, labels, test images, labels


def write_cifar10(root: Path) -> Truth:
    train, test = pixels(25, 32), pixels(6, 32)
    labels, test_labels = [i % 10 for i in range(25)], [9, 8, 0, 1, 2, 3]
    for b in range(5):
        part = slice(5 * b, 5 * b + 5)
        rows = train[part].transpose(0, 3, 1, 2).reshape(5, -1)
        batch = {"data": rows, "labels": labels[part], "batch_label": f"batch {b + 1} of 5"}
        put(root / "cifar-10-batches-py" / f"data_batch_{b + 1}", pickle.dumps(batch, protocol=2))
    batch = {"data": test.transpose(0, 3, 1, 2).reshape(6, -1), "labels": test_labels}
    put(root / "cifar-10-batches-py" / "test_batch", pickle.dumps(batch, protocol=2))
    put(root / "cifar-10-batches-py" / "batches.meta", pickle.dumps({"label_names": list("abcdefghij")}))
    return train, labels, test, test_labels


def write_cifar100(root: Path) -> Truth:
    train, test = pixels(12, 32), pixels(4, 32)
    labels, test_labels = [0, 99] * 6, [99, 0, 5, 7]
    for name, images, fine in (("train", train, labels), ("test", test, test_labels)):
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        batch = {"data": rows, "fine_labels": fine, "coarse_labels": [0] * len(fine)}
        put(root / "cifar-100-python" / name, pickle.dumps(batch, protocol=2))
    names = {"fine_label_names": [str(i) for i in range(100)]}
    put(root / "cifar-100-python" / "meta", pickle.dumps(names))
    return train, labels, test, test_labels


def write_svhn(root: Path) -> Truth:
    train, test = pixels(12, 32), pixels(5, 32)
    labels, test_labels = [i % 10 for i in range(12)], [0, 9, 3, 3, 1]
    for name, images, digits in (("train", train, labels), ("test", test, test_labels)):
        ones = np.array([[digit or 10] for digit in digits], np.uint8)  # the files call a zero 10
        savemat(root / f"{name}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": ones})
    return train, labels, test, test_labels


def write_stl10(root: Path) -> Truth:
    train, free, test = pixels(10, 96), pixels(7, 96), pixels(4, 96)
    labels, test_labels = list(range(10)), [3, 2, 1, 0]
    base = root / "stl10_binary"
    for name, images in (("train", train), ("unlabeled", free), ("test", test)):
        put(base / f"{name}_X.bin", images.transpose(0, 3, 2, 1).tobytes())  # columns first
    for name, digits in (("train", labels), ("test", test_labels)):
        put(base / f"{name}_y.bin", np.array([digit + 1 for digit in digits], np.uint8).tobytes())
    return np.concatenate([train, free]), labels + [-1] * 7, test, test_labels


def write_mnist(root: Path) -> Truth:
    train, test = pixels(20, 28, 1), pixels(6, 28, 1)
    labels, test_labels = [i % 10 for i in range(20)], [0, 9, 3, 3, 1, 1]
    for name, images, digits in (("train", train, labels), ("t10k", test, test_labels)):
        raw = root / "MNIST" / "raw"
        put(
            raw / f"{name}-images-idx3-ubyte",
            struct.pack(">4i", 2051, len(images), 28, 28) + images.tobytes(),
        )
        put(raw / f"{name}-labels-idx1-ubyte", struct.pack(">2i", 2049, len(digits)) + bytes(digits))
    return np.repeat(train, 3, 3), labels, np.repeat(test, 3, 3), test_labels


def read_back(paths: list[Path], side: int) -> np.ndarray:
    """What files hold, by our own decoder (tested by itself), as (n, side, side, 3)."""
    return np.stack([decode(path, side).transpose(1, 2, 0) for path in paths])


def write_flowers(root: Path) -> Truth:
    base = root / "flowers-102"
    paths = [base / "jpg" / f"image_{i:05}.jpg" for i in range(1, 13)]
    for path in paths:
        put(path, encoded(pixels(1, 40)[0], "jpeg"))
    labels = np.array([1, 1, 102, 102, 5, 5, 1, 102, 5, 1, 5, 102])
    savemat(base / "imagelabels.mat", {"labels": labels})
    train, val, test = [1, 3, 5], [2, 4, 6, 7], [8, 9, 10, 11, 12]
    savemat(base / "setid.mat", {"trnid": train, "valid": val, "tstid": test})
    images = read_back(paths, 32)
    of = [np.array(ids) - 1 for ids in (train + val, test)]
    return images[of[0]], list(labels[of[0]] - 1), images[of[1]], list(labels[of[1]] - 1)


def write_pets(root: Path) -> Truth:
    base, truth = root / "oxford-iiit-pet", []
    for part, count in (("trainval", 8), ("test", 4)):
        names = [f"{part}_{i}" for i in range(count)]
        for name in names:
            put(base / "images" / f"{name}.jpg", encoded(pixels(1, 40)[0], "jpeg"))
        lines = [f"{name} {i % 4 + 1} {i % 2 + 1} 1" for i, name in enumerate(names)]
        put(base / "annotations" / f"{part}.txt", "\n".join(lines).encode())
        truth.append(read_back([base / "images" / f"{name}.jpg" for name in names], 32))
    return truth[0], [0, 1, 2, 3] * 2, truth[1], [0, 1, 2, 3]


def write_cars(root: Path) -> Truth:
    base, truth = root / "stanford_cars", []
    (base / "devkit").mkdir(parents=True)
    for part, count, where in (
        ("train", 8, "devkit/cars_train_annos"),
        ("test", 4, "cars_test_annos_withlabels"),
    ):
        names = [f"{i:05}.jpg" for i in range(count)]
        for name in names:
            put(base / f"cars_{part}" / name, encoded(pixels(1, 40)[0], "jpeg"))
        notes = np.array(
            [(name, i % 4 + 1) for i, name in enumerate(names)], dtype=[("fname", object), ("class", object)]
        )
        savemat(base / f"{where}.mat", {"annotations": notes})
        truth.append(read_back([base / f"cars_{part}" / name for name in names], 32))
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(list("abcd"), object)})
    return truth[0], [0, 1, 2, 3] * 2, truth[1], [0, 1, 2, 3]


def write_imagenet(root: Path) -> Truth:
    wnids, truth = ["n01440764", "n01443537", "n01484850"], []
    torch.save(({wnid: (wnid, "a fish") for wnid in wnids}, wnids), root / "meta.bin")
    for part, each in (("train", 4), ("val", 2)):
        paths = [root / part / wnid / f"{wnid}_{i}.JPEG" for wnid in wnids for i in range(each)]
        for path in paths:
            put(path, encoded(pixels(1, 40)[0], "jpeg"))
        truth.append(read_back(paths, 32))
    return truth[0], [0] * 4 + [1] * 4 + [2] * 4, truth[1], [0, 0, 1, 1, 2, 2]


WRITERS: dict[str, tuple[Callable[[Path], Truth], int, int]] = {  # writer, side, classes
    "cifar10": (write_cifar10, 32, 10),
    "cifar100": (write_cifar100, 32, 100),
    "svhn": (write_svhn, 32, 10),
    "stl10": (write_stl10, 96, 10),
    "mnist": (write_mnist, 28, 10),
    "flowers102": (write_flowers, 32, 102),
    "pets": (write_pets, 32, 37),
    "cars": (write_cars, 32, 196),
    "imagenet": (write_imagenet, 32, 1000),
}
SUMMED = ("cifar", "svhn", "stl10", "mnist", "flowers102", "imagenet")


@pytest.mark.parametrize("name", WRITERS)
def test_torchvision_formats(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, side, classes = WRITERS[name]
    for module in SUMMED:
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).is_file()
        )
    (tmp_path / "raw").mkdir()
    images, labels, test_images, test_labels = write(tmp_path / "raw")
    spec = DataSpec(name=name, path=tmp_path / "raw", image_size=side)
    data = open_data(spec, tmp_path / "cache")

    assert data.classes == classes and data.test is not None
    for part, want, want_labels in ((data.train, images, labels), (data.test, test_images, test_labels)):
        assert part.labels.tolist() == list(want_labels)
        got = part.take(np.arange(len(part))).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(got, want)
    labelled = sum(label >= 0 for label in labels)
    assert len(data.val_ids) == round(labelled / 3)
    assert (data.train.labels[data.val_ids] >= 0).all() and (data.train.labels[data.probe_ids] >= 0).all()
    assert len(data.train_ids) == len(labels) - len(data.val_ids)
    assert len(data.probe_ids) == labelled - len(data.val_ids)


@pytest.mark.parametrize("name", WRITERS)
def test_missing_sets_say_where_and_what_to_type(name: str, tmp_path: Path) -> None:
    spec = DataSpec(name=name, path=tmp_path)
    for attempt in (check_data, lambda spec: open_data(spec, tmp_path / "cache")):
        with pytest.raises(UserError) as error:
            attempt(spec)
        message = str(error.value)
        assert message.startswith("data.path:") and str(tmp_path) in message
        assert "data.path=" in message
        assert ("data.download=true" in message) == (name not in ("cars", "imagenet"))


def test_counts_are_the_published_ones(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    facts = check_data(DataSpec(name="mnist", path=tmp_path, validation=0.1))
    assert (facts.train_images, facts.validation_images, facts.test_images, facts.classes) == (
        54_000,
        6_000,
        10_000,
        10,
    )
    write_stl10(tmp_path)
    stl = check_data(DataSpec(name="stl10", path=tmp_path, validation=0.2))
    assert (stl.train_images, stl.probe_images, stl.validation_images) == (104_000, 4_000, 1_000)


def test_wrong_sums_are_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path)  # not the files whose sums torchvision knows
    with pytest.raises(UserError, match=r"data.path: CIFAR-10 in .* cannot be read: .*corrupt.*=true"):
        open_data(DataSpec(name="cifar10", path=tmp_path), tmp_path / "cache")


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", unreachable)
    spec = DataSpec(name="cifar10", path=tmp_path / "new", download=True)
    assert check_data(spec).train_images == 33_333  # may be downloaded: nothing to complain of yet
    with pytest.raises(UserError, match=r"data.download: CIFAR-10 could not be .*no route to host"):
        open_data(spec, tmp_path / "cache")


def test_sets_that_cannot_be_downloaded_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="by hand"):
        check_data(DataSpec(name="imagenet", path=tmp_path, download=True))


def test_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYKD_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert find_source("cifar10").where(DataSpec(name="cifar10")) == tmp_path
    assert find_source("svhn").where(DataSpec(name="svhn")) == tmp_path / "svhn"
    monkeypatch.delenv("RAYKD_DATA")
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    assert data_folder() == tmp_path / "cache" / "raw"
    with pytest.raises(UserError, match=re.escape(f"not in {tmp_path}/cache/raw")):
        check_data(DataSpec(name="mnist"))


def test_names() -> None:
    assert {"digits", "folder", "parquet", *WRITERS} <= sources().keys()
    published = [source.published() is not None for source in sources().values()]
    assert published == sorted(published, reverse=True), "those that need no path are shown first"
    assert all(source.summary for source in sources().values())
    with pytest.raises(UserError, match="Did you mean 'cifar100'"):
        check_data(DataSpec(name="cifar-100"))
    with pytest.raises(UserError, match="digits come with scikit-learn"):
        check_data(DataSpec(path=Path("x")))
