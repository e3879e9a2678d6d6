"""The part of a model card about a student's graphs: ONNX, int8 from it, and torch.export."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from raykd.export.formats import ONNX, TORCH_EXPORT

if TYPE_CHECKING:
    from raykd.export.graphs import Checked

ONNX_LINES = """\
import json

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("student.onnx")
about = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])


def prepared(path):
    \"\"\"(C, H, W) float32: the shorter side resized, the centre cut out, normalised.\"\"\"
    channels, side, _ = about["input_size"]
    image = Image.open(path).convert("L" if channels == 1 else "RGB")
    scale = round(side / about["crop_pct"]), min(image.size)
    kind = Image.Resampling[about["interpolation"].upper()]
    image = image.resize([scale[0] * n // scale[1] for n in image.size], kind)
    left, top = (round((n - side) / 2) for n in image.size)
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / 255
    pixels = pixels.reshape(side, side, channels)
    pixels = ((pixels - np.float32(about["mean"])) / np.float32(about["std"])).transpose(2, 0, 1)
    return pixels[::-1] if about["channels"] == "bgr" else pixels


(features,) = session.run(["features"], {"images": np.stack([prepared("picture.png")])})"""

INT8_LINES = """\
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Pictures(CalibrationDataReader):
    def __init__(self, paths):
        self.batches = ({"images": prepared(path)[None]} for path in paths)

    def get_next(self):
        return next(self.batches, None)


paths = sorted(Path("pictures").rglob("*.png"))  # a few hundred of those that the student is for
quant_pre_process("student.onnx", "student_prepared.onnx")
quantize_static("student_prepared.onnx", "student_int8.onnx", Pictures(paths), per_channel=True)

images = {"images": np.stack([prepared(path) for path in paths[:64]])}
files = ("student.onnx", "student_int8.onnx")
(exact,), (rounded,) = (onnxruntime.InferenceSession(file).run(["features"], images) for file in files)
norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
print("cosine of float32 and int8 features:", ((exact * rounded).sum(1) / norms).mean())"""

TORCH_EXPORT_LINES = """\
import json

import torch

files = {"student.json": ""}
model = torch.export.load("student.pt2", extra_files=files).module()
about = json.loads(files["student.json"])["preprocessing"]  # fields of timm.data.create_transform
features = model(torch.zeros(4, *about["input_size"]))"""


def graph_parts(checks: Sequence[Checked]) -> Iterable[str]:
    """The sections, as Markdown; none without a graph."""
    for check in checks:
        yield _HEADS[check.format]
        yield f"{check.text()}. It takes batches of any size."
        yield from _TEXTS[check.format]


def _code(lines: str) -> str:
    return f"```python\n{lines}\n```"


_HEADS = {ONNX: "## ONNX", TORCH_EXPORT: "## torch.export"}
_TEXTS = {
    ONNX: (
        "Its input is `images` (batch, C, H, W), float32, and its output `features` (batch, D). Pixels are "
        "in 0..1 and normalised before, as above. The values are in the file's metadata:",
        _code(ONNX_LINES),
        "int8: raykd has not made or scored one. The accuracy depends on the pictures that the rounding is "
        "calibrated with, so it is a step of your own. These lines go on from those above:",
        _code(INT8_LINES),
        "A high cosine is no accuracy: score the int8 features on your task before you use them. Scores on "
        "this card are of float32.",
    ),
    TORCH_EXPORT: (
        "It is in eval mode and needs torch alone, of this version or a newer one. Pixels are in 0..1 and "
        "normalised before, as above:",
        _code(TORCH_EXPORT_LINES),
    ),
}
