"""Mistakes in data folders, checkpoints and the use of verbs."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bad_input import FILE, Bad, checkpoint, data, sweep, verb
from PIL import Image
from safetensors.torch import save_file

from trainables.networks.backbones import build_backbone
from trainables.spec.trial import ModelSpec


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def classes(folder: Path, *names: str) -> None:
    for name in names:
        for i in range(4):
            picture(folder / name / f"{i}.png", i)


def no_pictures(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(200):
            (folder / name / f"{i}.png").write_bytes(b"<html>404 not found</html>")


def cifar(folder: Path) -> None:
    """CIFAR-10 as an interrupted download leaves it."""
    inside = folder / "cifar-10-batches-py"
    inside.mkdir(parents=True)
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (inside / name).write_bytes(b"\x80\x04\x95")
    (folder / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b\x08\0" + b"\0" * 100)


def parquet(columns: dict[str, Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir()
        pq.write_table(pa.table(columns), folder / "train.parquet")

    return make


def truncated_parquet(folder: Path) -> None:
    parquet({"image": [{"bytes": b"x" * 5000, "path": ""}] * 4, "label": [0, 1, 0, 1]})(folder)
    whole = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(whole[: len(whole) // 2])


def writes(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return make


IMAGES = [{"bytes": b"no picture", "path": ""}] * 200
DATA = [
    sweep("an unknown data set", {"data/name": "digit"}, "data.name", "'digits'"),
    sweep("a folder without a path", {"data/name": "folder"}, "data.path", "is needed"),
    sweep("a folder that is not there", {"data": {"name": "folder", "path": "/no/such"}}, "data.path",
          "no such"),
    sweep("a data set that is not there", {"data/name": "cifar10"}, "data", "data.download=true"),
    sweep("no validation part", {"data/validation": 0}, "data.validation", "0"),
    data("an empty folder", lambda d: d.mkdir(), {"name": "folder"}, "data.path", "no files ending in"),
    data("a file for a folder", writes(b""), {"name": "folder"}, "data.path", "is a file"),
    data("texts", lambda d: writes(b"hello")(d / "a" / "x.txt"), {"name": "folder"}, "data.path", "no files"),
    data("no pictures", no_pictures, {"name": "folder"}, "data.path", "none of the first 8 pictures"),
    data("one class", lambda d: classes(d, "a"), {"name": "folder"}, "probe.score", "no labels"),
    data("a handful", lambda d: classes(d, "a", "b"), {"name": "folder"}, "probe.score",
         "than there are images"),
    data("a test part alone", lambda d: classes(d / "test", "a", "b"), {"name": "folder"}, "data.path",
         "train/"),
    data("half of CIFAR", cifar, {"name": "cifar10"}, "data.path", "unchanged files"),
    data("no Parquet", writes(b""), {"name": "parquet"}, "data.path", "is a file"),
    data("Parquet without images", parquet({"a": [1]}), {"name": "parquet"}, "data.path", "has no images"),
    data("lists for labels", parquet({"image": IMAGES[:2], "label": [[0], [1]]}), {"name": "parquet"},
         "data.path", "integers or words"),
    data("a label far too large", parquet({"image": IMAGES[:2], "label": pa.array([0, 2**63], pa.uint64())}),
         {"name": "parquet"}, "data.path", "at most"),
    data("a class called train", lambda d: classes(d, "bus", "car", "train"), {"name": "folder"}, "data.path",
         "two ways"),
    data("a training and a test set", lambda d: classes(d, "trainset", "testset"), {"name": "folder"},
         "data.path", "two ways"),
    data("several data sets", lambda d: classes(d, "x/train/a", "x/test/a", "y/train/a", "y/test/a"),
         {"name": "folder"}, "data.path", "several data sets"),
    data("a splits' pattern that fits nothing", lambda d: classes(d, "a", "b"),
         {"name": "folder", "splits": {"train": "c"}}, "data.splits.train", "takes no file"),
    sweep("splits of what has its own", {"data/splits": {"train": "."}}, "data.splits", "of its own"),
    sweep("an unknown split", {"data/splits": {"trian": "."}}, "data.splits.trian", "train"),
    data("a negative label", parquet({"image": IMAGES[:2], "label": [0, -7]}), {"name": "parquet"},
         "data.path", "-7"),
    data("Parquet without pictures", parquet({"image": IMAGES, "label": [0, 1] * 100}), {"name": "parquet"},
         "data.path", "none of the first 8 pictures"),
    data("half of a Parquet file", truncated_parquet, {"name": "parquet"}, "data.path", "cannot be read"),
]  # fmt: skip


def weights() -> dict[str, torch.Tensor]:
    return dict(build_backbone(ModelSpec(arch="test_resnet"), 0).model.state_dict())


def saved(content: Callable[[], Any]) -> Callable[[Path], None]:
    return lambda path: torch.save(content(), path)


def cut(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def both(path: Path) -> None:
        make(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])

    return both


class Runs:
    """Unpickled it writes a file: nobody may."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.file),)


