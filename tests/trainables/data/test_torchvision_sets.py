"""torchvision's data sets are read in their real formats, written here in small; a missing one says so.

torchvision compares files with the MD5 sums of the published ones; the tests of its formats replace that one
check by one for existence. What happens when a sum is wrong is tested with the check in place.
"""

import hashlib
import io
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transfer_files as transfer
from pictures import Truth, encoded, pixels, put, read_back
from scipy.io import savemat

from trainables.core.errors import UserError
from trainables.data.data_sets import check_data, open_data
from trainables.data.sources import find_source, sources
from trainables.data.sources.base import data_folder
from trainables.spec.trial import DataSpec


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
    "imagenet": (write_imagenet, 32, 1000),
    "flowers102": (transfer.write_flowers, 32, 102),
    "pets": (transfer.write_pets, 32, 37),
    "cars": (transfer.write_cars, 32, 196),
    "aircraft": (transfer.write_aircraft, 32, 100),
    "food101": (transfer.write_food, 32, 101),
    "dtd": (transfer.write_dtd, 32, 47),
    "eurosat": (transfer.write_eurosat, 32, 10),
    "caltech101": (transfer.write_caltech, 32, 102),
    "sun397": (transfer.write_sun, 32, 397),
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


def test_what_was_never_published_as_lists_is_drawn_class_by_class(tmp_path: Path) -> None:
    """EuroSAT: 80 % of each class (Helber et al.); Caltech-101: 30 images of each (Kornblith et al.)."""
    transfer.write_eurosat(tmp_path)
    transfer.write_caltech(tmp_path)
    for name, trained, tested in (("eurosat", [8] * 3, [2] * 3), ("caltech101", [30] * 3, [1, 2, 3])):
        parts = find_source(name).open(DataSpec(name=name, path=tmp_path))
        assert parts.test is not None
        train, test = list(parts.train.samples()), list(parts.test.samples())
        assert np.bincount([one.label for one in train]).tolist() == trained
        assert np.bincount([one.label for one in test]).tolist() == tested
        files = {path for path in tmp_path.rglob("*.jpg") if name in path.parts}
        assert {one.picture for one in train} | {one.picture for one in test} == files
        assert len(train) + len(test) == len(files)
        numbers = [int(str(one.name)[-6:-4].strip("_")) for one in test]
        assert numbers == transfer.DRAWN[name], "another draw than before: scores of a test change"


def test_the_lists_of_sun397_are_downloaded_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, *_ = transfer.write_sun(tmp_path)
    lists = tmp_path / "SUN397" / "Partitions"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for file in lists.iterdir():
            packed.write(file, file.name)
    shutil.rmtree(lists)
    spec = DataSpec(name="sun397", path=tmp_path, image_size=32)
    with pytest.raises(UserError, match=r"no SUN397/Partitions/Training_01.txt, .*=true"):
        check_data(spec)

    def download(url: str, folder: Path) -> None:
        put(folder / url.rpartition("/")[2], content.getvalue())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    spec = spec.model_copy(update={"download": True})
    with pytest.raises(UserError, match=r"data.download: SUN397.* is not the file that was published"):
        open_data(spec, tmp_path / "cache")
    published = hashlib.sha256(content.getvalue()).hexdigest()
    monkeypatch.setattr("trainables.data.sources.transfer_sets._SUN_SHA256", published)
    assert len(open_data(spec, tmp_path / "cache").train) == len(images)
    assert not list(tmp_path.rglob("*.zip"))


def test_metrics_are_those_of_the_papers() -> None:
    """Kornblith et al. (2019), table 1: mean per class for these, top-1 for the others."""
    by_class = {name for name, source in sources().items() if source.metric == "mean_per_class"}
    assert by_class == {"pets", "flowers102", "aircraft", "caltech101"}


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
    with pytest.raises(UserError, match="digits comes with scikit-learn"):
        check_data(DataSpec(path=Path("x")))
