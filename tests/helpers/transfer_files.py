"""Data sets for transfer in the real layouts of their files, in small: what torchvision reads."""

import json
from pathlib import Path

import numpy as np
from pictures import Truth, encoded, pixels, put, read_back
from scipy.io import savemat

from trainables.data.splits import few_of_each, stratified

# The numbers of the files of the test, class by class, where a fixed seed draws the split.
DRAWN = {"eurosat": [12, 15, 14, 15, 13, 17], "caltech101": [27, 8, 15, 15, 29, 32]}


def write_flowers(root: Path) -> Truth:
    base = root / "flowers-102"
    paths = [base / "jpg" / f"image_{i:05}.jpg" for i in range(1, 13)]
    photos(paths)
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
        paths = [base / "images" / f"{name}.jpg" for name in names]
        photos(paths)
        lines = [f"{name} {i % 4 + 1} {i % 2 + 1} 1" for i, name in enumerate(names)]
        put(base / "annotations" / f"{part}.txt", "\n".join(lines).encode())
        truth.append(read_back(paths, 32))
    return truth[0], [0, 1, 2, 3] * 2, truth[1], [0, 1, 2, 3]


def write_cars(root: Path) -> Truth:
    base, truth = root / "stanford_cars", []
    (base / "devkit").mkdir(parents=True)
    for part, count, where in (
        ("train", 8, "devkit/cars_train_annos"),
        ("test", 4, "cars_test_annos_withlabels"),
    ):
        names = [f"{i:05}.jpg" for i in range(count)]
        paths = [base / f"cars_{part}" / name for name in names]
        photos(paths)
        notes = np.array(
            [(name, i % 4 + 1) for i, name in enumerate(names)], dtype=[("fname", object), ("class", object)]
        )
        savemat(base / f"{where}.mat", {"annotations": notes})
        truth.append(read_back(paths, 32))
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(list("abcd"), object)})
    return truth[0], [0, 1, 2, 3] * 2, truth[1], [0, 1, 2, 3]


def photos(paths: list[Path]) -> None:
    """JPEG files of noise."""
    for path in paths:
        put(path, encoded(pixels(1, 40)[0], "jpeg"))


def write_aircraft(root: Path) -> Truth:
    base, truth = root / "fgvc-aircraft-2013b" / "data", []
    put(base / "variants.txt", b"707-320\n727-200\nA300B4\n")
    for part, count in (("trainval", 6), ("test", 3)):
        names = [f"{part}_{i}" for i in range(count)]
        paths = [base / "images" / f"{name}.jpg" for name in names]
        photos(paths)
        variants = ["A300B4", "707-320", "727-200"] * (count // 3)
        lines = [f"{name} {variant}\n" for name, variant in zip(names, variants, strict=True)]
        put(base / f"images_variant_{part}.txt", "".join(lines).encode())
        truth.append(read_back(paths, 32))
    return truth[0], [2, 0, 1] * 2, truth[1], [2, 0, 1]


def write_food(root: Path) -> Truth:
    base, truth = root / "food-101", []
    for part, count in (("train", 3), ("test", 1)):
        of = {name: [f"{name}/{part}{i}" for i in range(count)] for name in ("waffles", "apple_pie")}
        put(base / "meta" / f"{part}.json", json.dumps(of).encode())
        paths = [base / "images" / f"{file}.jpg" for files in of.values() for file in files]
        photos(paths)
        truth.append(read_back(paths, 32))
    return truth[0], [1, 1, 1, 0, 0, 0], truth[1], [1, 0]


def write_dtd(root: Path) -> Truth:
    base, truth = root / "dtd" / "dtd", {}
    for part in ("train", "val", "test"):
        files = [f"{name}/{name}_{part}{i}.jpg" for name in ("banded", "zigzagged") for i in range(2)]
        put(base / "labels" / f"{part}1.txt", "\n".join(files).encode())
        put(base / "labels" / f"{part}2.txt", b"none/none.jpg\n")  # of another split, which is not read
        paths = [base / "images" / file for file in files]
        photos(paths)
        truth[part] = read_back(paths, 32)
    train = np.concatenate([truth["train"], truth["val"]])
    return train, [0, 0, 1, 1] * 2, truth["test"], [0, 0, 1, 1]


def write_eurosat(root: Path) -> Truth:
    names = ("AnnualCrop", "Forest", "SeaLake")
    paths = [root / "eurosat" / "2750" / name / f"{name}_{i}.jpg" for name in names for i in range(10, 20)]
    photos(paths)
    labels = np.repeat([0, 1, 2], 10)
    test = stratified(labels, 0.2, 0)
    return _drawn(paths, labels, np.delete(np.arange(30), test), test)


def write_caltech(root: Path) -> Truth:
    base = root / "caltech101" / "101_ObjectCategories"
    sizes = {"BACKGROUND_Google": 31, "accordion": 32, "yin_yang": 33}
    paths = [base / name / f"image_{i:04}.jpg" for name, size in sizes.items() for i in range(1, size + 1)]
    photos(paths)
    put(base / "BACKGROUND_Google" / "tmp", b"")  # as published
    labels = np.repeat([0, 1, 2], list(sizes.values()))
    train = few_of_each(labels, 30, np.random.default_rng(0))
    return _drawn(paths, labels, train, np.delete(np.arange(len(labels)), train))


def _drawn(paths: list[Path], labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> Truth:
    images = read_back(paths, 32)
    return images[train], labels[train].tolist(), images[test], labels[test].tolist()


def write_sun(root: Path) -> Truth:
    base, truth = root / "SUN397", []
    names = ["/a/abbey", "/a/apartment_building/outdoor", "/z/zoo"]
    put(base / "ClassName.txt", "".join(f"{name}\n" for name in names).encode())
    photos([base / "a" / "abbey" / "sun_of_no_list.jpg"])
    for part, count in (("Training", 3), ("Testing", 2)):
        files = [f"{name}/sun_{part}{i}.jpg" for name in reversed(names) for i in range(count)]
        put(base / "Partitions" / f"{part}_01.txt", "\n".join(files).encode())
        paths = [base / file[1:] for file in files]
        photos(paths)
        truth.append(read_back(paths, 32))
    return truth[0], [2] * 3 + [1] * 3 + [0] * 3, truth[1], [2, 2, 1, 1, 0, 0]