def pickled(path: Path, protocol: int = 2) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Runs(str(path.parent / "ran"))}, protocol))


def missing(count: int) -> dict[str, torch.Tensor]:
    return dict(list(weights().items())[:-count])


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "see the other file")


CHECKPOINTS = [
    checkpoint("a part without the others", "model-00001-of-00002.safetensors", saved(weights),
               "the first model-00002-of-00002.safetensors"),
    checkpoint("an index that is none", "model.safetensors.index.json", writes(b"{}"), "no index"),
    sweep("a checkpoint that is not there", {"teacher": {"arch": "test_resnet", "checkpoint": "/no.pt"}},
          "teacher.checkpoint", "no such file"),
    checkpoint("a folder for a checkpoint", "t.pt", lambda p: p.mkdir(), "is a folder"),
    checkpoint("nothing", "t.pt", writes(b""), "cannot be read"),
    checkpoint("a web page", "t.pth", writes(b"<!DOCTYPE html><html>Sign in</html>"), "cannot be read"),
    checkpoint("a web page as safetensors", "t.safetensors", writes(b"<!DOCTYPE html>" * 9),
               "cannot be read"),
    checkpoint("half a file", "t.pt", cut(saved(weights)), "cannot be read"),
    checkpoint("half of safetensors", "t.safetensors", cut(lambda p: save_file(weights(), p)),
               "cannot be read"),
    checkpoint("code", "t.pt", pickled, "no file's code is run"),
    checkpoint("code in a newer pickle", "t.pt", lambda p: pickled(p, 4), "cannot be read"),
    checkpoint("a zip", "t.pth", zipped, "cannot be read"),
    checkpoint("a list for weights", "t.pt", saved(lambda: [1, 2]), "holds a list"),
    checkpoint("an optimizer alone", "t.pt", saved(lambda: {"optimizer": {"state": {}}, "epoch": 3}),
               "holds no weights"),
    checkpoint("a file with a weight missing", "t.pt", saved(lambda: missing(3)), "first missing",
               "teacher.arch"),
    checkpoint("a weight of another shape", "t.pt",
               saved(lambda: {n: w[:3] if w.ndim == 4 else w for n, w in weights().items()}),
               "of another shape", "teacher.arch"),
    checkpoint("another architecture", "t.pt",
               saved(lambda: build_backbone(ModelSpec(arch="test_vit"), 0).model.state_dict()),
               "0 of 75 weights", "teacher.arch"),
    checkpoint("a backbone without a head", "t.pt", saved(weights), "projection head"),
    Bad("an inspected web page", lambda here: (here / "t.pth").write_text("<html>"),
        "teacher inspect HERE/t.pth",
        "FILE", "cannot be read"),
]  # fmt: skip


