"""`raykd export --format timm,onnx,torch_export --licence …`, on students that were trained here."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from command import raykd
from PIL import Image
from torch import Tensor, nn
from trained_sweep import trained_sweep

import raykd as api
from raykd.export import graphs, student
from raykd.export.formats import FORMATS, check_formats, check_licence
from raykd.spec.search import build_sweep
from trainables.core.errors import UserError
from trainables.networks.backbones import build_backbone
from trainables.training.resolve import resolve

SIDE, MARGIN = 16, 4
RAW = {
    "method": "moco",
    "preset": "digits",
    "data": {"name": "digits", "image_size": SIDE, "margin": MARGIN},
    "probe": {"score": "ridge"},
    "epochs": 1,
    "samples": 1,
    "fixed": {"queue_size": 256},
    "axes": {},
    "references": [],
}
STUDENTS = {
    "timms": {"arch": "test_efficientnet", "options": {"channel_multiplier": 0.5}},
    "own": {"arch": "raykd/mlp_32", "options": {"side": SIDE}},
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sweeps of one trial: `timms` with a student of timm, `own` with one of raykd."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("storage")
    for name, one in STUDENTS.items():
        trained_sweep(folder / name, build_sweep({**RAW, "name": name, "student": one}), [({}, 1)])
    return folder


def need_onnx() -> None:
    for package in FORMATS["onnx"].packages:
        pytest.importorskip(package, reason="needs `pip install raykd[onnx]`")


@pytest.fixture(scope="module")
def exported(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of timm in all formats, as the verb writes them, and pictures beside it."""
    need_onnx()
    out = tmp_path_factory.mktemp("out") / "student"
    formats = ("--format", "timm,onnx,torch_export", "--licence", "MIT")
    done = raykd("export", "timms", "--storage", storage, "--out", out, *formats)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "student.onnx: its features differ from the student's by at most" in said
    assert "student.pt2: its features are the student's to the last bit" in said
    (out / "pictures").mkdir()
    noise = np.random.default_rng(0)
    for number in range(8):
        size = (47, 31, 3) if number % 2 else (29, 40, 3)
        smooth = Image.fromarray(noise.integers(0, 256, (5, 5, 3), np.uint8)).resize(size[1::-1])
        smooth.save(out / "pictures" / f"{number}.png")
    (out / "picture.png").write_bytes((out / "pictures" / "1.png").read_bytes())
    return out


def opened(folder: Path) -> nn.Module:
    model: nn.Module = timm.create_model(f"local-dir:{folder / 'student'}", pretrained=True).eval()
    return model


def lines_of(card: Path, *words: str) -> list[str]:
    """The pieces of Python on a card that hold one of `words`, in its order."""
    found = [piece.split("```")[0] for piece in card.read_text().split("```python\n")[1:]]
    return [piece for piece in found if any(word in piece for word in words)]


def run(lines: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    """(names, output) of pieces that go on from each other, run in `folder`."""
    monkeypatch.chdir(folder)
    scope: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()) as out:
        for piece in lines:
            exec(piece, scope)
    return scope, out.getvalue()


def test_the_folder_holds_each_format_at_its_place(exported: Path) -> None:
    made = {p.name for p in exported.iterdir()} - {"pictures", "picture.png"}
    assert made == {"README.md", "command.txt", "config.yaml", *(f.place for f in FORMATS.values())}


