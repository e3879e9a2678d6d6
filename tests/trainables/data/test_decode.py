"""What a picture's pixels are, by its mode and its format: values from formulas."""

import io
import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from trainables.data.decode import decode

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
RGB = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def grey_of(content: bytes) -> np.ndarray:
    pixels = decode(content, 8)
    assert (pixels == pixels[:1]).all()
    return pixels[0]


@pytest.mark.parametrize("most", [1023, 4095, 16383, 50_000, 65_535])
@pytest.mark.parametrize("kind", ["P2", "P5"])
def test_pgm_is_scaled_by_its_largest_value(most: int, kind: str) -> None:
    values = GREY.astype(np.int64) * most // 255
    body = (
        values.astype(">u2").tobytes()
        if kind == "P5"
        else " ".join(map(str, values.ravel().tolist())).encode()
    )
    got = grey_of(f"{kind} 8 8 {most}\n".encode() + body)
    assert np.abs(got - values * 255 / most).max() <= 1
    assert (got.min(), got.max()) == (0, GREY.max())


def tiff(data: bytes, bits: int, form: int = 1, photometric: int = 1) -> bytes:
    """An uncompressed grey TIFF of 8 x 8. `form`: 1 unsigned, 2 signed, 3 floating point."""
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 12 * 10 + 4, 277: 1, 278: 8}
    tags |= {279: len(data), 339: form}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def packed(values: np.ndarray, bits: int) -> bytes:
    text = "".join(f"{value:0{bits}b}" for value in values.ravel().tolist())
    return int(text, 2).to_bytes(len(text) // 8, "big")


def test_deep_tiff_is_scaled_by_its_bits() -> None:
    deep = GREY.astype("<u2")
    np.testing.assert_array_equal(grey_of(tiff((deep * 257).tobytes(), 16)), GREY)
    np.testing.assert_array_equal(grey_of(tiff((65_535 - deep * 257).tobytes(), 16, photometric=0)), GREY)
    np.testing.assert_array_equal(grey_of(tiff(packed(deep << 4, 12), 12)), GREY)
    np.testing.assert_array_equal(grey_of(tiff((255 - GREY).tobytes(), 8, photometric=0)), GREY)


@pytest.mark.parametrize(
    ("kind", "bits", "form"), [("<i2", 16, 2), ("<i4", 32, 2), ("<u4", 32, 1), ("<f4", 32, 3), ("i1", 8, 2)]
)
def test_grey_without_a_known_white_is_refused_by_name(kind: str, bits: int, form: int) -> None:
    with pytest.raises(ValueError, match=r"grey .*cannot be read .*save it as unsigned"):
        decode(tiff(GREY.astype(kind).tobytes(), bits, form), 8)


def test_deep_png() -> None:
    for bits, scale in ((16, 257), (16, 256)):
        file = io.BytesIO()
        Image.fromarray(GREY.astype(np.uint16) * scale).save(file, "PNG", bits=bits)
        np.testing.assert_array_equal(grey_of(file.getvalue()), GREY)


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_eight_bits(mode: str) -> None:
    opaque = Image.fromarray(RGB).convert("RGBA")
    grey = np.stack([np.asarray(opaque.convert("L"))] * 3)
    steps = {"La": ["LA", "La"], "RGBa": ["RGBa"], "1": ["L", "1"]}.get(mode, ["RGB", mode])
    image = opaque
    for step in steps:
        image = image.convert(step)
    assert image.mode == mode
    got = decode(image, 8).astype(int)
    if mode == "1":
        assert set(np.unique(got)) <= {0, 255}
    elif mode[0] == "L":
        np.testing.assert_array_equal(got, grey)
    else:
        most = {"P": 60, "PA": 60, "YCbCr": 3, "HSV": 8}.get(mode, 0)
        assert np.abs(got - RGB.transpose(2, 0, 1)).max() <= most


@pytest.mark.parametrize("mode", ["LAB", "F", "I"])
def test_modes_that_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode {mode}"):
        decode(Image.new(mode, (8, 8)), 8)


def test_transparency_is_dropped_and_the_colour_below_it_stays() -> None:
    alpha = np.zeros((8, 8), np.uint8)
    for kind in ("PNG", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(np.dstack([RGB, alpha])).save(file, kind, lossless=True, exact=True)
        np.testing.assert_array_equal(decode(file.getvalue(), 8), RGB.transpose(2, 0, 1))
    file = io.BytesIO()
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(file, "PNG", transparency=3)
    np.testing.assert_array_equal(decode(file.getvalue(), 8), decode(palette.convert("RGB"), 8))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    file = io.BytesIO()
    frames[0].save(
        file, kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert decode(file.getvalue(), 8)[:, 0, 0].tolist() == [255, 0, 0]


def oriented(image: Image.Image, orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(
        file,
        kind,
        exif=exif,
        **({"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}),
    )
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_as_its_exif_orientation_says(orientation: int, kind: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 64, 3), dtype=np.uint8))
    content = oriented(image, orientation, kind)
    with Image.open(io.BytesIO(content)) as file:
        want = ImageOps.exif_transpose(file).convert("RGB")
    (tmp_path / "x").write_bytes(content)
    for picture in (content, tmp_path / "x"):
        np.testing.assert_array_equal(decode(picture, 40), decode(want, 40))


def test_orientation_of_deep_grey_and_of_a_phone() -> None:
    half = np.zeros((64, 64), np.uint8)
    half[:32] = 255
    lying = Image.fromarray(half).transpose(Image.Transpose.ROTATE_90)  # as the sensor had it
    pixels = decode(oriented(lying, 6, "JPEG"), 16)[0]
    assert pixels[2].min() > 250 and pixels[13].max() < 5
    deep = Image.fromarray(np.asarray(lying).astype(np.uint16) * 257)
    assert decode(oriented(deep, 6, "PNG"), 16)[0, 2].min() == 255


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_no_broken_picture() -> None:
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "JPEG", quality=100, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert decode(file.getvalue(), 8).shape == (3, 8, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_half_a_file_is_no_picture(kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, kind)
    with pytest.raises(Exception, match=r"."):
        decode(file.getvalue()[: len(file.getvalue()) // 2], 8)


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "PNG")
    with pytest.raises(Image.DecompressionBombError):
        decode(file.getvalue(), 8)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as sock:
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        sock.bind("socket.png")
    for name in ("pipe.png", "link.png", "socket.png"):
        with pytest.raises(OSError, match="is no regular file"):
            decode(tmp_path / name, 8)
    (tmp_path / "self.png").symlink_to("self.png")
    with pytest.raises(OSError, match="symbolic links"):
        decode(tmp_path / "self.png", 8)