VERBS = [
    verb("no such verb", "rnu s.yaml", "Usage", "No such command 'rnu'"),
    verb("no spec", "run", "SPEC", "is missing"),
    verb("no such option", f"run {FILE} --sample 4", "Usage", "No such option"),
    verb("an unknown sweep", "status swep", "name", "'sweep'"),
    verb("one sweep to compare", "compare sweep", "NAMES", "two sweeps"),
    verb("a sweep compared with itself", "compare sweep sweep", "NAMES", "twice"),
    verb("an unknown sweep to compare with", "compare sweep swep", "name", "'sweep'"),
    verb("an option of another list", "list sweeps --image-size 32", "--image-size", "students"),
    verb("a list that is nearly one", "list sweep", "list", "'sweeps'"),
    verb("a sweep of another storage", "status sweep --storage HERE", "name", "holds no sweeps"),
    verb("a sweep by its path", "resume ../sweep", "name", "no such sweep"),
    verb("a negative extension", "resume sweep --extend -1", "Usage", "'--extend'"),
    verb("an extension in words", "resume sweep --extend some", "Usage", "'--extend'"),
    verb("an extension of a file", f"ablate {FILE} --extend 2", "--extend", "has begun"),
    verb("a search taken for a study", "ablate sweep", "STUDY", "is a search"),
    verb("settings for what has begun", "ablate sweep --set epochs=3", "STUDY", "is a search"),
    verb("a name in use", f"run {FILE} --set name=sweep", "name", "raykd resume sweep"),
    verb("a trial that is not there", "export sweep --trial zzzz --out HERE/o", "trial", "no such trial"),
    verb("a trial and the front", "export sweep --front --trial TRIAL --out HERE/o", "--trial",
         "one of the two"),
    verb("a prefix of several trials", "export sweep --trial PREFIX --out HERE/o", "trial",
         "trials start like"),
    verb("a trial without a student", "export sweep --trial TRIAL --out HERE/o", "trial",
         "has left no student"),
    verb("an export into what is there", "export sweep --out HERE", "--out", "is in use"),
    verb("an export below a file", f"export sweep --out {FILE}/o", "--out", "is a file"),
    verb("an export of nothing", "export nothing --out HERE/o", "name", "no such sweep"),
    verb("a format that is nearly one", "export sweep --out HERE/o --format timm,onix", "--format", "'onnx'"),
    verb("no format", "export sweep --out HERE/o --format ''", "--format", "torch_export"),
    verb("a licence that is nearly one", "export sweep --out HERE/o --licence Apache-2", "--licence",
         "'apache-2.0'"),
    verb("an export to nowhere", "export sweep", "Usage", "--out"),
    verb("a storage that is a file", f"run {FILE} --storage {FILE}", "--storage", "is a file"),
    verb("a storage below a file", f"run {FILE} --storage {FILE}/x", "--storage", "is a file"),
    verb("a storage that nobody can write", f"run {FILE} --storage /proc/raykd", "--storage",
         "cannot be written"),
    verb("a cluster that does not answer", f"run {FILE} --address 127.0.0.1:1", "--address",
         "no cluster answers"),
    verb("such a cluster and a new storage", f"run {FILE} --address 127.0.0.1:1 --storage HERE/new",
         "--address", "no cluster answers"),
    verb("an address without a port", "resume sweep --extend 1 --address here", "--address", "HOST:PORT"),
    verb("JSON of what is still to run", f"run {FILE} --json", "--json", "--dry-run"),
    verb("an unknown evaluator", "importance sweep --evaluator fanvoa", "--evaluator", "'fanova'"),
    verb("an unknown list", "list method", "", "'methods'"),
    verb("a doctor for nothing", "doctor quickstrat", "SPEC", "'quickstart'"),
    verb("a teacher that is not there", "teacher inspect HERE/none.pt", "FILE", "no such file"),
]  # fmt: skip