def test_onnxruntime_computes_the_students_features_for_every_batch_size(exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "student.onnx")
    (given,), (said,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("images", ["batch", 3, SIDE, SIDE]) and said.name == "features"
    assert said.shape == ["batch", opened(exported).num_features]
    for batch in (1, 3, 64):
        images = torch.randn(batch, 3, SIDE, SIDE)
        with torch.no_grad():
            wanted = opened(exported)(images).numpy()
        (features,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(features, wanted, atol=1e-5 * np.abs(wanted).max(), rtol=0)


def test_the_preprocessing_in_the_files_is_that_of_timm(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope, _ = run(lines_of(exported / "README.md", "custom_metadata_map"), exported, monkeypatch)
    model = opened(exported)
    resolved = timm.data.resolve_data_config(model=model)
    assert resolved["crop_pct"] == SIDE / (SIDE + MARGIN)
    timms = resolved | {"channels": "rgb"}  # the order, for which timm has no field
    assert scope["about"] == json.loads(json.dumps({key: timms[key] for key in scope["about"]}))
    assert scope["about"].keys() > {"input_size", "crop_pct", "mean", "std"}
    with torch.no_grad():
        wanted = model(timm.data.create_transform(**resolved)(Image.open("picture.png").convert("RGB"))[None])
    assert torch.allclose(torch.from_numpy(scope["features"]), wanted, atol=1e-5 * float(wanted.abs().max()))
    from_export, _ = run(lines_of(exported / "README.md", "torch.export.load"), exported, monkeypatch)
    assert from_export["about"] == scope["about"]
    assert from_export["features"].shape == (4, model.num_features)
    about = json.loads(from_export["files"]["student.json"])
    assert about["arch"] == "test_efficientnet" and about["licence"] == "mit" and len(about["trial"]) == 8


def test_the_graph_of_torch_export_is_the_student(exported: Path) -> None:
    graph = torch.export.load(exported / "student.pt2").module()
    images = torch.randn(6, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.allclose(graph(images), opened(exported)(images), atol=1e-5)


def test_the_lines_for_int8_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of(exported / "README.md", "custom_metadata_map", "quantize_static")
    scope, out = run(lines, exported, monkeypatch)
    assert len(lines) == 2 and scope["rounded"].dtype == np.float32
    assert float(out.split(":")[1]) > 0.9 and not np.array_equal(scope["exact"], scope["rounded"])
    assert (exported / "student_int8.onnx").exists()


def test_the_card_names_licence_formats_and_what_was_checked(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "mit" and "onnx" in front["tags"]
    assert "`mit`, chosen by whoever exported" in card and "(1e-04 is allowed)" in card
    told = json.loads((exported / "student" / "config.json").read_text())["pretrained_cfg"]
    assert told["license"] == "mit"


def test_a_student_of_raykd_has_graphs_and_is_refused_for_timm(storage: Path, tmp_path: Path) -> None:
    need_onnx()
    where = ("--storage", storage, "--out", tmp_path / "out")
    done = raykd("export", "own", *where, "--format", "onnx,timm")
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert "timm cannot open raykd/mlp_32: it is a network of raykd" in " ".join(done.stderr.split())
    folder = api.open("own", storage).best().export(tmp_path / "out", formats=["onnx", "torch_export"])
    assert {"student", "student.onnx", "student.pt2"} < {p.name for p in folder.iterdir()}
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert "license" not in front and "None was chosen" in (folder / "README.md").read_text()


@pytest.mark.parametrize("missing", FORMATS["onnx"].packages)
def test_a_missing_package_is_said_before_anything(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for package in FORMATS["onnx"].packages:
        monkeypatch.setitem(sys.modules, package, None if package == missing else sys)
    done = raykd("export", "timms", "--storage", storage, "--out", tmp_path / "out", "--format", "onnx")
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    said = " ".join(done.stderr.split())
    assert f"needs the package {missing}" in said and "`pip install raykd[onnx]`" in said


def test_a_graph_that_computes_other_features_is_an_error_and_leaves_nothing(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = graphs._open_torch_export
    wrong = graphs._GRAPHS["torch_export"]._replace(
        opened=lambda path: lambda images: exact(path)(images) * 1.001
    )
    monkeypatch.setitem(graphs._GRAPHS, "torch_export", wrong)
    # The test split is not spent on a student that is not exported.
    monkeypatch.setattr(student, "score_on_test", lambda *_: pytest.fail("the test split was read"))
    done = raykd("export", "timms", "--storage", storage, "--out", tmp_path / "o", "--format", "torch_export")
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    said = " ".join(done.stderr.split())
    assert "its torch_export computes other features: they differ by 1.0e-03" in said
    assert "Nothing was written" in said


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


class OfTwo(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(2, -1)


class Nan(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * torch.nan


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Branching(), r"\(Branching\) cannot be written as torch_export: Could not guard on data-dependent"),
        (OfTwo(), r"\(OfTwo\) cannot be written as torch_export: Constraints violated \(batch\)!"),
        (Nan(), "computes other features: they differ by nan"),
    ],
)
def test_networks_that_have_no_such_graph(model: nn.Module, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why) as said:
        graphs.write_graphs(["torch_export"], model.eval(), (3, SIDE, SIDE), tmp_path, {})
    assert said.value.field == "--format" and "leave torch_export out" in str(said.value)


@pytest.mark.parametrize(("side", "margin"), [(16, 0), (224, 32), (8, 85), (111, 76), (16, 4)])
def test_timm_resizes_to_the_size_that_was_stored(side: int, margin: int) -> None:
    given = {"method": "moco", "preset": "digits", "student": "test_resnet", "epochs": 1}
    trial = resolve({**given, "data": {"name": "digits", "image_size": side, "margin": margin}})
    told = json.loads(json.dumps(student.preprocessing(trial, build_backbone(trial.student, 0))))
    resize = timm.data.create_transform(**told).transforms[0]
    assert resize.size == side + margin


def test_formats_and_licences_by_name() -> None:
    assert check_formats("torch_export, timm,timm") == ("torch_export", "timm") and check_formats(()) == ()
    with pytest.raises(
        UserError, match=r"no such format \(got 'safetensors'\).*is written with every format"
    ):
        check_formats("safetensors")
    assert check_licence("CC-BY-4.0") == "cc-by-4.0" and check_licence(None) is None
    with pytest.raises(UserError, match=r"no such licence \(got 'cc-by-4'\).*Did you mean 'cc-by-4.0'"):
        check_licence("cc-by-4")
